"""One pass of several corpora through a parent, which can be interrupted at any moment and goes on where it was.

Records are taken in groups of a few thousand tokens. After a group the sums are complete for all records so far, so
that is where the state may be written; groups do not depend on when that happens, so an interrupted run ends with the
very numbers of an uninterrupted one. The state is a profile like the result, beside it, under `NAME.partial`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from specialists.builder.corpus import Corpus
from specialists.builder.histogram import (
    DomainProfile,
    Profile,
    ProfileError,
    ProfileShape,
    read_profile,
    write_profile,
)
from specialists.builder.record_groups import GroupReader
from specialists.builder.stability import StabilityRule, has_settled, measure
from specialists.engine.llama import Model
from specialists.gguf_fingerprint import fingerprint
from specialists.moe_layout import MoeLayout

_SOFTWARE: Final = f"college-of-experts {version('college-of-experts')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileSettings:
    """How a profile is made. Lengths are in tokens; `max_tokens` is per domain, None for all of it.

    Longer records are cut into windows of `context_tokens`. Records are taken in groups of at least `group_tokens`
    between which the state may be saved. With `generate_tokens`, records without an answer get one of at most that
    many from the model, at `temperature`, and prompt and answer are profiled together.
    """

    context_tokens: int = 1024
    batch_tokens: int = 512
    group_tokens: int = 4096
    max_tokens: int | None = None
    with_contributions: bool = True
    generate_tokens: int = 0
    temperature: float = 0.6
    stability: StabilityRule | None = None
    replicates: int = 32
    shuffle: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.context_tokens <= 1 << 20:
            raise ProfileError("context: from 2 tokens to a million are expected.")
        if not 1 <= self.batch_tokens <= 1 << 16:
            raise ProfileError("batch: from 1 token to 65536 are expected.")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ProfileError("max-tokens: at least 1 is expected.")
        if not 0 <= self.generate_tokens < self.context_tokens:
            raise ProfileError("generate: fewer tokens than the context has are expected.")
        if not 16 <= self.replicates <= 1024:
            raise ProfileError("replicates: from 16 to 1024 are expected.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileProgress:
    """How far a run is: `domains_done` of `num_domains`, and `share` of the current one, in which there were so far
    `tokens` tokens."""

    domain: str
    domains_done: int
    num_domains: int
    share: float
    tokens: int


class ProfileRun:
    """Profiles `corpora` into `out`. Raises ProfileError, CorpusError, SpecialistError, GraphError or OSError."""

    def __init__(
        self,
        layout: MoeLayout,
        corpora: Sequence[Corpus],
        out: Path,
        settings: ProfileSettings,
        *,
        clock: Callable[[], float],
        flush_seconds: float = 30.0,
    ) -> None:
        self._layout = layout
        self._corpora = corpora
        self._out = out
        self._settings = settings
        self._clock = clock
        self._flush_seconds = flush_seconds
        self._parent = fingerprint(layout.header)
        self._domains: dict[str, DomainProfile] = {}
        self._positions: dict[str, int] = {}
        if settings.stability is not None and not 1 <= settings.stability.keep <= layout.num_experts:
            raise ProfileError(
                f"keep: from 1 to {layout.num_experts} experts, as many as the parent has, are expected."
            )

    @property
    def state_path(self) -> Path:
        return self._out.with_name(self._out.name + ".partial")

    def resume(self) -> bool:
        """Take up the state of an interrupted run, if there is one. Raises ProfileError if it was another run."""
        if not self.state_path.exists():
            return False
        state = read_profile(self.state_path)
        differing = [key for key, value in self._description().items() if state.settings.get(key) != value]
        if state.parent != self._parent:
            differing.insert(0, "parent")
        if differing:
            raise ProfileError(
                f"{self.state_path.name}: is of an interrupted run that differs in {', '.join(differing)}; remove it "
                "to start anew, or repeat that run's options to go on."
            )
        sizes = {corpus.domain: len(corpus) for corpus in self._corpora}
        positions = state.settings.get("positions")
        if not isinstance(positions, dict) or not all(
            type(position) is int and 0 <= position <= sizes.get(domain, -1) for domain, position in positions.items()
        ):
            raise ProfileError(f"{self.state_path.name}: does not say how far its run was; remove it to start anew.")
        self._positions = positions
        self._domains = {name: _writable(domain) for name, domain in state.domains.items()}
        return True

    def run(
        self, model: Model, *, threads: int, on_progress: Callable[[ProfileProgress], None] = lambda _progress: None
    ) -> Profile:
        """Profile what is left, write the result and remove the state."""
        flushed = self._clock()
        with closing(self._reader(model, threads)) as reader:
            for done, corpus in enumerate(self._corpora):
                for domain in self._profile_domain(corpus, reader):
                    on_progress(self._progress(corpus, domain, done))
                    if self._clock() - flushed >= self._flush_seconds:
                        write_profile(self._profile({"positions": self._positions}), self.state_path)
                        flushed = self._clock()
        profile = self._profile({})
        write_profile(profile, self._out)
        self.state_path.unlink(missing_ok=True)
        return profile

    def _profile_domain(self, corpus: Corpus, reader: GroupReader) -> Iterator[DomainProfile]:
        """Profile a domain group by group; at every yield the state is that of whole records."""
        name = corpus.domain
        profile = self._domains.get(name) or DomainProfile.zeros(self._shape(), corpus=corpus.digest)
        order = corpus.order(self._settings.seed if self._settings.shuffle else None)
        position = self._positions.get(name, 0)
        records = iter(order[position:])
        while not self._is_done(profile, left=len(order) - position):
            group = reader.read(corpus, records, most_tokens=self._tokens_left(profile))
            reader.add_to(profile, group)
            position += group.num_taken
            profile = replace(
                profile,
                num_records=profile.num_records + len(group.records),
                num_skipped=profile.num_skipped + group.num_skipped,
            )
            profile = self._checked(profile, is_last=position == len(order))
            self._domains[name], self._positions[name] = profile, position
            yield profile
        if not profile.num_tokens.any():
            refused = f"; the chat template refused {profile.num_skipped} records" if profile.num_skipped else ""
            raise ProfileError(f"{name}: its corpus has no tokens{refused}.")

    def _is_done(self, profile: DomainProfile, *, left: int) -> bool:
        rule = self._settings.stability
        return left == 0 or self._tokens_left(profile) == 0 or (rule is not None and has_settled(profile.curve, rule))

    def _tokens_left(self, profile: DomainProfile) -> int | None:
        most = self._settings.max_tokens
        return None if most is None else max(0, most - int(profile.num_tokens.max()))

    def _checked(self, profile: DomainProfile, *, is_last: bool) -> DomainProfile:
        """With another point on its curve, if one is due."""
        rule = self._settings.stability
        if rule is None or not profile.num_tokens.any():
            return profile
        before = profile.curve[-1] if profile.curve else None
        tokens = int(profile.num_tokens.max())
        is_last = is_last or self._tokens_left(profile) == 0
        if not is_last and tokens < rule.next_check(before["tokens"] if before else 0):
            return profile
        return replace(profile, curve=(*profile.curve, measure(profile, rule, before).as_json()))

    def _progress(self, corpus: Corpus, domain: DomainProfile, done: int) -> ProfileProgress:
        position, tokens = self._positions[corpus.domain], int(domain.num_tokens.max())
        share = position / len(corpus)
        if self._settings.max_tokens is not None:
            share = max(share, tokens / self._settings.max_tokens)
        return ProfileProgress(
            domain=corpus.domain,
            domains_done=done,
            num_domains=len(self._corpora),
            share=min(1.0, share),
            tokens=tokens,
        )

    def _reader(self, model: Model, threads: int) -> GroupReader:
        settings = self._settings
        return GroupReader(
            model,
            self._layout,
            context_tokens=settings.context_tokens,
            batch_tokens=settings.batch_tokens,
            group_tokens=settings.group_tokens,
            threads=threads,
            with_contributions=settings.with_contributions,
            generate_tokens=settings.generate_tokens,
            temperature=settings.temperature,
            seed=settings.seed,
        )

    def _shape(self) -> ProfileShape:
        layout = self._layout
        return ProfileShape(
            layers=len(layout.blocks),
            experts=layout.num_experts,
            ranks=layout.num_used,
            replicates=self._settings.replicates,
        )

    def _description(self) -> dict[str, Any]:
        """What a run is, in plain JSON values: runs with equal ones give equal profiles."""
        corpora = {corpus.domain: corpus.digest for corpus in self._corpora}
        return {**asdict(self._settings), "corpora": corpora, "software": _SOFTWARE}

    def _profile(self, more: Mapping[str, Any]) -> Profile:
        return Profile(
            layers=self._layout.blocks,
            domains=self._domains,
            parent=self._parent,
            architecture=self._layout.header.architecture,
            has_contributions=self._settings.with_contributions,
            settings={**self._description(), **more},
        )


def _writable(domain: DomainProfile) -> DomainProfile:
    copies: dict[str, Any] = {name: array.copy() for name, array in domain.arrays().items()}
    return replace(domain, **copies)
