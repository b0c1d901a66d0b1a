"""The models that a gateway serves: the college, and what was made or pulled while serving.

A SpecialistDirectory that can change: each change is kept on disk first and seen by the next request. Specialists of
the college belong to its file and cannot be changed here. Knows no HTTP; its methods that touch the disk do so off the
event loop.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from gateway.chat import require_answers
from gateway.personas import Persona, full_name, is_same_name, layered, persona_manifest, remarks
from gateway.policy import RequestPolicy
from gateway.shelf import PulledModel, Shelf, ShelfStore
from modelfiles.errors import ModelfileError
from modelfiles.modelfile import Modelfile
from modelfiles.resolve import HubSource, parse_source
from specialists.catalogue import Catalogue
from specialists.errors import CatalogueError, RequestRejected, SpecialistUnavailable, UnknownSpecialist
from specialists.manifest import SpecialistManifest

logger = logging.getLogger("gateway")

MAX_MADE = 1000
_HUB_HOSTS = ("hf.co/", "huggingface.co/")

Draft = Callable[[str, str], SpecialistManifest]


class Library:
    """`draft` makes a specialist of a name and a hub address, `reload` reads the college's file again; both block."""

    def __init__(
        self,
        college: Catalogue,
        store: ShelfStore,
        *,
        policy: RequestPolicy,
        draft: Draft,
        reload: Callable[[], Catalogue],
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self._college = college
        self._store = store
        self._policy = policy
        self._draft = draft
        self._reload = reload
        self._unix_time = unix_time
        self._changing = asyncio.Lock()
        self._shelf = store.read()
        self._all = self._with_shelf(college, self._shelf)

    # ── a SpecialistDirectory ────────────────────────────────────────────────

    @property
    def name(self) -> str:
        return self._college.name

    @property
    def default(self) -> str:
        return self._college.default

    @property
    def specialists(self) -> Mapping[str, SpecialistManifest]:
        return self._all.specialists

    def resolve(self, model: str) -> SpecialistManifest:
        return self._all.resolve(model)

    def is_auto(self, model: str) -> bool:
        return self._college.is_auto(model)

    # ── questions ────────────────────────────────────────────────────────────

    @property
    def catalogue(self) -> Catalogue:
        """The college as its file said when it was read last."""
        return self._college

    @property
    def college(self) -> Mapping[str, SpecialistManifest]:
        """The college's own specialists as they are now; personas are nobody whom `auto` would ask."""
        return _Current(lambda: self._college.specialists)

    def is_college(self, tag: str) -> bool:
        return any(is_same_name(tag, own) for own in self._college.models)

    def persona(self, tag: str) -> Persona | None:
        return next((each for each in self._shelf.personas if is_same_name(each.name, tag)), None)

    def pulled(self, tag: str) -> PulledModel | None:
        return next((each for each in self._shelf.pulled if is_same_name(each.name, tag)), None)

    def modified_at(self, tag: str) -> float | None:
        """Unix seconds at which a persona or pulled model was made; None for the college's own."""
        made = self.persona(tag) or self.pulled(tag)
        return None if made is None else made.created

    def hub_sources(self, name: str) -> tuple[HubSource, ...]:
        """What `name` needs from the hub; empty when all of it is on this machine. Raises UnknownSpecialist."""
        for host in _HUB_HOSTS:
            if name.startswith(host):
                return (_hub_source(name.removeprefix(host)),)
        tag = self.resolve(name).tag
        persona = self.persona(tag)
        tag = self.resolve(persona.base).tag if persona else tag
        pulled = self.pulled(tag)
        if pulled:
            return (_hub_source(pulled.source.removeprefix(_HUB_HOSTS[0])),)
        return tuple(source for source in self._college.sources[tag] if isinstance(source, HubSource))

    # ── changes ──────────────────────────────────────────────────────────────

    async def create(self, name: str, modelfile: Modelfile) -> list[str]:
        """Make or replace the persona `name`; returns remarks on what will not be as the Modelfile says.

        Raises RequestRejected or StorageFailed.
        """
        tag = self._free_name(name, param="model")
        if tag.startswith(_HUB_HOSTS):
            raise RequestRejected(f"'{tag}' is an address on the hub; choose another name.", param="model")
        if modelfile.adapter is not None:
            raise RequestRejected("An adapter is served from college.toml, not from here.", param="adapters")
        modelfile = self._rooted(modelfile)
        base = self.resolve(modelfile.source)
        require_answers(base)
        persona = Persona(name=tag, modelfile=modelfile, created=self._unix_time())
        await self._change(lambda shelf: _with_persona(shelf, persona))
        logger.info("persona %s was made of %s", tag, base.tag)
        return list(remarks(modelfile, base, self._policy))

    async def copy(self, source: str, destination: str) -> None:
        """Give a model another name. Raises as `create` does."""
        await self.create(destination, Modelfile(source=source))

    async def delete(self, name: str) -> None:
        """Forget a persona or a pulled model. Raises UnknownSpecialist, RequestRejected or StorageFailed."""
        tag = self.resolve(name).tag
        if self.is_college(tag):
            raise RequestRejected(
                f"'{tag}' belongs to the college; take it out of its file to stop serving it.", param="model"
            )
        users = [each.name for each in self._shelf.personas if is_same_name(each.base, tag)]
        if users:
            raise RequestRejected(f"'{tag}' is needed by {', '.join(users)}; delete them first.", param="model")
        await self._change(lambda shelf: _without(shelf, tag))
        logger.info("%s was deleted", tag)

    async def settle_pull(self, name: str, sources: Sequence[HubSource]) -> None:
        """Serve what was pulled: under its address if that is its name, else as what the college knows it.

        Raises RequestRejected, StorageFailed, or SpecialistUnavailable if the college's file has gone bad meanwhile.
        """
        host = next((host for host in _HUB_HOSTS if name.startswith(host)), None)
        if host is None:
            await self._refresh()
            return
        tag = self._free_name(_HUB_HOSTS[0] + name.removeprefix(host), param="model")
        model = PulledModel(name=tag, source=str(sources[0]), created=self._unix_time())
        await self._change(lambda shelf: _with_pulled(shelf, model))
        logger.info("%s was pulled", tag)

    async def reread(self) -> Catalogue:
        """Read the college's file again; the next request sees what it says. Raises CatalogueError, nothing changed."""
        async with self._changing:
            college = await asyncio.to_thread(self._reload)
            self._all = await asyncio.to_thread(self._with_shelf, college, self._shelf)
            self._college = college
        return college

    async def _refresh(self) -> None:
        """Look again at which of the college's weights are here."""
        try:
            await self.reread()
        except CatalogueError as error:
            logger.error("the college cannot be read again: %s", error)
            raise SpecialistUnavailable(
                "The weights are here, but the college's file has gone bad; the gateway's log says how."
            ) from None

    # ── small parts ──────────────────────────────────────────────────────────

    async def _change(self, changed: Callable[[Shelf], Shelf]) -> None:
        async with self._changing:
            shelf = await asyncio.to_thread(self._store.change, changed)
            self._all = await asyncio.to_thread(self._with_shelf, self._college, shelf)
            self._shelf = shelf

    def _free_name(self, name: str, *, param: str) -> str:
        tag = full_name(name, param=param)
        if self.is_college(tag):
            kind = "an encoder" if self.resolve(tag).makes_embeddings else "a specialist"
            raise RequestRejected(f"'{tag}' is {kind} of the college; choose another name.", param=param)
        return tag

    def _rooted(self, modelfile: Modelfile) -> Modelfile:
        """On a specialist or a pulled model, whatever personas lie between. Raises RequestRejected."""
        if self.is_auto(modelfile.source):
            raise RequestRejected("A model is made of one specialist; name it instead of auto.", param="from")
        try:
            tag = self.resolve(modelfile.source).tag
        except UnknownSpecialist:
            raise RequestRejected(
                f"FROM {modelfile.source[:200]!r} is no model that is served here. GET /api/tags lists them; weights "
                "on the hub are pulled first, and files on this machine are served from college.toml.",
                param="from",
            ) from None
        persona = self.persona(tag)
        return layered(persona.modelfile, modelfile) if persona else replace(modelfile, source=tag)

    def _with_shelf(self, college: Catalogue, shelf: Shelf) -> Catalogue:
        found = dict(college.models)
        for model in shelf.pulled:
            try:
                found.setdefault(model.name, self._draft(model.name, model.source))
            except CatalogueError as error:
                logger.warning("%s is left out: %s", model.name, error)
        rooted = replace(college, specialists=found)
        personas = dict(self._persona_manifests(rooted, shelf))
        made = {name: manifest for name, manifest in personas.items() if name not in found}
        return replace(college, specialists=MappingProxyType(found | made))

    def _persona_manifests(self, rooted: Catalogue, shelf: Shelf) -> Iterator[tuple[str, SpecialistManifest]]:
        for persona in shelf.personas:
            try:
                base = rooted.resolve(persona.base)
            except UnknownSpecialist:
                logger.warning("persona %s is left out: %s is no longer served", persona.name, persona.base)
                continue
            yield persona.name, persona_manifest(persona, base, self._policy)


class _Current(Mapping[str, SpecialistManifest]):
    """A mapping that is looked up anew each time."""

    def __init__(self, current: Callable[[], Mapping[str, SpecialistManifest]]) -> None:
        self._current = current

    def __getitem__(self, tag: str) -> SpecialistManifest:
        return self._current()[tag]

    def __iter__(self) -> Iterator[str]:
        return iter(self._current())

    def __len__(self) -> int:
        return len(self._current())


def _hub_source(address: str) -> HubSource:
    """`owner/repo[:selector]`; `latest` means whichever file fits. Raises RequestRejected."""
    try:
        source = parse_source(f"{_HUB_HOSTS[0]}{address.removesuffix(':latest')}", base=Path())
    except ModelfileError as error:
        raise RequestRejected(str(error), param="model") from None
    assert isinstance(source, HubSource)  # the prefix has decided that
    return source


def _with_persona(shelf: Shelf, persona: Persona) -> Shelf:
    kept = _without(shelf, persona.name)
    if len(kept.personas) >= MAX_MADE:
        raise RequestRejected(f"There are {MAX_MADE} personas already; delete some first.", param="model")
    return replace(kept, personas=(*kept.personas, persona))


def _with_pulled(shelf: Shelf, model: PulledModel) -> Shelf:
    kept = _without(shelf, model.name)
    return replace(kept, pulled=(*kept.pulled, model))


def _without(shelf: Shelf, tag: str) -> Shelf:
    return Shelf(
        personas=tuple(each for each in shelf.personas if not is_same_name(each.name, tag)),
        pulled=tuple(each for each in shelf.pulled if not is_same_name(each.name, tag)),
    )
