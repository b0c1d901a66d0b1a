"""The files beside a built specialist: Modelfiles, manifest, card and report, all from one record."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from modelfiles.builtin import builtin, builtin_names
from modelfiles.modelfile import Modelfile, render
from specialists.builder.card import card
from specialists.builder.errors import BuilderError
from specialists.builder.inspection import tensor_groups
from specialists.builder.json_text import to_json
from specialists.builder.record import BuildRecord
from specialists.builder.report import Figure, Report
from specialists.college_file import check_tag
from specialists.gguf_file import GgufHeader

_GENERAL: Final = "general"
_OLLAMA_NAMES: Final = {"gemma4": "gemma4"}  # architecture → Ollama's own renderer and parser
_OLLAMA_STOP: Final = {"gemma4": ("<turn|>",)}
_NOT_IN_A_TAG: Final = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Companions:
    """Where each file goes: `math.gguf` gets `math.Modelfile` and so on."""

    modelfile: Path
    ollama_modelfile: Path
    manifest: Path
    card: Path
    report_html: Path
    report_json: Path

    @classmethod
    def beside(cls, out: Path) -> "Companions":
        return cls(
            modelfile=out.with_suffix(".Modelfile"),
            ollama_modelfile=out.with_suffix(".ollama.Modelfile"),
            manifest=out.with_suffix(".manifest.json"),
            card=out.with_suffix(".card.md"),
            report_html=out.with_suffix(".build.report.html"),
            report_json=out.with_suffix(".build.report.json"),
        )

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.modelfile, self.ollama_modelfile, self.manifest, self.card, self.report_html, self.report_json)


def checked_tag(tag: str | None, out: Path) -> str:
    """`tag`, or one made of the file's name. Raises BuilderError for one that a college would refuse."""
    try:
        return check_tag(_NOT_IN_A_TAG.sub("-", out.stem).strip("-.")[:80] if tag is None else tag)
    except ValueError as error:
        raise BuilderError(f"--tag: {error}") from None


def companions(record: BuildRecord, parent: GgufHeader, model: GgufHeader, files: Companions) -> dict[Path, str]:
    """The text of each file."""
    modelfile = _modelfile(record)
    report = _report(record, parent, model)
    return {
        files.modelfile: render(modelfile),
        files.ollama_modelfile: render(_for_ollama(modelfile, record.architecture), for_ollama=True),
        files.manifest: to_json(record) + "\n",
        files.card: card(record, parent, files.modelfile.name, files.ollama_modelfile.name),
        files.report_html: report.to_html(),
        files.report_json: report.to_json(),
    }


def _modelfile(record: BuildRecord) -> Modelfile:
    """The built-in one of the domain, or else the general one, over this file's weights."""
    named = next((name for name in record.domains if name in builtin_names()), _GENERAL)
    return replace(builtin(named), source=f"./{record.model.name}")


def _for_ollama(modelfile: Modelfile, architecture: str) -> Modelfile:
    """With Ollama's own chat format for the architectures it has one for; others keep the template in the GGUF."""
    name = _OLLAMA_NAMES.get(architecture)
    if name is None:
        return modelfile
    parameters = replace(modelfile.parameters, stop=_OLLAMA_STOP[architecture])
    return replace(modelfile, renderer=name, parser=name, template="{{ .Prompt }}", parameters=parameters)


def _report(record: BuildRecord, parent: GgufHeader, model: GgufHeader) -> Report:
    exact = "counted in the file, exact"
    report = Report(
        f"Build: {record.tag}",
        f"{record.mode} · {record.experts.kept} of {record.experts.in_parent} experts in {record.experts.layers} "
        f"layers · {record.written_at}",
        {
            f"parent {record.parent.name}": record.parent.fingerprint,
            f"mask {record.mask.name}": f"sha256:{record.mask.sha256}, kept experts {record.mask.digest}",
            f"model {record.model.name}": f"sha256:{record.model.sha256}, {record.model.fingerprint}",
            "software": record.software,
        },
    )
    report.add_figures(
        [
            Figure(name="parent's file", value=record.parent.num_bytes / 1e9, unit="GB", over=exact),
            Figure(name="specialist's file", value=record.model.num_bytes / 1e9, unit="GB", over=exact),
            Figure(name="time to write, digest included", value=record.seconds, unit="s", over="this one run"),
        ]
    )
    report.add_table(
        "Bytes by kind of tensor", ("kind", "tensors", "parent (bytes)", "specialist (bytes)"), _rows(parent, model)
    )
    report.add_text("Whether alignment and safety behaviour of the parent survive pruning was not measured.")
    return report


def _rows(parent: GgufHeader, model: GgufHeader) -> list[tuple[str, int, int, int]]:
    before: Mapping[str, int] = {group.name: group.num_bytes for group in tensor_groups(parent)}
    return [(each.name, each.num_tensors, before[each.name], each.num_bytes) for each in tensor_groups(model)]
