"""The text of `college.toml`: which keys there are, and what each may hold.

Everything here is about one file as written; what its entries lead to (Modelfiles, weights) is for `catalogue`.
"""

import difflib
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from specialists.engine.protocol import CacheType, Pooling
from specialists.errors import CatalogueError
from specialists.request import LoopGuardMode, LoopGuardParams

AUTO_NAMES = ("auto", "coe", "college")
SUPERVISORS_ENCODER = "coe-supervisor-minilm"  # is there in every college
_NAME_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_DURATION = re.compile(r"(-?)((?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|s|m|h))+)")
_DURATION_TERM = re.compile(r"([0-9.]+)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_NOT_YET = ("remote",)
_MAX_BYTES = 1_000_000


def check_tag(tag: str) -> str:
    """`tag` if it is a name as Ollama has them: [[host/]namespace/]model[:variant]. Raises ValueError."""
    name, colon, variant = tag.partition(":")
    parts = [*name.split("/"), *([variant] if colon else [])]
    if len(name.split("/")) > 3 or not all(_NAME_PART.fullmatch(part) for part in parts):
        raise ValueError(
            f"{tag[:200]!r} is not a name; write it like coe-math:q4, with letters, digits, '_', '.' and '-', "
            "each part at most 80 characters"
        )
    if without_latest(tag) in AUTO_NAMES:
        raise ValueError(f"{tag!r} is what clients write to let the college choose; name the specialist otherwise")
    return tag


def without_latest(tag: str) -> str:
    """Names with and without `:latest` are the same name."""
    return tag.removesuffix(":latest")


def parse_keep_alive(value: object) -> object:
    """Seconds from a number or from "5m", "1h30m", "300ms"; negative means for ever. Raises ValueError."""
    if isinstance(value, str):
        found = _DURATION.fullmatch(value)
        if found is None:
            raise ValueError(f'{value[:40]!r} is not a duration; write seconds, or text such as "5m" or "1h30m"')
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_TERM.findall(found[2]))
        return -seconds if found[1] else seconds
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a finite number of seconds is expected; -1 means for ever")
    return value


_RUNGS = LoopGuardParams()
Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class CollegeTable(_Table):
    """`transfer` is a file of `coe transfer`: what the specialists are worth on each other's domains, as measured."""

    name: Text
    default: Text
    transfer: Text | None = None


class LoopGuardTable(_Table):
    """`loop_guard` in full. `resamples`, `paragraphs`, `attempts` and `rewinds` bound the rungs of the ladder."""

    mode: LoopGuardMode = Field(default=LoopGuardMode.RESCUE, strict=False)
    clients_may_choose: bool = True
    fallback: Text | None = None
    resamples: int = Field(default=_RUNGS.resamples, ge=0, le=100)
    paragraphs: int = Field(default=_RUNGS.paragraphs, ge=0, le=100)
    attempts: int = Field(default=_RUNGS.attempts, ge=1, le=10)
    rewinds: int = Field(default=_RUNGS.rewinds, ge=0, le=1000)
    rescue_tokens: int = Field(default=_RUNGS.rescue_tokens, ge=1, le=1024)


def _loop_guard(value: object) -> object:
    """The mode alone stands for a table with nothing else in it."""
    if isinstance(value, str):
        return {"mode": value}
    if not isinstance(value, dict):
        raise ValueError('"off", "detect" or "rescue" is expected, or a table with a mode')
    return value


class KnowledgeTable(_Table):
    """`knowledge` in full: how much of the specialist's index goes into a prompt at most. `tokens` are the model's."""

    passages: int = Field(default=5, ge=1, le=50)
    tokens: int = Field(default=600, ge=50, le=1_000_000)


def _knowledge(value: object) -> object:
    """`true` stands for a table with nothing in it, `false` for none."""
    if isinstance(value, bool):
        return {} if value else None
    if value is not None and not isinstance(value, dict):
        raise ValueError("true or false is expected, or a table with passages and tokens")
    return value


class SpecialistTable(_Table):
    """One [[specialist]]. `context` is in tokens, `keep_alive` in seconds (negative: for ever).

    Its weights are those of `model`, or what `mask` keeps of `parent`, or else what its Modelfile is FROM.
    """

    tag: Text
    domains: list[Text] = Field(default_factory=list, max_length=64)
    modelfile: Text | None = None
    model: Text | None = None
    parent: Text | None = None
    mask: Text | None = None
    context: int | None = Field(default=None, ge=1, le=16_777_216)
    parallel: int | None = Field(default=None, ge=1, le=256)
    gpu_layers: int | None = Field(default=None, ge=-1, le=999)
    cpu_expert_layers: int = Field(default=0, ge=0, le=999)
    cache_type: CacheType | None = Field(default=None, strict=False)
    pin: bool = False
    preload: bool = False
    keep_alive: Annotated[float | None, BeforeValidator(parse_keep_alive)] = None
    loop_guard: Annotated[LoopGuardTable, BeforeValidator(_loop_guard)] = LoopGuardTable()
    calculator: bool = False
    knowledge: Annotated[KnowledgeTable | None, BeforeValidator(_knowledge)] = None


class EncoderTable(_Table):
    """One [[encoder]]: a model that makes embeddings. `context` bounds one text, in tokens; `keep_alive` in seconds."""

    tag: Text
    model: Text
    context: int | None = Field(default=None, ge=8, le=1_048_576)
    pooling: Pooling | None = Field(default=None, strict=False)
    gpu_layers: int = Field(default=-1, ge=-1, le=999)
    pin: bool = False
    keep_alive: Annotated[float, BeforeValidator(parse_keep_alive)] = 300.0


class CollegeFile(_Table):
    """The whole file, one field for each kind of table."""

    college: CollegeTable
    specialist: list[SpecialistTable] = Field(min_length=1, max_length=1000)
    encoder: list[EncoderTable] = Field(default_factory=list, max_length=100)


def read_college_file(path: Path) -> CollegeFile:
    """Read and check `path`. Raises CatalogueError, naming the entry, the field and the mend."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise CatalogueError(f"{path}: larger than {_MAX_BYTES} bytes; that is no college.toml")
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise CatalogueError(f"{path}: there is no such file; name a college.toml with --college") from None
    except OSError as error:
        raise CatalogueError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CatalogueError(f"{path}: not valid TOML: {error}") from None
    return check_college(tables, source=str(path))


def check_college(tables: dict[str, Any], *, source: str) -> CollegeFile:
    """The checked form of what TOML said; `source` names the file in errors. Raises CatalogueError."""
    _refuse_not_yet(tables, source)
    try:
        checked = CollegeFile.model_validate(tables)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise CatalogueError("\n".join(f"{source}: {_explain(each, tables)}" for each in details[:10])) from None
    _check_tags(checked, source)
    return checked


def _refuse_not_yet(tables: dict[str, Any], source: str) -> None:
    """Keys that the file format has, but this version does not serve."""
    entries = tables.get("specialist")
    for number, entry in enumerate(entries if isinstance(entries, list) else [], start=1):
        for key in _NOT_YET:
            if isinstance(entry, dict) and key in entry:
                raise CatalogueError(f"{source}: {_entry(number, entry)}: {key} is not supported yet; use model")


def _check_tags(file: CollegeFile, source: str) -> None:
    seen: dict[str, str] = {}
    for number, entry in enumerate(file.specialist, start=1):
        where = _entry(number, entry.model_dump())
        _check_tag(entry.tag, where, seen, source)
        if (wrong := _wrong_weights(entry)) is not None:
            raise CatalogueError(f"{source}: {where}: {wrong}")
    specialists = dict(seen)
    for number, encoder in enumerate(file.encoder, start=1):
        _check_tag(encoder.tag, _entry(number, encoder.model_dump(), kind="encoder"), seen, source)
    _check_fallbacks(file, specialists, source)
    if without_latest(file.college.default) not in specialists:
        tags = ", ".join(entry.tag for entry in file.specialist)
        raise CatalogueError(f"{source}: college.default: {file.college.default!r} is none of the tags: {tags}")


def _check_tag(tag: str, where: str, seen: dict[str, str], source: str) -> None:
    """A name that nobody else in `seen` has; it is in there from now on."""
    try:
        check_tag(tag)
    except ValueError as error:
        raise CatalogueError(f"{source}: {where}: tag: {error}") from None
    if without_latest(tag) == SUPERVISORS_ENCODER:
        raise CatalogueError(f"{source}: {where}: tag: {tag!r} is the supervisor's encoder; take another name")
    first = seen.setdefault(without_latest(tag), where)
    if first != where:
        raise CatalogueError(f"{source}: {first} and {where} have the same tag; rename one of them")


def _wrong_weights(entry: SpecialistTable) -> str | None:
    if (entry.parent is None) != (entry.mask is None):
        given, missing = ("parent", "mask") if entry.mask is None else ("mask", "parent")
        return f"{given} needs a {missing} beside it: the experts that the mask keeps of the parent are served"
    if entry.parent is not None and entry.model is not None:
        return "model and parent are two different weights; leave one of them out"
    if entry.modelfile is None and entry.model is None and entry.parent is None:
        return "modelfile, model or parent and mask are needed, to say which weights"
    return None


def _check_fallbacks(file: CollegeFile, known: Mapping[str, str], source: str) -> None:
    for number, entry in enumerate(file.specialist, start=1):
        fallback = entry.loop_guard.fallback
        if fallback is not None and without_latest(fallback) not in known:
            where = _entry(number, entry.model_dump())
            tags = ", ".join(each.tag for each in file.specialist)
            raise CatalogueError(f"{source}: {where}: loop_guard.fallback: {fallback!r} is none of the tags: {tags}")


_ENTRIES: dict[str, type[BaseModel]] = {"specialist": SpecialistTable, "encoder": EncoderTable}


def _explain(detail: Any, tables: dict[str, Any]) -> str:
    """One of pydantic's findings in the words of the file."""
    location = list(detail["loc"])
    where = ""
    table: type[BaseModel] = CollegeFile
    if location[0] in _ENTRIES and len(location) > 2:
        kind = location[0]
        where, table = f"{_entry(location[1] + 1, tables[kind][location[1]], kind=kind)}: ", _ENTRIES[kind]
        location = location[2:]
        if location[0] == "loop_guard" and len(location) > 1:
            table = LoopGuardTable
        elif location[0] == "knowledge" and len(location) > 1:
            table = KnowledgeTable
    elif location[0] == "college" and len(location) > 1:
        table = CollegeTable
        where, location = "[college]: ", location[1:]
    field = ".".join(str(part) for part in location)
    if detail["type"] == "extra_forbidden":
        return f"{where}unknown key {field!r}; {_known(str(location[-1]), table)}"
    if detail["type"] == "missing":
        return f"{where}{field} is missing"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{where}{field}: {message[0].lower()}{message[1:]} (it is {str(detail['input'])[:80]!r})"


def _known(field: str, table: type[BaseModel]) -> str:
    names = list(table.model_fields)
    close = difflib.get_close_matches(field, names, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f"{meant}the known ones are {', '.join(names)}"


def _entry(number: int, entry: object, *, kind: str = "specialist") -> str:
    tag = entry.get("tag") if isinstance(entry, dict) else None
    return f"[[{kind}]] number {number} ({tag})" if isinstance(tag, str) else f"[[{kind}]] number {number}"
