"""Records in groups: read, tokenised, answered where that is asked for, run through the parent, added to a profile.

A group is small enough that little is lost with it and large enough that batches are full. It begins where the one
before ended and takes whole records until it has enough tokens, so groups depend on the corpus alone.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from specialists.builder.accumulation import add_trace, resampling_draws
from specialists.builder.corpus import Chat, Corpus, Record
from specialists.builder.generation import Generator, OpenPrompt
from specialists.builder.histogram import DomainProfile
from specialists.builder.profiler import ExpertProfiler
from specialists.builder.prompting import Prompter
from specialists.engine.llama import Model
from specialists.errors import RequestRejected
from specialists.moe_layout import MoeLayout


@dataclass(frozen=True, slots=True)
class Group:
    """The windows of a few records. `records` are their numbers, without those that hold no token; `owners` says for
    each window which of them it is of; `num_taken` counts all records that were read, `num_skipped` those of them
    that the chat template refused."""

    domain: str
    records: tuple[int, ...]
    windows: tuple[list[int], ...]
    owners: tuple[int, ...]
    num_taken: int
    num_skipped: int


class GroupReader:
    """Reads groups and profiles them with one model. Close it before the model."""

    def __init__(
        self,
        model: Model,
        layout: MoeLayout,
        *,
        context_tokens: int,
        batch_tokens: int,
        group_tokens: int,
        threads: int,
        with_contributions: bool,
        generate_tokens: int,
        temperature: float,
        seed: int,
    ) -> None:
        sizes = {"context_tokens": context_tokens, "batch_tokens": batch_tokens, "threads": threads}
        self._prompter = Prompter(model, context_tokens=context_tokens)
        self._group_tokens = group_tokens
        self._prompt_tokens = context_tokens - generate_tokens
        self._seed = seed
        self._generator: Generator | None = None
        if generate_tokens:
            self._generator = Generator(model, max_tokens=generate_tokens, temperature=temperature, **sizes)
        self._profiler = ExpertProfiler(model, layout, with_contributions=with_contributions, **sizes)

    def read(self, corpus: Corpus, records: Iterator[int], *, most_tokens: int | None) -> Group:
        """The next group: takes as many of `records` as make it full; never more than `most_tokens` tokens."""
        budget = self._group_tokens if most_tokens is None else min(self._group_tokens, most_tokens)
        kept: list[int] = []
        windows: list[list[int]] = []
        owners: list[int] = []
        prompts: list[int] = []
        used = taken = skipped = 0
        for number in records:
            taken += 1
            record = corpus.read(number)
            try:
                cut = self._windows(record)
            except RequestRejected:
                skipped += 1
                continue
            if cut:
                if self._is_open(record):
                    prompts.append(len(windows))
                owners += [len(kept)] * len(cut)
                windows += cut
                kept.append(number)
                used += sum(map(len, cut))
            if used >= budget:
                break
        self._answer(corpus.domain, windows, {index: kept[owners[index]] for index in prompts})
        group = Group(corpus.domain, tuple(kept), tuple(windows), tuple(owners), taken, skipped)
        return group if most_tokens is None else _clipped(group, most_tokens)

    def add_to(self, profile: DomainProfile, group: Group) -> None:
        """Run a group through the parent and add what its gates did to `profile`, in place."""
        replicates = profile.shape.replicates
        draws = resampling_draws(group.domain, group.records, replicates=replicates, seed=self._seed)
        owners = np.asarray(group.owners, dtype=np.intp)
        for traced in self._profiler.traces(group.windows):
            add_trace(profile, traced.trace, owners[traced.windows], draws)

    def close(self) -> None:
        self._profiler.close()
        if self._generator is not None:
            self._generator.close()

    def _is_open(self, record: Record) -> bool:
        return self._generator is not None and not (isinstance(record, Chat) and record.answer)

    def _windows(self, record: Record) -> list[list[int]]:
        """The record's windows; of one that is to be answered a single one, short enough to leave room for that."""
        windows = self._prompter.windows(self._prompter.tokens(record))
        return [windows[0][: self._prompt_tokens]] if windows and self._is_open(record) else windows

    def _answer(self, domain: str, windows: list[list[int]], records: dict[int, int]) -> None:
        """Append the model's answer to each window that is a key of `records`, in place."""
        if self._generator is None:
            return
        stream = zlib.crc32(domain.encode())
        seeds = {window: zlib.crc32(f"{self._seed}.{stream}.{record}".encode()) for window, record in records.items()}
        prompts = [OpenPrompt(windows[window], seed) for window, seed in seeds.items()]
        for window, answer in zip(seeds, self._generator.answers(prompts), strict=True):
            windows[window] += answer


def _clipped(group: Group, most_tokens: int) -> Group:
    """The group without what goes beyond `most_tokens`."""
    windows: list[list[int]] = []
    left = most_tokens
    for window in group.windows:
        windows.append(window[:left])
        left -= len(windows[-1])
        if left == 0:
            break
    owners = group.owners[: len(windows)]
    records = group.records[: owners[-1] + 1] if owners else ()
    return replace(group, records=records, windows=tuple(windows), owners=owners)
