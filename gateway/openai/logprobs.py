"""Log-probabilities as the two endpoints write them."""

from collections.abc import Iterable
from typing import Any

from specialists.request import TokenLogprob

LOWEST_LOGPROB = -9999.0  # stands for minus infinity, which JSON cannot say


def piece_text(piece: bytes) -> str:
    return piece.decode("utf-8", "replace")


def _finite(logprob: float | None) -> float | None:
    """What JSON can carry; None stays None."""
    return logprob if logprob is None or logprob > LOWEST_LOGPROB else LOWEST_LOGPROB


def chat_logprobs(logprobs: Iterable[TokenLogprob]) -> dict[str, Any]:
    return {
        "content": [
            _token_object(each.piece, each.logprob)
            | {"top_logprobs": [_token_object(piece, logprob) for _, piece, logprob in each.top]}
            for each in logprobs
        ]
    }


def _token_object(piece: bytes, logprob: float | None) -> dict[str, Any]:
    return {"token": piece_text(piece), "logprob": _finite(logprob), "bytes": list(piece)}


def completion_logprobs(logprobs: Iterable[TokenLogprob], *, offset: int = 0) -> dict[str, Any]:
    """The parallel lists of the older API; a token without a probability (a prompt's first) has nulls."""
    tokens: list[str] = []
    values: list[float | None] = []
    tops: list[dict[str, float | None] | None] = []
    offsets: list[int] = []
    for each in logprobs:
        tokens.append(piece_text(each.piece))
        values.append(_finite(each.logprob))
        tops.append(None if each.logprob is None else _top(each))
        offsets.append(offset)
        offset += len(tokens[-1])
    return {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}


def _top(each: TokenLogprob) -> dict[str, float | None]:
    top = {piece_text(piece): _finite(logprob) for _, piece, logprob in each.top}
    return top | {piece_text(each.piece): _finite(each.logprob)}
