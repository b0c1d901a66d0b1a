"""A chain of llama.cpp's samplers, which all draw in C."""

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp

from specialists.engine.llama.context import Context
from specialists.engine.llama.vocabulary import Vocabulary


class SamplerChain:
    """A llama.cpp sampler chain: steps are applied in the order they were added. Free with `close`."""

    def __init__(self, handle: Any | None = None) -> None:
        if handle is None:
            params = llama_cpp.llama_sampler_chain_default_params()
            params.no_perf = True
            handle = llama_cpp.llama_sampler_chain_init(params)
        self._handle = handle

    def _add(self, step: Any) -> None:
        llama_cpp.llama_sampler_chain_add(self._handle, step)

    def add_logit_bias(self, vocabulary_size: int, bias: Sequence[tuple[int, float]]) -> None:
        entries = (llama_cpp.llama_logit_bias * len(bias))(*bias)
        self._add(llama_cpp.llama_sampler_init_logit_bias(vocabulary_size, len(bias), entries))

    def add_top_k(self, k: int) -> None:
        self._add(llama_cpp.llama_sampler_init_top_k(k))

    def add_penalties(
        self, vocabulary_size: int, last_n: int, *, repeat: float, frequency: float, presence: float
    ) -> None:
        self._add(llama_cpp.llama_sampler_init_penalties(vocabulary_size, last_n, repeat, frequency, presence))

    def add_dry(self, vocabulary: Vocabulary, last_n: int, *, multiplier: float, base: float, allowed: int) -> None:
        """Penalise a token by multiplier · base^(n − allowed), if it would repeat n > allowed of the last_n tokens.

        Nothing breaks a repetition: llama.cpp's usual breakers, line ends among them, hide loops of several lines.
        """
        no_breakers = (ctypes.c_char_p * 0)()
        self._add(
            llama_cpp.llama_sampler_init_dry(vocabulary.handle, multiplier, base, allowed, last_n, no_breakers, 0)
        )

    def add_top_p(self, p: float) -> None:
        self._add(llama_cpp.llama_sampler_init_top_p(p, 1))

    def add_min_p(self, p: float) -> None:
        self._add(llama_cpp.llama_sampler_init_min_p(p, 1))

    def add_temperature(self, temperature: float) -> None:
        self._add(llama_cpp.llama_sampler_init_temp(temperature))

    def add_draw(self, seed: int) -> None:
        self._add(llama_cpp.llama_sampler_init_dist(seed))

    def add_greedy(self) -> None:
        self._add(llama_cpp.llama_sampler_init_greedy())

    def sample(self, context: Context, index: int) -> int:
        """Draw a token from the logits at a batch index, and remember it for the penalties."""
        return int(llama_cpp.llama_sampler_sample(self._handle, context.handle, index))

    def accept(self, token: int) -> None:
        """Remember a token that was not drawn here (a prompt's, or one forced by a grammar)."""
        llama_cpp.llama_sampler_accept(self._handle, token)

    def clone(self) -> "SamplerChain":
        """An exact copy: the same penalties window, the same next random draw."""
        return SamplerChain(llama_cpp.llama_sampler_clone(self._handle))

    def close(self) -> None:
        if self._handle:
            llama_cpp.llama_sampler_free(self._handle)
            self._handle = None
