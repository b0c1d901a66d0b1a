"""Text to token ids and back, by the vocabulary inside a model file."""

import ctypes
from functools import cached_property
from typing import Any

import llama_cpp

_MARKUP_ATTRIBUTES = (
    llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
)


class Vocabulary:
    """Text to token ids and back. Never parses special tokens out of text: see `chat_template`."""

    def __init__(self, model_handle: Any) -> None:
        self.handle = llama_cpp.llama_model_get_vocab(model_handle)
        self.size: int = llama_cpp.llama_vocab_n_tokens(self.handle)
        self.bos: int = llama_cpp.llama_vocab_bos(self.handle)
        self.eos: int = llama_cpp.llama_vocab_eos(self.handle)
        self.sep: int = llama_cpp.llama_vocab_sep(self.handle)
        self.adds_bos: bool = llama_cpp.llama_vocab_get_add_bos(self.handle)
        self._piece_buffer = ctypes.create_string_buffer(1024)

    def tokenize(self, text: str, *, is_whole: bool = False) -> list[int]:
        """Token ids of plain text; control tokens spelled out in it stay text.

        `is_whole`: with the tokens that the vocabulary puts before and after a text.
        """
        encoded = text.encode("utf-8", "replace")
        capacity = len(encoded) + 8
        tokens = (llama_cpp.llama_token * capacity)()
        count = llama_cpp.llama_tokenize(self.handle, encoded, len(encoded), tokens, capacity, is_whole, False)
        if count < 0:  # more tokens than bytes: possible only with added prefixes
            tokens = (llama_cpp.llama_token * -count)()
            count = llama_cpp.llama_tokenize(self.handle, encoded, len(encoded), tokens, -count, is_whole, False)
        return list(tokens[:count])

    def piece(self, token: int, *, show_markup: bool = False) -> bytes:
        """The bytes a token stands for; markup tokens are empty unless `show_markup`."""
        buffer = self._piece_buffer
        length = llama_cpp.llama_token_to_piece(self.handle, token, buffer, len(buffer), 0, show_markup)
        if length < 0:
            self._piece_buffer = ctypes.create_string_buffer(-length)
            return self.piece(token, show_markup=show_markup)
        return buffer.raw[:length]

    def text_of(self, token: int) -> str:
        """The vocabulary's own spelling of a token ("" for none)."""
        if not 0 <= token < self.size:
            return ""
        return str(llama_cpp.llama_vocab_get_text(self.handle, token), "utf-8", "replace")

    def ends_generation(self, token: int) -> bool:
        return bool(llama_cpp.llama_vocab_is_eog(self.handle, token))

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """Every token that ends an answer."""
        ends = (token for token in self.markup.values() if self.ends_generation(token))
        return frozenset(ends) or frozenset((self.eos,))

    @cached_property
    def markup(self) -> dict[str, int]:
        """Tokens that structure a prompt rather than say something, by their spelling.

        Besides control tokens these are the user-defined ones spelled like tags: Gemma 4's `<|channel>` is one, and
        llama.cpp recognises those in any text.
        """
        found = {}
        for token in range(self.size):
            attributes = llama_cpp.llama_vocab_get_attr(self.handle, token)
            if not attributes & _MARKUP_ATTRIBUTES:
                continue
            text = self.text_of(token)
            is_control = bool(attributes & llama_cpp.LLAMA_TOKEN_ATTR_CONTROL)
            if text and (is_control or (text[0], text[-1]) in (("<", ">"), ("[", "]"))):
                found[text] = token
        return found

    @cached_property
    def longest_piece_bytes(self) -> int:
        """No token stands for more bytes than this, so n bytes of text are at least n / this many tokens."""
        return max(len(self.piece(token, show_markup=True)) for token in range(self.size)) or 1
