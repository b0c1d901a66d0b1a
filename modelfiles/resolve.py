"""From what a Modelfile's FROM or ADAPTER says to a file on this machine.

Three kinds of source:

    ./model.gguf, ~/model.gguf, /srv/model.gguf     a path, relative to the file that names it
    hf.co/<owner>/<repo>[:<quant or file>]           a file of a hub repository
    package:<module>/<file>                          a file inside an installed Python package

Nothing is downloaded unless asked for. Whether the file is a good GGUF is not known here.
"""

import importlib.util
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from modelfiles.errors import DownloadFailed, ModelfileError, NotDownloaded, WeightsMissing
from modelfiles.hub import Hub, Progress, ignore_progress

_SEGMENT = r"[A-Za-z0-9_](?:[A-Za-z0-9_.+=@ -]{0,254}[A-Za-z0-9_+=@-])?"  # neither hidden, nor "..", nor "x."
_RELATIVE_FILE = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT}){{0,15}}")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_QUANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_PART = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})\.gguf")
_HUB_PREFIX = "hf.co/"
_PACKAGE_PREFIX = "package:"
_PREFERRED_QUANT = "Q4_K_M"


@dataclass(frozen=True, slots=True)
class PathSource:
    path: Path


@dataclass(frozen=True, slots=True)
class HubSource:
    """`selector` is a quantisation such as Q4_K_M, or a file name ending in .gguf, or "" for whichever fits."""

    repo: str
    selector: str = ""

    def __str__(self) -> str:
        return f"{_HUB_PREFIX}{self.repo}:{self.selector}".rstrip(":")


@dataclass(frozen=True, slots=True)
class PackageSource:
    module: str
    file: str


Source = PathSource | HubSource | PackageSource


def parse_source(text: str, *, base: Path) -> Source:
    """What FROM says, without looking for it; relative paths start at `base`. Raises ModelfileError."""
    if text.startswith(_HUB_PREFIX):
        return _hub_source(text)
    if text.startswith(_PACKAGE_PREFIX):
        module, _, file = text.removeprefix(_PACKAGE_PREFIX).partition("/")
        if not _MODULE.fullmatch(module) or not _RELATIVE_FILE.fullmatch(file):
            raise ModelfileError(f"FROM {_shorten(text)}: write package:<module>/<file>, the file inside that package")
        return PackageSource(module, file)
    if "\0" in text or not text.strip():
        raise ModelfileError("FROM: the path is empty or holds a NUL character; write the path of a .gguf file")
    try:
        return PathSource(base / Path(text).expanduser())
    except RuntimeError as error:  # an unknown ~user
        raise ModelfileError(f"FROM {_shorten(text)}: {error}") from None


def resolve(
    source: Source,
    *,
    hub: Hub,
    allow_download: bool = False,
    on_progress: Progress = ignore_progress,
) -> Path:
    """The file a source stands for; of a split model the first part, with all others beside it.

    `on_progress(bytes done, bytes in all)` is called while downloading. Raises WeightsMissing (NotDownloaded when
    only `allow_download` was lacking, DownloadFailed when the hub failed) and ModelfileError when the repository's
    files leave it open which one is meant.
    """
    match source:
        case PathSource(path):
            return _existing(path)
        case PackageSource():
            return _packaged(source)
        case HubSource():
            return _from_hub(source, hub, allow_download, on_progress)


def choose_files(names: Iterable[str], source: HubSource) -> tuple[str, ...]:
    """Which of a repository's files are meant: one, or all parts of one split model, in order.

    Names that could leave the cache folder, projectors (mmproj) and other formats never count. Raises ModelfileError
    when nothing or more than one model fits, naming what there is to choose from.
    """
    models = _group_parts(name for name in names if name.lower().endswith(".gguf") and _RELATIVE_FILE.fullmatch(name))
    selector = source.selector
    if selector.lower().endswith(".gguf"):
        fitting = [parts for parts in models if selector in parts]
    else:
        candidates = [parts for parts in models if not Path(parts[0]).name.lower().startswith("mmproj")]
        fitting = [parts for parts in candidates if _has_quant(parts[0], selector)] if selector else candidates
        if not selector and len(fitting) > 1:
            fitting = [parts for parts in fitting if _has_quant(parts[0], _PREFERRED_QUANT)] or fitting
    if len(fitting) != 1:
        choice = ", ".join(parts[0] for parts in (fitting or models)[:20]) or "no .gguf file"
        wanted = f"fits {selector!r}" if selector else "was chosen"
        found = "nothing" if not fitting else "more than one file"
        raise ModelfileError(f"FROM {source}: {found} {wanted}; name one file after a colon. It holds: {choice}")
    return fitting[0]


def _hub_source(text: str) -> HubSource:
    repo, colon, selector = text.removeprefix(_HUB_PREFIX).partition(":")
    is_file = selector.lower().endswith(".gguf")
    selector_is_sane = (_RELATIVE_FILE if is_file else _QUANT).fullmatch(selector) is not None
    if not _REPO.fullmatch(repo) or ".." in repo or (colon and not selector_is_sane):
        raise ModelfileError(
            f"FROM {_shorten(text)}: write {_HUB_PREFIX}<owner>/<repo>, and if need be :<quant> such as "
            f":{_PREFERRED_QUANT} or :<file>.gguf after it"
        )
    return HubSource(repo, selector)


def _existing(path: Path) -> Path:
    try:
        if path.is_file():
            return path
        what = "is not a file" if path.exists() else "does not exist"
    except OSError as error:  # e.g. a name too long, or a folder we may not look into
        what = f"cannot be read ({error.strerror})"
    raise WeightsMissing(f"{path} {what}; put the weights there or change FROM")


def _packaged(source: PackageSource) -> Path:
    mend = f"install the package that carries {source.module}, or change FROM"
    try:
        spec = importlib.util.find_spec(source.module)  # a top-level name is found without importing anything
    except (ImportError, ValueError):
        spec = None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise WeightsMissing(f"there is no Python package {source.module}; {mend}")
    candidates = [Path(folder) / source.file for folder in folders]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise WeightsMissing(f"{source.file} is not in the Python package {source.module}; {mend}")
    return found


def _from_hub(source: HubSource, hub: Hub, allow_download: bool, on_progress: Progress) -> Path:
    cached = hub.cached_files(source.repo)
    fitting = _whole_model(cached, source)
    # Without a selector only the repository's own listing settles which file is meant, so it is asked if it may be.
    if fitting is not None and (source.selector or not allow_download):
        return cached[fitting[0]]
    if not allow_download:
        raise NotDownloaded(f"{source} has not been downloaded yet")
    try:
        names = hub.list_files(source.repo)
    except DownloadFailed:
        if fitting is None:
            raise
        return cached[fitting[0]]
    files = choose_files(names, source)
    if not _is_whole(files):
        raise WeightsMissing(f"{source}: the repository lacks parts of {files[0]}")
    return hub.download(source.repo, files, on_progress)[0]


def _whole_model(names: Iterable[str], source: HubSource) -> tuple[str, ...] | None:
    try:
        files = choose_files(names, source)
    except ModelfileError:
        return None
    return files if _is_whole(files) else None


def _group_parts(names: Iterable[str]) -> list[tuple[str, ...]]:
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        part = _PART.fullmatch(name)
        groups.setdefault(f"{part[1]} of {part[3]}" if part else name, []).append(name)
    return [tuple(parts) for parts in groups.values()]


def _is_whole(files: tuple[str, ...]) -> bool:
    part = _PART.fullmatch(files[0])
    return part is None or (part[2] == "00001" and int(part[3]) == len(files))


def _has_quant(name: str, quant: str) -> bool:
    """Whether `quant` stands in `name` as a word of its own: Q4_K is not in model-Q4_K_M.gguf."""
    return re.search(rf"(?:^|[^a-z0-9]){re.escape(quant.lower())}(?:[^a-z0-9_]|$)", name.lower()) is not None


def _shorten(text: str) -> str:
    return text if len(text) <= 120 else text[:119] + "…"
