"""The specialists of a college: `college.toml`, the Modelfiles it names, and the headers of their weights.

A mistake in what people wrote is a CatalogueError and nothing is served. Weights that are missing, not downloaded
or corrupt make one specialist unavailable, with the reason and the mend, and the others are served. Nothing is
loaded here, and by default nothing is downloaded.
"""

import logging
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from modelfiles.builtin import builtin, builtin_names
from modelfiles.errors import ModelfileError
from modelfiles.hub import Hub, HuggingFaceHub
from modelfiles.modelfile import Modelfile, parse
from modelfiles.resolve import Source, parse_source
from specialists.college_file import (
    AUTO_NAMES,
    EncoderTable,
    SpecialistTable,
    read_college_file,
    without_latest,
)
from specialists.embedding_models import makes_embeddings
from specialists.encoders import encoder_manifest
from specialists.engine.protocol import FamilyMember
from specialists.errors import CatalogueError, UnknownSpecialist
from specialists.expert_mask import MaskError
from specialists.family import Parent, identify, read_mask_for
from specialists.gguf_file import GgufError, GgufHeader
from specialists.manifest import SpecialistManifest
from specialists.sharing import kin_of, share_engines
from specialists.specialist_manifest import specialist_manifest
from specialists.tensor_digests import DigestError, read_table
from specialists.weights import Weights, WeightsFinder

logger = logging.getLogger(__name__)

DEFAULT_COLLEGE = Path("college.toml")  # relative to the current folder
_PARKING_BYTES = 1 << 30  # host memory of a family's engine, for conversations that had to leave the cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """A college, ready to be served. `default` is the tag that answers what nobody else should.

    `encoders` make embeddings and answer nobody. `sources` says for each tag where its weights (and adapter) come from,
    for whoever wants to fetch them. `transfer_path` is the table of its own that the supervisor chooses by, if any.
    """

    name: str
    default: str
    specialists: Mapping[str, SpecialistManifest]
    sources: Mapping[str, tuple[Source, ...]]
    encoders: Mapping[str, SpecialistManifest] = field(default_factory=dict)
    transfer_path: Path | None = None

    @property
    def models(self) -> Mapping[str, SpecialistManifest]:
        """All that can be asked for anything."""
        return {**self.specialists, **self.encoders}

    def resolve(self, model: str) -> SpecialistManifest:
        """Whom a client means by `model`, with or without `:latest`. Raises UnknownSpecialist."""
        for tag in (model, f"{model}:latest", without_latest(model)):
            for manifests in (self.specialists, self.encoders):
                if tag in manifests:
                    return manifests[tag]
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
    encoders = [shelf.encoder(entry) for entry in file.encoder]
    sources = {draft.manifest.tag: draft.sources for draft in (*drafts, *encoders)}
    default = next(tag for tag in specialists if without_latest(tag) == without_latest(file.college.default))
    encoding = {draft.manifest.tag: draft.manifest for draft in encoders}
    for manifest in (*specialists.values(), *encoding.values()):
        if manifest.unavailable is not None:
            logger.warning("%s is unavailable: %s", manifest.tag, manifest.unavailable)
        for note in manifest.notes:
            logger.warning("%s: %s", manifest.tag, note)
    return Catalogue(
        name=file.college.name,
        default=default,
        specialists=MappingProxyType(specialists),
        sources=MappingProxyType(sources),
        encoders=MappingProxyType(encoding),
        transfer_path=path.parent / Path(file.college.transfer).expanduser() if file.college.transfer else None,
    )


def specialist_from_hub(tag: str, source: str, *, hub: Hub | None = None) -> SpecialistManifest:
    """A specialist that no college.toml names: its weights are `source` on the hub, the rest is as by default.

    Weights that are made for embeddings become an encoder. Raises CatalogueError if `source` is no address.
    """
    shelf = _Shelf(DEFAULT_COLLEGE, hub or HuggingFaceHub())
    as_encoder = EncoderTable(tag=tag, model=source)
    if shelf.holds_encoder(as_encoder):
        return shelf.encoder(as_encoder).manifest
    return shelf.draft(SpecialistTable(tag=tag, model=source)).manifest


@dataclass(frozen=True, slots=True)
class _Draft:
    """A specialist whose engine is still its own. `kin` is what its family has in common, None for a loner."""

    manifest: SpecialistManifest
    sources: tuple[Source, ...]
    kin: Hashable = None


class _Shelf:
    """Turns entries of one college.toml into specialists."""

    def __init__(self, college: Path, hub: Hub) -> None:
        self._college = college
        self._folder = college.parent
        self._weights = WeightsFinder(college, hub)
        self._parents: dict[Path, Parent] = {}

    def draft(self, entry: SpecialistTable) -> _Draft:
        modelfile, folder = self._modelfile(entry)
        named = entry.model or entry.parent
        source = self._source(entry, named or modelfile.source, self._folder if named else folder)
        weights = self._weights.find(source, entry.tag)
        if entry.mask is not None:
            return self._masked(entry, modelfile, weights, source)
        if modelfile.adapter is None:
            return self._standalone(entry, modelfile, weights, source)
        adapter_source = self._source(entry, modelfile.adapter, folder)
        adapter = self._weights.find(adapter_source, entry.tag)
        return _Draft(specialist_manifest(entry, modelfile, weights, adapter=adapter), (source, adapter_source))

    def encoder(self, entry: EncoderTable) -> _Draft:
        source = self._source(entry, entry.model, self._folder)
        weights = self._weights.find(source, entry.tag)
        return _Draft(encoder_manifest(entry, weights.path, weights.header, weights.unavailable), (source,))

    def holds_encoder(self, entry: EncoderTable) -> bool:
        """Whether the entry's weights are here and made for embeddings."""
        header = self._weights.find(self._source(entry, entry.model, self._folder), entry.tag).header
        return header is not None and makes_embeddings(header)

    def _standalone(self, entry: SpecialistTable, modelfile: Modelfile, weights: Weights, source: Source) -> _Draft:
        """A specialist with a file of its own; one of a family if digests are kept beside it."""
        manifest, kin = specialist_manifest(entry, modelfile, weights, adapter=None), None
        try:
            table = read_table(weights.header) if weights.header is not None else None
        except DigestError as error:
            return _Draft(replace(manifest, notes=(*manifest.notes, str(error))), (source,))
        if table is not None:
            kin = kin_of(table)
            manifest = _with_member(manifest, FamilyMember(entry.tag, model_path=weights.path))
        return _Draft(manifest, (source,), kin)

    def _masked(self, entry: SpecialistTable, modelfile: Modelfile, parent: Weights, source: Source) -> _Draft:
        """A specialist that is cut from its parent while it is loaded."""
        if modelfile.adapter is not None:
            raise self._wrong(entry, "an adapter cannot be used with parent and mask; build a model file instead")
        path, kin = self._folder / Path(entry.mask or "").expanduser(), None
        try:
            if parent.header is not None:
                kin = (parent.path.resolve(), read_mask_for(self._parent(parent.header), path).num_kept)
        except (MaskError, GgufError, OSError) as error:
            parent = replace(parent, unavailable=f"its mask {path} cannot be used: {error}")
        manifest = specialist_manifest(entry, modelfile, parent, adapter=None)
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

    def _source(self, entry: SpecialistTable | EncoderTable, text: str, folder: Path) -> Source:
        try:
            return parse_source(text, base=folder)
        except ModelfileError as error:
            raise self._wrong(entry, str(error)) from None

    def _wrong(self, entry: SpecialistTable | EncoderTable, what: str) -> CatalogueError:
        kind = "encoder" if isinstance(entry, EncoderTable) else "specialist"
        return CatalogueError(f"{self._college}: [[{kind}]] {entry.tag}: {what}")


def _with_member(manifest: SpecialistManifest, member: FamilyMember) -> SpecialistManifest:
    return replace(manifest, engine=replace(manifest.engine, family=(member,), parking_bytes=_PARKING_BYTES))
