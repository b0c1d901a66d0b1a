"""Whether a specialist is what its mask makes of its parent: its bytes first, then what it computes.

Three questions, from cheap to dear. Does the file hold the parent's bytes, those of the kept experts and no others
(`structure`)? Does it compute the parent's logits with the dropped experts masked (`proof`)? And how much more does the
text surprise it than its parent (`perplexity`)? The last has no right answer; the first two do.

Both models are mapped into memory at the same time and computed window by window on the CPU, whose arithmetic is the
same in both; a GPU's kernels choose their order of summation by shapes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from specialists.builder.corpus import Corpus, CorpusError
from specialists.builder.moe_graph import GateNodes, find_gates
from specialists.builder.perplexity import Interval, negative_log_likelihoods, perplexity, perplexity_ratio
from specialists.builder.prompting import Prompter
from specialists.builder.proof import (
    PACKED_TOLERANCE,
    Drift,
    GateAgreement,
    GateRecorder,
    MaskedGates,
    ZeroedExperts,
    drift,
)
from specialists.builder.structure import StructureReport
from specialists.engine.llama import Batch, Context, ContextParams, LlamaLog, Model
from specialists.engine.llama.graph_hook import GraphError, GraphHook, GraphRecorder, Observer
from specialists.expert_slicing import Kept
from specialists.ggml_types import GGML_TYPES
from specialists.gguf_file import GgufHeader
from specialists.moe_layout import MoeLayout

_UNPACKED: Final = frozenset({"F32", "F16", "BF16", "F64"})
_ROWS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifySettings:
    """`context_tokens` is the length of a window; `max_tokens` how much of each domain's text is computed."""

    context_tokens: int = 512
    max_tokens: int = 4096
    threads: int = 1
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitsProof:
    """`free` is the drift of the parent that is only masked, `aligned` that with equal gate weights (see `proof`),
    which may be no more than `tolerance`."""

    mode: str
    free: Drift
    aligned: Drift
    gates: GateAgreement
    tolerance: float

    @property
    def holds(self) -> bool:
        is_equal = self.aligned.tokens > 0 and self.aligned.max_difference <= self.tolerance
        return is_equal and self.gates.is_within_rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainPerplexity:
    """Of one domain's text, before and after; `ratio` is specialist over parent, paired."""

    domain: str
    tokens: int
    parent: Interval
    specialist: Interval
    ratio: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """All that was found. `proof` is None when the file is not even structured as its mask says."""

    structure: StructureReport
    proof: LogitsProof | None
    perplexities: tuple[DomainPerplexity, ...]

    @property
    def is_well(self) -> bool:
        return self.structure.is_sound and self.proof is not None and self.proof.holds


class Comparison:
    """Computes the same windows with a parent and its specialist. Use it as a context manager."""

    def __init__(
        self, parent: MoeLayout, kept: Kept, specialist: GgufHeader, settings: VerifySettings, *, mode: str
    ) -> None:
        self._opened = ExitStack()
        with ExitStack() as opened:
            log = LlamaLog()
            self._parent = _Side(parent.header, settings, opened, log)
            self._specialist = _Side(specialist, settings, opened, log)
            for side in (self._parent, self._specialist):
                if [gate.block for gate in side.gates] != sorted(kept):
                    raise GraphError(f"{side.name}: its graph has other MoE layers than the mask")
            self._opened = opened.pop_all()
        self._settings = settings
        self._recorder = GateRecorder(self._specialist.gates)
        self._masked = MaskedGates(self._parent.gates, kept, parent.num_experts)
        self._zeroed = ZeroedExperts(self._parent.gates, kept)
        self._mode = mode
        self._tolerance = 0.0 if _is_unpacked(parent) else PACKED_TOLERANCE
        self._free, self._aligned = Drift(), Drift()

    def __enter__(self) -> "Comparison":
        return self

    def __exit__(self, *_error: object) -> None:
        self._opened.close()

    @property
    def proof(self) -> LogitsProof:
        """Of all windows so far."""
        return LogitsProof(
            mode=self._mode,
            free=self._free,
            aligned=self._aligned,
            gates=replace(self._masked.agreement),
            tolerance=self._tolerance,
        )

    def domain(self, corpus: Corpus, *, on_tokens: Callable[[int], None] = lambda _count: None) -> DomainPerplexity:
        """Compute a domain's text. Raises CorpusError when it cannot be read, or holds too little to predict."""
        found: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
        for windows in self._records(corpus):
            pairs = [self.window(window) for window in windows]
            found.append((np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])))
            on_tokens(sum(map(len, windows)))
        parents, specialists = [pair[0] for pair in found], [pair[1] for pair in found]
        tokens = sum(map(len, parents))
        if tokens == 0:
            raise CorpusError(f"{corpus.domain}: its text is too short; two tokens or more in a record are needed")
        seed = self._settings.seed
        return DomainPerplexity(
            domain=corpus.domain,
            tokens=tokens,
            parent=perplexity(parents, seed=seed),
            specialist=perplexity(specialists, seed=seed),
            ratio=perplexity_ratio(specialists, parents, seed=seed),
        )

    def window(self, tokens: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Compute one window in all ways; the negative log likelihoods of its tokens by parent and by specialist."""
        self._recorder.begin()
        self._specialist.compute(tokens, self._recorder)
        self._parent.compute(tokens, None)
        surprises = self._parent.surprises(tokens), self._specialist.surprises(tokens)
        if self._mode == "zero":
            self._parent.compute(tokens, self._zeroed)
            self._free += self._drift(len(tokens))
            self._aligned = self._free
            return surprises
        self._masked.follow = None
        self._parent.compute(tokens, self._masked)
        self._free += self._drift(len(tokens))
        self._masked.follow = self._recorder.record
        self._parent.compute(tokens, self._masked)
        self._aligned += self._drift(len(tokens))
        return surprises

    def _drift(self, num_tokens: int) -> Drift:
        pairs = zip(self._parent.logits(num_tokens), self._specialist.logits(num_tokens), strict=True)
        return sum((drift(ours, theirs) for ours, theirs in pairs), start=Drift())

    def _records(self, corpus: Corpus) -> Iterator[list[list[int]]]:
        """The windows of each record in a shuffled order, until `max_tokens` are used up."""
        left = self._settings.max_tokens
        for number in corpus.order(self._settings.seed):
            windows = self._parent.prompter.windows(self._parent.prompter.tokens(corpus.read(number)))
            used = []
            for window in windows:
                used.append(window[:left])
                left -= len(used[-1])
                if left == 0:
                    break
            if used:
                yield used
            if left == 0:
                return


class _Side:
    """One of the two models, with a context that sees one window at a time."""

    def __init__(self, header: GgufHeader, settings: VerifySettings, opened: ExitStack, log: LlamaLog) -> None:
        self.name = header.path.name
        model = opened.enter_context(closing(Model.load(header.path, gpu_layers=0, log=log)))
        length = settings.context_tokens
        params = ContextParams(num_cells=length, max_sequences=1, batch_tokens=length, threads=settings.threads)
        recorder = GraphRecorder()
        self._hook = GraphHook(recorder)
        self._context: Context = opened.enter_context(closing(model.new_context(params, hook=self._hook)))
        self._batch = Batch(length)
        self.prompter = Prompter(model, context_tokens=length)
        self.compute([0], recorder)
        self.gates: list[GateNodes] = find_gates(recorder.nodes)

    def compute(self, tokens: Sequence[int], observer: Observer | None) -> None:
        """All logits of a window, seen by `observer`; whatever was computed before is forgotten."""
        self._hook.observer = observer
        self._context.remove(0, 0)
        self._batch.clear()
        self._batch.add(tokens, position=0, sequence_id=0, logits="all")
        self._context.decode(self._batch)

    def logits(self, num_tokens: int) -> Iterator[NDArray[np.float32]]:
        """Those of the last window, some rows at a time: a large vocabulary takes a megabyte for each token."""
        for start in range(0, num_tokens, _ROWS):
            yield np.stack([self._context.logits(index) for index in range(start, min(start + _ROWS, num_tokens))])

    def surprises(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        """Negative log likelihoods of all tokens but the first."""
        found = [np.zeros(0)]
        for number, rows in enumerate(self.logits(len(tokens) - 1)):
            start = number * _ROWS + 1
            found.append(negative_log_likelihoods(rows, tokens[start : start + len(rows)]))
        return np.concatenate(found)


def _is_unpacked(parent: MoeLayout) -> bool:
    types = {tensor.ggml_type for part in parent.header.parts for tensor in part.tensors}
    return {GGML_TYPES[each].name for each in types} <= _UNPACKED


def verify(
    parent: MoeLayout,
    kept: Kept,
    specialist: GgufHeader,
    structure: StructureReport,
    corpora: Sequence[Corpus],
    settings: VerifySettings,
    *,
    on_tokens: Callable[[int], None] = lambda _count: None,
) -> Verification:
    """Compute what `structure` (of the same files) has left open. Raises CorpusError, SpecialistError or GraphError."""
    if not structure.is_sound:
        return Verification(structure=structure, proof=None, perplexities=())
    with Comparison(parent, kept, specialist, settings, mode=structure.mode) as comparison:
        found = tuple(comparison.domain(corpus, on_tokens=on_tokens) for corpus in corpora)
        return Verification(structure=structure, proof=comparison.proof, perplexities=found)
