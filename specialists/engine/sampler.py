"""How the next token is drawn: sampling parameters as a llama.cpp chain, and log-probabilities for those who ask.

top_k always comes first (after a bias, which must see every token): with 262,144 tokens it makes everything behind
it eight times cheaper than penalties or a full softmax would be.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace as replace_struct
from numpy.typing import NDArray

from specialists.engine.llama import SamplerChain, Vocabulary
from specialists.request import SamplingParams, TokenLogprob

MAX_TOP_K = 1024
NUM_SEEDS = 2**32 - 1  # of 32 bits, all ones mean "draw one"

RESCUE_TEMPERATURE = 0.6  # what the specialists were tuned for; the least that leaves a loop
RESCUE_TOP_K = 40  # fewer candidates, or less of their probability, may leave only the loop to choose from
RESCUE_TOP_P = 0.9
RESCUE_LAST_N = 128
RESCUE_PRESENCE = 0.5
MOST_RESCUE_PRESENCE = 1.5


class Dry(NamedTuple):
    """Penalise what would repeat any of the last `last_n` tokens verbatim, the more the longer the repetition."""

    last_n: int
    multiplier: float = 0.8
    base: float = 1.75
    allowed: int = 2


def build_chain(
    params: SamplingParams, vocabulary: Vocabulary, *, seed: int, history: Iterable[int] = (), dry: Dry | None = None
) -> SamplerChain:
    """A chain for one Sequence. `history` (the tokens so far) fills the windows of penalties and DRY."""
    chain = SamplerChain()
    if params.logit_bias:
        known = [(token, bias) for token, bias in params.logit_bias if 0 <= token < vocabulary.size]
        chain.add_logit_bias(vocabulary.size, known)
    chain.add_top_k(params.top_k if 0 < params.top_k <= MAX_TOP_K else MAX_TOP_K)
    if _has_penalties(params):
        chain.add_penalties(
            vocabulary.size,
            params.repeat_last_n,
            repeat=params.repeat_penalty,
            frequency=params.frequency_penalty,
            presence=params.presence_penalty,
        )
    if dry is not None:
        chain.add_dry(vocabulary, dry.last_n, multiplier=dry.multiplier, base=dry.base, allowed=dry.allowed)
    if params.temperature <= 0:
        chain.add_greedy()
    else:
        if params.top_p < 1:
            chain.add_top_p(params.top_p)
        if params.min_p > 0:
            chain.add_min_p(params.min_p)
        chain.add_temperature(params.temperature)
        chain.add_draw(seed)
    for token in history:
        chain.accept(token)
    return chain


def rescue_params(params: SamplingParams, *, severity: int) -> SamplingParams:
    """The nearest sampling that can leave a loop: never greedy, never from too few candidates.

    `severity` counts from 1: what looped before in this answer is drawn on with a larger presence penalty.
    """
    presence = min(RESCUE_PRESENCE * severity, MOST_RESCUE_PRESENCE)
    return replace_struct(
        params,
        temperature=max(params.temperature, RESCUE_TEMPERATURE),
        top_k=max(params.top_k, RESCUE_TOP_K) if params.top_k > 0 else params.top_k,
        top_p=max(params.top_p, RESCUE_TOP_P),
        repeat_last_n=max(params.repeat_last_n, RESCUE_LAST_N),
        presence_penalty=max(params.presence_penalty, presence),
    )


def fresh_seed(seed: int, number: int) -> int:
    """The seed for the `number`-th time that an answer is drawn on anew; the same request gives the same ones."""
    return (seed + number * 0x9E3779B1) % NUM_SEEDS


def _has_penalties(params: SamplingParams) -> bool:
    return (params.repeat_penalty, params.frequency_penalty, params.presence_penalty) != (1.0, 0.0, 0.0)


def token_logprob(logits: NDArray[np.float32], token: int, num_top: int, vocabulary: Vocabulary) -> TokenLogprob:
    """Natural-log probability of `token` and of the `num_top` likeliest, under the model's own distribution.

    `logits` is (vocabulary size,), before bias, penalties, temperature or any grammar.
    """
    peak = float(logits.max())
    log_normaliser = peak + float(np.log(np.exp(logits - peak, dtype=np.float64).sum()))
    if num_top:
        likeliest = np.argpartition(logits, -num_top)[-num_top:]
        likeliest = likeliest[np.argsort(-logits[likeliest], kind="stable")]
    else:
        likeliest = np.empty(0, dtype=np.int64)
    top = tuple(
        (int(other), vocabulary.piece(int(other), show_markup=True), float(logits[other]) - log_normaliser)
        for other in likeliest
    )
    piece = vocabulary.piece(token, show_markup=True)
    return TokenLogprob(token, piece, float(logits[token]) - log_normaliser, top)
