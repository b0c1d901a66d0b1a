"""What Ollama's clients want to know of a model, out of its manifest and the header of its weights. Pure.

Nothing here names a place on this machine: a FROM is a tag, which `/api/create` takes as it is.
"""

import hashlib
import json
import math
from collections import Counter
from typing import Any, Final

from modelfiles.errors import ModelfileError
from modelfiles.modelfile import ExampleTurn, Modelfile, render
from modelfiles.parameters import Parameters
from specialists.ggml_types import GGML_TYPES
from specialists.gguf_file import GgufHeader, Skipped
from specialists.manifest import SpecialistManifest

# `general.file_type` in llama.cpp's numbering.
_FILE_TYPES: Final = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K",
    19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL",
    26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0",
    37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip
_LONGEST_VALUE_CHARACTERS = 1024
_MOST_ITEMS = 64


def num_parameters(header: GgufHeader) -> int:
    return sum(math.prod(tensor.shape) for part in header.parts for tensor in part.tensors)


def readable_count(count: int) -> str:
    """As Ollama writes it: 134.52M, 7.2B."""
    for size, letter, digits in ((10**12, "T", 1), (10**9, "B", 1), (10**6, "M", 2), (10**3, "K", 2)):
        if count >= size:
            return f"{count / size:.{digits}f}{letter}"
    return str(count)


def quantization(header: GgufHeader) -> str:
    """The file's own word for it, or the type that most of its bytes have."""
    named = header.metadata.get("general.file_type")
    if isinstance(named, int) and named in _FILE_TYPES:
        return _FILE_TYPES[named]
    num_bytes: Counter[int] = Counter()
    for part in header.parts:
        for tensor in part.tensors:
            num_bytes[tensor.ggml_type] += tensor.num_bytes
    return GGML_TYPES[num_bytes.most_common(1)[0][0]].name.upper() if num_bytes else "unknown"


def details(header: GgufHeader | None, *, parent: str = "") -> dict[str, Any]:
    """`parent` is the model that a persona is made of."""
    family = header.architecture if header else ""
    return {
        "parent_model": parent,
        "format": "gguf",
        "family": family,
        "families": [family] if family else [],
        "parameter_size": readable_count(num_parameters(header)) if header else "",
        "quantization_level": quantization(header) if header else "",
    }


def digest(manifest: SpecialistManifest, file_bytes: int, modified_ns: int) -> str:
    """SHA-256, in hex, of everything that makes this model what it is; as with Ollama, not of the weights alone."""
    engine = manifest.engine
    said = {
        "weights": [engine.model_path.name, file_bytes, modified_ns],
        "context": [manifest.context_tokens, manifest.max_tokens, engine.gpu_layers],
        "system": manifest.system,
        "examples": [[turn.role, turn.content] for turn in manifest.examples],
        "sampling": {name: getattr(manifest.sampling, name) for name in manifest.sampling.__struct_fields__},
        "stop": manifest.stop,
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def model_info(header: GgufHeader) -> dict[str, Any]:
    """The metadata, without what is long: vocabularies and the like are null, as Ollama has them unless asked."""
    info: dict[str, Any] = {
        key: value
        for key, value in header.metadata.items()
        if key != "tokenizer.chat_template" and not _is_long(value) and _is_json(value)
    }
    for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges"):
        if key in header.metadata:
            info[key] = None
    return info | {"general.parameter_count": num_parameters(header)}


def _is_long(value: object) -> bool:
    if isinstance(value, str):
        return len(value) > _LONGEST_VALUE_CHARACTERS
    return isinstance(value, Skipped) or (isinstance(value, tuple) and len(value) > _MOST_ITEMS)


def _is_json(value: object) -> bool:
    """JSON has no infinities; a hostile file may."""
    items = value if isinstance(value, tuple) else (value,)
    return all(not isinstance(item, float) or math.isfinite(item) for item in items)


def template(header: GgufHeader | None) -> str:
    """The weights' own chat template, which is Jinja and not Go's language."""
    found = header.metadata.get("tokenizer.chat_template") if header else None
    return found if isinstance(found, str) else ""


def license_of(header: GgufHeader | None) -> str:
    found = header.metadata.get("general.license") if header else None
    return found if isinstance(found, str) else ""


def parameters(manifest: SpecialistManifest) -> str:
    """The parameters that are in force, a line each: name, blanks, value."""
    return "\n".join(
        f"{name:<30} {json.dumps(value) if name == 'stop' else value}" for name, value in _in_force(manifest).items()
    )


def modelfile(manifest: SpecialistManifest, base: str) -> str:
    """A Modelfile that makes this model out of `base` again; a text that no quoting can carry is left out."""
    whole = Modelfile(
        source=base,
        parameters=_in_force(manifest),
        system=manifest.system,
        messages=tuple(ExampleTurn(turn.role, turn.content) for turn in manifest.examples),
    )
    for attempt in (whole, Modelfile(source=base, parameters=whole.parameters), Modelfile(source=base)):
        try:
            return render(attempt)
        except ModelfileError:
            continue
    return f"FROM {base}\n"


def _in_force(manifest: SpecialistManifest) -> Parameters:
    sampling = manifest.sampling
    return Parameters(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        repeat_penalty=sampling.repeat_penalty,
        repeat_last_n=sampling.repeat_last_n,
        frequency_penalty=sampling.frequency_penalty,
        presence_penalty=sampling.presence_penalty,
        seed=sampling.seed,
        num_ctx=manifest.context_tokens,
        num_predict=manifest.max_tokens,
        stop=manifest.stop,
    )


def digest_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
