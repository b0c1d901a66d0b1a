"""Answers that match a JSON schema: llguidance masks over the logits, and the tokens it forces.

llama.cpp's own grammars are not used: one that does not parse ends the process. The schema comes from a client, so
it is held to limits before it is compiled, and what cannot be enforced is refused, never relaxed.
The only module that imports `llguidance`.
"""

from collections.abc import Sequence

import llguidance
import llguidance.llamacpp
import numpy as np
from numpy.typing import NDArray

from specialists.engine.llama import Vocabulary
from specialists.engine.tool_grammar import COMPILE_OPTIONS
from specialists.errors import InvalidSchema
from specialists.json_schema import check_schema


class SchemaCompiler:
    """Compiles schemas for one vocabulary. Building the token table takes 0.3–1.6 s, so it waits for the first."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._tokenizer: llguidance.LLTokenizer | None = None

    def compile(self, schema_text: str) -> "SchemaMatcher":
        """A fresh matcher. Raises InvalidSchema when the schema is beyond the limits or cannot be enforced."""
        schema = check_schema(schema_text)
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=COMPILE_OPTIONS)
        except ValueError as error:
            raise InvalidSchema(f"The JSON schema cannot be used: {error}") from error
        return self._matcher(grammar, "The JSON schema", "response_format")

    def compile_calls(self, grammar: str) -> "SchemaMatcher":
        """A fresh matcher for a grammar of `tool_grammar`. Raises InvalidSchema when it cannot be enforced."""
        try:
            compiled = llguidance.LLMatcher.grammar_from_lark(grammar)
        except ValueError as error:
            raise InvalidSchema(f"A function's parameters cannot be used: {error}", param="tools") from error
        return self._matcher(compiled, "The schema of a function's parameters", "tools")

    def _matcher(self, grammar: str, what: str, param: str) -> "SchemaMatcher":
        if self._tokenizer is None:
            self._tokenizer = llguidance.llamacpp.lltokenizer_from_vocab(
                self._vocabulary.handle, eos_token=sorted(self._vocabulary.end_tokens)
            )
        matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise InvalidSchema(f"{what} cannot be enforced: {matcher.get_error()[:500]}", param=param)
        return SchemaMatcher(matcher)


class SchemaMatcher:
    """Where one answer stands in its schema."""

    def __init__(self, matcher: "llguidance.LLMatcher") -> None:
        self._matcher = matcher

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Set the logits (vocabulary size,) of every token that the schema does not allow next to −∞, in place."""
        allowed = self._allowed()
        count = min(len(allowed), len(logits))
        logits[:count][allowed[:count] == 0] = -np.inf
        logits[count:] = -np.inf

    def accept(self, token: int) -> list[int]:
        """Take a drawn token; returns the tokens that must follow it, already taken."""
        self._matcher.consume_token(token)
        forced: list[int] = self._matcher.compute_ff_tokens()
        if forced:
            self._matcher.consume_tokens(forced)
        return forced

    def start(self) -> list[int]:
        """The tokens that every matching answer begins with, already taken."""
        forced: list[int] = self._matcher.compute_ff_tokens()
        if forced:
            self._matcher.consume_tokens(forced)
        return forced

    def rewind(self, tokens: Sequence[int]) -> None:
        """Go back to where the answer consisted of `tokens`."""
        self._matcher.reset()
        self._matcher.consume_tokens(list(tokens))

    def first_choice(self, tokens: Sequence[int], start: int) -> int | None:
        """The first place from `start` on where the schema allows another token than the answer `tokens` has there.

        None where it leaves no choice.
        """
        probe = SchemaMatcher(self._matcher.deep_copy())
        probe.rewind(tokens[:start])
        for place in range(start, len(tokens)):
            if probe._allowed().sum() > 1:
                return place
            probe._matcher.consume_token(tokens[place])
        return None

    def _allowed(self) -> NDArray[np.uint8]:
        """One 0 or 1 for each token of the vocabulary, perhaps with some padding."""
        return np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")

    @property
    def may_end(self) -> bool:
        """Whether the answer so far matches the schema as it is."""
        return bool(self._matcher.is_accepting())

    @property
    def is_finished(self) -> bool:
        """Whether nothing but the end of the answer can follow."""
        return bool(self._matcher.is_stopped())

    @property
    def error(self) -> str | None:
        """Why matching broke down, if it did (the schema proved too complex to follow)."""
        return str(self._matcher.get_error()) if self._matcher.is_error() else None
