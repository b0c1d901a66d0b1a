"""The specialists of a college: `college.toml`, the Modelfiles it names, and the headers of their weights.

A mistake in what people wrote is a CatalogueError and nothing is served. Weights that are missing, not downloaded
or corrupt make one specialist unavailable, with the reason and the mend, and the others are served. Nothing is
loaded here, and by default nothing is downloaded.

Of a Modelfile, what says how Ollama renders a prompt (TEMPLATE, RENDERER, PARSER) is not used: the chat template in
the weights is.
"""

import logging
import shlex
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from modelfiles.builtin import builtin, builtin_names
from modelfiles.errors import ModelfileError, NotDownloaded
from modelfiles.hub import Hub, HuggingFaceHub
from modelfiles.modelfile import Modelfile, parse
from modelfiles.resolve import HubSource, PackageSource, PathSource, Source, parse_source, resolve
from specialists.college_file import AUTO_NAMES, LoopGuardTable, SpecialistTable, read_college_file, without_latest
from specialists.engine.protocol import EngineSpec, FamilyMember
from specialists.errors import CatalogueError, UnknownSpecialist
from specialists.expert_mask import MaskError
from specialists.family import Parent, identify, read_mask_for
from specialists.gguf_file import GgufError, GgufHeader, read_header
from specialists.manifest import KnowledgeRules, LoopGuardRules, SpecialistManifest
from specialists.request import LoopGuardParams, Message, SamplingParams
from specialists.sharing import kin_of, share_engines
from specialists.tensor_digests import DigestError, read_table

logger = logging.getLogger(__name__)

DEFAULT_COLLEGE = Path("college.toml")  # relative to the current folder
_DEFAULT_CONTEXT_TOKENS = 4096
_DEFAULT_PARALLEL = 4
_PARKING_BYTES = 1 << 30  # host memory of a family's engine, for conversations that had to leave the cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """A college, ready to be served. `default` is the tag that answers what nobody else should.

    `sources` says for each tag where its weights (and adapter) come from, for whoever wants to fetch them.
    """

    name: str
    default: str
    specialists: Mapping[str, SpecialistManifest]
    sources: Mapping[str, tuple[Source, ...]]

    def resolve(self, model: str) -> SpecialistManifest:
        """The specialist a client means by `model`, with or without `:latest`. Raises UnknownSpecialist."""
        for tag in (model, f"{model}:latest", without_latest(model)):
            if tag in self.specialists:
                return self.specialists[tag]
        known = ", ".join(self.specialists)
        raise UnknownSpecialist(f"There is no specialist {model[:200]!r}; the known ones are {known}, or auto.")

    def is_auto(self, model: str) -> bool:
        """Whether the client leaves the choice to the college."""
        return without_latest(model) in AUTO_NAMES


def load_catalogue(path: Path = DEFAULT_COLLEGE, *, hub: Hub | None = None) -> Catalogue:
    """Read a college. Weights on the hub are looked for in the local cache only. Raises CatalogueError."""
    file = read_college_file(path)
    shelf = _Shelf(path, hub or HuggingFaceHub())
    drafts = [shelf.draft(entry) for entry in file.specialist]
    specialists = {each.tag: each for each in share_engines([(draft.manifest, draft.kin) for draft in drafts])}
    sources = {draft.manifest.tag: draft.sources for draft in drafts}
    default = next(tag for tag in specialists if without_latest(tag) == without_latest(file.college.default))
    for manifest in specialists.values():
        if manifest.unavailable is not None:
            logger.warning("%s is unavailable: %s", manifest.tag, manifest.unavailable)
        for note in manifest.notes:
            logger.warning("%s: %s", manifest.tag, note)
    return Catalogue(
        name=file.college.name,
        default=default,
        specialists=MappingProxyType(specialists),
        sources=MappingProxyType(sources),
    )


def specialist_from_hub(tag: str, source: str, *, hub: Hub | None = None) -> SpecialistManifest:
    """A specialist that no college.toml names: its weights are `source` on the hub, the rest is as by default.

    Raises CatalogueError if `source` is no address.
    """
    return _Shelf(DEFAULT_COLLEGE, hub or HuggingFaceHub()).draft(SpecialistTable(tag=tag, model=source)).manifest


@dataclass(frozen=True, slots=True)
class _Draft:
    """A specialist whose engine is still its own. `kin` is what its family has in common, None for a loner."""

    manifest: SpecialistManifest
    sources: tuple[Source, ...]
    kin: Hashable = None


@dataclass(frozen=True, slots=True)
class _Weights:
    """Where the weights lie and what their header says, or why they cannot be used."""

    path: Path
    header: GgufHeader | None = None
    unavailable: str | None = None


class _Shelf:
    """Turns entries of one college.toml into specialists; reads each weights file once."""

    def __init__(self, college: Path, hub: Hub) -> None:
        self._college = college
        self._folder = college.parent
        self._hub = hub
        self._seen: dict[Source, _Weights] = {}
        self._parents: dict[Path, Parent] = {}

    def draft(self, entry: SpecialistTable) -> _Draft:
        modelfile, folder = self._modelfile(entry)
        named = entry.model or entry.parent
        source = self._source(entry, named or modelfile.source, self._folder if named else folder)
        weights = self._weights(source, entry.tag)
        if entry.mask is not None:
            return self._masked(entry, modelfile, weights, source)
        if modelfile.adapter is None:
            return self._standalone(entry, modelfile, weights, source)
        adapter_source = self._source(entry, modelfile.adapter, folder)
        adapter = self._weights(adapter_source, entry.tag)
        return _Draft(_manifest(entry, modelfile, weights, adapter=adapter), (source, adapter_source))

    def _standalone(self, entry: SpecialistTable, modelfile: Modelfile, weights: _Weights, source: Source) -> _Draft:
        """A specialist with a file of its own; one of a family if digests are kept beside it."""
        manifest, kin = _manifest(entry, modelfile, weights, adapter=None), None
        try:
            table = read_table(weights.header) if weights.header is not None else None
        except DigestError as error:
            return _Draft(replace(manifest, notes=(*manifest.notes, str(error))), (source,))
        if table is not None:
            kin = kin_of(table)
            manifest = _with_member(manifest, FamilyMember(entry.tag, model_path=weights.path))
        return _Draft(manifest, (source,), kin)

    def _masked(self, entry: SpecialistTable, modelfile: Modelfile, parent: _Weights, source: Source) -> _Draft:
        """A specialist that is cut from its parent while it is loaded."""
        if modelfile.adapter is not None:
            raise self._wrong(entry, "an adapter cannot be used with parent and mask; build a model file instead")
        path, kin = self._folder / Path(entry.mask or "").expanduser(), None
        try:
            if parent.header is not None:
                kin = (parent.path.resolve(), read_mask_for(self._parent(parent.header), path).num_kept)
        except (MaskError, GgufError, OSError) as error:
            parent = replace(parent, unavailable=f"its mask {path} cannot be used: {error}")
        manifest = _manifest(entry, modelfile, parent, adapter=None)
        return _Draft(_with_member(manifest, FamilyMember(entry.tag, mask_path=path)), (source,), kin)

    def _parent(self, header: GgufHeader) -> Parent:
        """Identified once, as that reads from all over the file."""
        if header.path not in self._parents:
            self._parents[header.path] = identify(header)
        return self._parents[header.path]

    def _modelfile(self, entry: SpecialistTable) -> tuple[Modelfile, Path]:
        """The entry's Modelfile, and the folder its paths start from."""
        if entry.modelfile is None:
            return Modelfile(source=entry.model or entry.parent or ""), self._folder
        path = self._folder / Path(entry.modelfile).expanduser()
        try:
            if path.is_file():
                return parse(path.read_text(encoding="utf-8"), source=str(path)), path.parent
            if entry.modelfile in builtin_names():
                return builtin(entry.modelfile), self._folder
        except (ModelfileError, OSError, UnicodeDecodeError, RuntimeError) as error:
            raise self._wrong(entry, f"modelfile: {error}") from None
        known = ", ".join(builtin_names())
        raise self._wrong(entry, f"modelfile: {path} does not exist, and the built-in ones are {known}")

    def _source(self, entry: SpecialistTable, text: str, folder: Path) -> Source:
        try:
            return parse_source(text, base=folder)
        except ModelfileError as error:
            raise self._wrong(entry, str(error)) from None

    def _weights(self, source: Source, tag: str) -> _Weights:
        if source not in self._seen:
            self._seen[source] = self._look_up(source, tag)
        return self._seen[source]

    def _look_up(self, source: Source, tag: str) -> _Weights:
        expected = _expected_path(source)
        try:
            path = resolve(source, hub=self._hub)
        except NotDownloaded as error:
            return _Weights(expected, unavailable=f"{error}; fetch it with: {self._pull(tag)}")
        except ModelfileError as error:  # missing, or the cached repository leaves open which file is meant
            return _Weights(expected, unavailable=str(error))
        try:
            header = read_header(path)
        except GgufError as error:
            return _Weights(path, unavailable=f"{error}; fetch or build {path} again")
        if not header.tensors:
            return _Weights(path, unavailable=f"{path} holds a vocabulary but no weights; name another file")
        return _Weights(path, header)

    def _pull(self, tag: str) -> str:
        return shlex.join(["coe", "pull", "--college", str(self._college), tag])

    def _wrong(self, entry: SpecialistTable, what: str) -> CatalogueError:
        return CatalogueError(f"{self._college}: [[specialist]] {entry.tag}: {what}")


def _expected_path(source: Source) -> Path:
    """What stands for the weights while they are not here."""
    match source:
        case PathSource(path):
            return path
        case HubSource(repo, selector):
            return Path(f"{repo}:{selector}" if selector else repo)
        case PackageSource(module, file):
            return Path(module) / file


def _manifest(
    entry: SpecialistTable, modelfile: Modelfile, weights: _Weights, *, adapter: _Weights | None
) -> SpecialistManifest:
    parameters = modelfile.parameters
    context_tokens = _context_tokens(entry, modelfile, weights)
    gpu_layers = next((layers for layers in (entry.gpu_layers, parameters.num_gpu) if layers is not None), -1)
    return SpecialistManifest(
        tag=entry.tag,
        engine=EngineSpec(
            model_path=weights.path,
            context_tokens=context_tokens,
            parallel=entry.parallel or _DEFAULT_PARALLEL,
            gpu_layers=gpu_layers,
            cpu_expert_layers=entry.cpu_expert_layers,
            adapter_path=adapter.path if adapter else None,
            threads=parameters.num_thread,
        ),
        context_tokens=context_tokens,
        max_tokens=_max_tokens(modelfile, context_tokens),
        sampling=_sampling(modelfile, context_tokens),
        domains=tuple(entry.domains),
        system=(modelfile.system or "").strip() or None,
        examples=tuple(Message(turn.role, turn.content) for turn in modelfile.messages),
        stop=parameters.stop,
        pin=entry.pin,
        preload=entry.preload,
        keep_alive_seconds=entry.keep_alive,
        loop_guard=_loop_guard(entry.loop_guard),
        calculator=entry.calculator,
        knowledge=_knowledge(entry),
        unavailable=weights.unavailable or (adapter.unavailable if adapter else None),
        notes=_notes(entry, modelfile, context_tokens),
    )


def _with_member(manifest: SpecialistManifest, member: FamilyMember) -> SpecialistManifest:
    return replace(manifest, engine=replace(manifest.engine, family=(member,), parking_bytes=_PARKING_BYTES))


def _loop_guard(table: LoopGuardTable) -> LoopGuardRules:
    return LoopGuardRules(
        params=LoopGuardParams(
            mode=table.mode,
            resamples=table.resamples,
            paragraphs=table.paragraphs,
            attempts=table.attempts,
            rewinds=table.rewinds,
            rescue_tokens=table.rescue_tokens,
        ),
        clients_may_choose=table.clients_may_choose,
        fallback=table.fallback,
    )


def _knowledge(entry: SpecialistTable) -> KnowledgeRules | None:
    table = entry.knowledge
    return None if table is None else KnowledgeRules(index=entry.tag, passages=table.passages, tokens=table.tokens)


def _context_tokens(entry: SpecialistTable, modelfile: Modelfile, weights: _Weights) -> int:
    """What is asked for, but never more than the model was trained for."""
    wanted = entry.context or modelfile.parameters.num_ctx or _DEFAULT_CONTEXT_TOKENS
    trained = weights.header.trained_context_tokens if weights.header else None
    return min(wanted, trained) if trained and trained > 0 else wanted


def _notes(entry: SpecialistTable, modelfile: Modelfile, context_tokens: int) -> tuple[str, ...]:
    """A context that was asked for and capped; the default was not asked for."""
    name = "context" if entry.context else "num_ctx"
    asked = entry.context or modelfile.parameters.num_ctx or 0
    if asked <= context_tokens:
        return ()
    return (
        f"{name} {asked} is more than the {context_tokens} tokens that its model was trained for, so it gets "
        f"{context_tokens}; lower {name}, or name a model with a longer context",
    )


def _max_tokens(modelfile: Modelfile, context_tokens: int) -> int:
    """num_predict; without one, or with Ollama's −1 and −2, the context is the only bound."""
    asked = modelfile.parameters.num_predict
    return asked if asked is not None and asked > 0 else context_tokens


def _sampling(modelfile: Modelfile, context_tokens: int) -> SamplingParams:
    given = dict(modelfile.parameters.items())
    wanted = {name: given[name] for name in SamplingParams.__struct_fields__ if name in given}
    if wanted.get("repeat_last_n") == -1:
        wanted["repeat_last_n"] = context_tokens
    if wanted.get("seed") == -1:
        del wanted["seed"]
    return SamplingParams(**wanted)  # type: ignore[arg-type]  # Parameters has checked each one's type
