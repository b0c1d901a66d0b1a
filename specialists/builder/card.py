"""The model card of a built specialist: what it is, what was not checked, and how to serve it. Markdown."""

import json

from specialists.builder.record import BuildRecord
from specialists.gguf_file import GgufHeader

_SAFETY = """## Safety

Alignment is not preserved by pruning. Experts were chosen by how much they contribute on texts of one domain; nothing
in that choice knows which experts carry refusals, guardrails or ethical judgement, and some of them may be gone. Treat
this file as a research artefact. Evaluate it yourself for your use before anybody relies on it, and do not take the
parent's safety evaluation for its own.
"""

_ZEROED = """
Built with `--mode zero`: dropped experts are still in the file as zeros, and the gate still chooses them. What they
were given of the gate weights is lost to the others, so this model answers differently from one built with
`--mode slice`, and is no smaller in memory.
"""


def card(record: BuildRecord, parent: GgufHeader, modelfile: str, ollama_modelfile: str) -> str:
    """The card's text. The files' names are those beside the model."""
    return "\n".join(
        [_head(record, parent), _zeroed(record), _SAFETY, _coverage(record), _use(record, modelfile, ollama_modelfile)]
    )


def _head(record: BuildRecord, parent: GgufHeader) -> str:
    experts, gigabytes = record.experts, record.model.num_bytes / 1e9
    licence = parent.metadata.get("general.license")
    return f"""# {record.tag}

Cut from `{record.parent.name}` ({record.architecture}) without training: {experts.kept} of {experts.in_parent} experts
kept in each of {experts.layers} layers, {experts.used} used for each token. Everything else is the parent's, byte for
byte.

| | |
|---|---|
| file | `{record.model.name}`, {gigabytes:.2f} GB (parent {record.parent.num_bytes / 1e9:.2f} GB) |
| SHA-256 | `{record.model.sha256}` |
| domain | {", ".join(record.domains) or "not stated"} |
| mask | `{record.mask.name}`, `{record.mask.digest}`, {record.mask.num_swaps} swaps |
| parent's fingerprint | `{record.parent.fingerprint}` |
| licence | {licence if isinstance(licence, str) else "the parent's file does not say; the parent's licence applies"} |
| built | {record.written_at} by {record.software} |
"""


def _zeroed(record: BuildRecord) -> str:
    return _ZEROED if record.mode == "zero" else ""


def _coverage(record: BuildRecord) -> str:
    rows = [
        f"| {name} | {value} |" for name, value in record.mask.metrics.items() if isinstance(value, int | float | str)
    ]
    said = "\n".join(["| measure | value |", "|---|---|", *rows]) if rows else "The mask's file states no measures."
    return f"""## What the mask covers

{said}

Coverage is measured on the profiling texts, not on tasks. `coe verify` proves that this file computes what its parent
computes without the dropped experts; how good the answers are has to be measured on tasks of the domain.
"""


def _use(record: BuildRecord, modelfile: str, ollama_modelfile: str) -> str:
    domains = ", ".join(json.dumps(name, ensure_ascii=False) for name in record.domains)
    return f"""## Use

In a `college.toml` beside these files:

```toml
[[specialist]]
tag = "{record.tag}"
domains = [{domains}]
modelfile = "{modelfile}"
```

With Ollama: `ollama create {record.tag} -f {ollama_modelfile}`
"""
