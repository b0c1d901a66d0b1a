"""How the next token is drawn: sampling parameters as a llama.cpp chain, and log-probabilities for those who ask.

top_k always comes first (after a bias, which must see every token): with 262,144 tokens it makes everything behind
it eight times cheaper than penalties or a full softmax would be.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from specialists.engine.llama import SamplerChain, Vocabulary
from specialists.request import SamplingParams, TokenLogprob

MAX_TOP_K = 1024


def build_chain(
    params: SamplingParams, *, vocabulary_size: int, seed: int, history: Iterable[int] = ()
) -> SamplerChain:
    """A chain for one Sequence. `history` (the prompt's tail) fills the penalties' window."""
    chain = SamplerChain()
    if params.logit_bias:
        known = [(token, bias) for token, bias in params.logit_bias if 0 <= token < vocabulary_size]
        chain.add_logit_bias(vocabulary_size, known)
    chain.add_top_k(params.top_k if 0 < params.top_k <= MAX_TOP_K else MAX_TOP_K)
    if _has_penalties(params):
        chain.add_penalties(
            vocabulary_size,
            params.repeat_last_n,
            repeat=params.repeat_penalty,
            frequency=params.frequency_penalty,
            presence=params.presence_penalty,
        )
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
