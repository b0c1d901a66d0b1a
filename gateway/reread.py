"""The college's file is read again while it is served, and only what changed is touched.

Specialists that are as they were keep their engines and conversations. An engine that nobody needs any more, or whose
files were replaced, leaves when its answers have ended; new ones load when they are asked for, or at once if they are
pinned. A file that cannot be used changes nothing, and the log says why.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from specialists.catalogue import Catalogue
from specialists.engine.protocol import EngineSpec
from specialists.errors import CatalogueError
from specialists.manifest import SpecialistManifest
from specialists.pool.frames import can_serve
from specialists.pool.status import PoolStatus

logger = logging.getLogger("gateway")

Stamps = Mapping[Path, tuple[int, int] | None]
"""Size and time of change of each file, None for one that is not there."""


class ChangingPool(Protocol):
    def status(self) -> PoolStatus: ...

    async def unload(self, spec: EngineSpec) -> None: ...

    async def preload(self, specs: Iterable[EngineSpec], *, pin: bool = False) -> None: ...

    def unpin(self, spec: EngineSpec) -> None: ...


class ReadableLibrary(Protocol):
    @property
    def catalogue(self) -> Catalogue: ...

    async def reread(self) -> Catalogue: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CollegeChange:
    """What reading the file again amounts to: tags by fate, and what it means for engines."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    num_unchanged: int
    to_unload: tuple[EngineSpec, ...]
    to_pin: tuple[EngineSpec, ...]
    to_unpin: tuple[EngineSpec, ...]

    def __str__(self) -> str:
        parts = [("added", self.added), ("removed", self.removed), ("changed", self.changed)]
        said = [f"{what} {', '.join(tags)}" for what, tags in parts if tags]
        return "; ".join([*said, f"{self.num_unchanged} as they were"])


def plan_change(
    old: Mapping[str, SpecialistManifest],
    new: Mapping[str, SpecialistManifest],
    *,
    loaded: Collection[EngineSpec],
    replaced: Collection[Path],
) -> CollegeChange:
    """`loaded` are the engines in memory, `replaced` the files that are no longer what they were. Pure."""
    both = [tag for tag in new if tag in old]
    as_it_was = [tag for tag in both if _is_same(old[tag], new[tag]) and not replaced_of(new[tag].engine, replaced)]
    served = [manifest for manifest in new.values() if manifest.unavailable is None]
    return CollegeChange(
        added=tuple(tag for tag in new if tag not in old),
        removed=tuple(tag for tag in old if tag not in new),
        changed=tuple(tag for tag in both if tag not in as_it_was),
        num_unchanged=len(as_it_was),
        to_unload=tuple(
            spec
            for spec in loaded
            if replaced_of(spec, replaced) or not any(can_serve(spec, each.tag, each.engine) for each in served)
        ),
        to_pin=tuple(sorted(_pinned(new) - _pinned(old), key=str)),
        to_unpin=tuple(sorted(_pinned(old) - _pinned(new), key=str)),
    )


def replaced_of(spec: EngineSpec, replaced: Collection[Path]) -> set[Path]:
    return files_of(spec) & set(replaced)


def files_of(spec: EngineSpec) -> set[Path]:
    """Every file that an engine is loaded from."""
    of_members = [path for member in spec.family for path in (member.mask_path, member.model_path)]
    return {path for path in (spec.model_path, spec.adapter_path, *of_members) if path is not None}


def _is_same(old: SpecialistManifest, new: SpecialistManifest) -> bool:
    """Whether a specialist is as it was; who else is in its family is not its affair."""
    if not can_serve(old.engine, new.tag, new.engine):
        return False
    fields = [name for name in SpecialistManifest.__dataclass_fields__ if name != "engine"]
    return all(getattr(old, name) == getattr(new, name) for name in fields)


def _pinned(specialists: Mapping[str, SpecialistManifest]) -> set[EngineSpec]:
    return {each.engine for each in specialists.values() if each.pin and each.unavailable is None}


def read_stamps(specialists: Iterable[SpecialistManifest]) -> Stamps:
    """Looks at every file that the specialists' engines are loaded from."""
    return {path: _stamp(path) for each in specialists for path in files_of(each.engine)}


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


class CollegeReread:
    """Carries a change out. `on_new` is told the catalogue that is served from then on."""

    def __init__(self, library: ReadableLibrary, pool: ChangingPool, on_new: Callable[[Catalogue], None]) -> None:
        self._library = library
        self._pool = pool
        self._on_new = on_new
        self._stamps = read_stamps(library.catalogue.models.values())
        self._leaving: set[asyncio.Task[None]] = set()

    async def __call__(self) -> None:
        old = self._library.catalogue
        try:
            new = await self._library.reread()
        except CatalogueError as error:
            logger.error("the college is served as it was, because its file cannot be used: %s", error)
            return
        stamps = await asyncio.to_thread(read_stamps, [*old.models.values(), *new.models.values()])
        replaced = [path for path, stamp in self._stamps.items() if stamps.get(path) != stamp]
        loaded = [engine.spec for engine in self._pool.status().engines]
        change = plan_change(old.models, new.models, loaded=loaded, replaced=replaced)
        self._stamps = stamps
        self._on_new(new)
        logger.info("the college was read again: %s", change)
        self._carry_out(change)

    def _carry_out(self, change: CollegeChange) -> None:
        """Nobody waits for engines to leave: their answers may take long."""
        for spec in change.to_unpin:
            self._pool.unpin(spec)
        for spec in change.to_unload:
            self._start(self._pool.unload(spec))
        if change.to_pin:
            self._start(self._pool.preload(change.to_pin, pin=True))

    def _start(self, step: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(step)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
