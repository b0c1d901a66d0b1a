"""Text to WordPiece ids, both ends of what is too long. The tokenizer is the encoder's own, in Hugging Face's JSON."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from supervisor.errors import InvalidModel

MAX_TOKENS = 128
HEAD_SHARE = 2 / 3  # of what a long text may keep


class WordPieces:
    """`encode` gives ids with [CLS] and [SEP], at most `max_tokens` of them. Lower-cases; thread-safe."""

    def __init__(self, file: Path, *, max_tokens: int = MAX_TOKENS) -> None:
        self._tokenizer = Tokenizer.from_file(str(file))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._cls = self._id_of("[CLS]")
        self._sep = self._id_of("[SEP]")
        self.max_tokens = max_tokens

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [self._cls, *both_ends(ids, self.max_tokens - 2), self._sep]

    def _id_of(self, piece: str) -> int:
        found: int | None = self._tokenizer.token_to_id(piece)
        if found is None:
            raise InvalidModel(f"tokenizer.json: no piece {piece}; the encoder needs a BERT tokenizer")
        return found

    def vocabulary(self) -> list[str]:
        """Every piece, in the order of its id."""
        by_piece: dict[str, int] = self._tokenizer.get_vocab()
        return sorted(by_piece, key=by_piece.__getitem__)


def both_ends(ids: Sequence[int], num_kept: int) -> list[int]:
    """`ids` itself, or its first two thirds and last third of `num_kept` when there are more."""
    if len(ids) <= num_kept:
        return list(ids)
    num_head = round(num_kept * HEAD_SHARE)
    return [*ids[:num_head], *ids[len(ids) - (num_kept - num_head) :]]
