"""What a model makes of held-out text: hits and surprise by record, and cloze questions cut from the same text.

Runs the project's own llama.cpp binding on the CPU; a specialist is loaded as its parent's plan, never written.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specialists.builder.perplexity import negative_log_likelihoods
from specialists.engine.llama import Batch, Context, ContextParams, LlamaLog, Model
from specialists.expert_slicing import Kept, plan_slice, plan_zero
from specialists.gguf_file import read_header
from specialists.moe_layout import layout

WINDOW_TOKENS = 256
CONTEXT_TOKENS, OPTION_TOKENS, OPTIONS = 64, 16, 4
_SIDE_BY_SIDE = 8


@dataclass(frozen=True, slots=True)
class Question:
    """Four ways to go on from a context, of equal length; the first is the true one."""

    rows: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One domain's material: windows of at most WINDOW_TOKENS, one for each record, and questions."""

    windows: tuple[tuple[int, ...], ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Scores:
    """Of one model on one domain, an entry for each record: tokens asked, right, Σ −ln p; then right questions."""

    num: list[int]
    right: list[int]
    loss: list[float]
    cloze: list[bool]


class Scorer:
    """One loaded model that scores rows of tokens."""

    def __init__(self, model: Model, threads: int) -> None:
        cells = _SIDE_BY_SIDE * WINDOW_TOKENS
        params = ContextParams(num_cells=cells, max_sequences=_SIDE_BY_SIDE, batch_tokens=cells, threads=threads)
        self._vocabulary = model.vocabulary
        self._context: Context = model.new_context(params)
        self._batch = Batch(cells)

    def surprises(self, rows: Sequence[Sequence[int]]) -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
        """For each row: −ln p of its tokens but the first, and whether each was the likeliest."""
        for start in range(0, len(rows), _SIDE_BY_SIDE):
            yield from self._together(rows[start : start + _SIDE_BY_SIDE])

    def _together(self, rows: Sequence[Sequence[int]]) -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
        self._batch.clear()
        for slot, row in enumerate(rows):
            self._context.remove(slot, 0)
            self._batch.add(list(row), position=0, sequence_id=slot, logits="all")
        self._context.decode(self._batch)
        first = 0
        for row in rows:
            logits = np.stack([self._context.logits(first + place) for place in range(len(row) - 1)])
            yield negative_log_likelihoods(logits, row[1:]), logits.argmax(1) == np.asarray(row[1:])
            first += len(row)

    def score(self, held: HeldOut) -> Scores:
        found = Scores([], [], [], [])
        for losses, hits in self.surprises(held.windows):
            found.num.append(len(losses))
            found.right.append(int(hits.sum()))
            found.loss.append(float(losses.sum()))
        rows = [row for question in held.questions for row in question.rows]
        tails = [float(losses[-OPTION_TOKENS:].sum()) for losses, _ in self.surprises(rows)]
        for start in range(0, len(tails), OPTIONS):
            found.cloze.append(int(np.argmin(tails[start : start + OPTIONS])) == 0)
        return found

    def logits(self, row: Sequence[int]) -> NDArray[np.float32]:
        """[token, vocabulary] of one row of at most WINDOW_TOKENS."""
        self._batch.clear()
        self._context.remove(0, 0)
        self._batch.add(list(row), position=0, sequence_id=0, logits="all")
        self._context.decode(self._batch)
        return np.stack([self._context.logits(place) for place in range(len(row))])

    def text(self, row: Sequence[int]) -> bytes:
        return b"".join(map(self._vocabulary.piece, row))

    def close(self) -> None:
        self._context.close()


@contextmanager
def opened(parent: Path, kept: Kept | None = None, *, mode: str = "slice", threads: int = 1) -> Iterator[Scorer]:
    """The parent, or its specialist with `kept` experts; `mode` is slice or zero, as in `coe build`."""
    if kept is None:
        model = Model.load(parent, gpu_layers=0, log=LlamaLog())
    else:
        plan = (plan_slice if mode == "slice" else plan_zero)(layout(read_header(parent)), kept)
        model = Model.load_plan(plan, name=parent.name, gpu_layers=0, log=LlamaLog())
    scorer = Scorer(model, threads)
    try:
        yield scorer
    finally:
        scorer.close()
        model.close()


def material(parent: Path, texts: Sequence[str], *, records: int, questions: int, seed: int) -> HeldOut:
    """The first `records` texts as windows, and `questions` from them, all by the parent's vocabulary."""
    model = Model.load(parent, gpu_layers=0, log=LlamaLog())
    vocabulary = model.vocabulary
    rows = [[vocabulary.bos, *vocabulary.tokenize(text)] for text in texts]
    model.close()
    long = [row for row in rows if len(row) > CONTEXT_TOKENS + OPTION_TOKENS]
    windows = tuple(tuple(row[:WINDOW_TOKENS]) for row in rows[:records] if len(row) > 1)
    return HeldOut(windows, tuple(_questions(long, questions, np.random.default_rng(seed))))


def _questions(rows: Sequence[Sequence[int]], most: int, rng: np.random.Generator) -> Iterator[Question]:
    """Each context's own continuation, and continuations of other records at the same place."""
    end = CONTEXT_TOKENS + OPTION_TOKENS
    for number in range(min(most, len(rows)) if len(rows) >= OPTIONS else 0):
        others = rng.choice([other for other in range(len(rows)) if other != number], OPTIONS - 1, replace=False)
        context = tuple(rows[number][:CONTEXT_TOKENS])
        options = [rows[place][CONTEXT_TOKENS:end] for place in (number, *others.tolist())]
        yield Question(tuple((*context, *option) for option in options))
