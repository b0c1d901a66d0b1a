"""An [[encoder]] of college.toml, or an embedding model from the hub, as it is served.

Its engine is an engine like any other's: planned, counted against the budget, loaded when it is asked for.
"""

from pathlib import Path
from typing import Final

from specialists.college_file import EncoderTable
from specialists.embedding_models import is_encoder, is_reranker, makes_embeddings, pooling_of, vector_width
from specialists.engine.protocol import EngineSpec, Pooling
from specialists.gguf_file import GgufHeader
from specialists.manifest import SpecialistManifest
from specialists.request import SamplingParams

# Of a text that is computed in one go llama.cpp keeps a row of logits for each token, if the model has any.
_USUAL_TOKENS: Final = 512
_USUAL_TOKENS_WITHOUT_LOGITS: Final = 2048
_RERANKS: Final = "only scores pairs of texts (it is a reranking model); name another file"


def encoder_manifest(
    entry: EncoderTable, path: Path, header: GgufHeader | None, unavailable: str | None
) -> SpecialistManifest:
    """`header` is that of the weights at `path`, None where `unavailable` says why."""
    if header is not None and is_reranker(header):
        unavailable = f"{path.name} {_RERANKS}"
    tokens = _context_tokens(entry, header)
    return SpecialistManifest(
        tag=entry.tag,
        engine=EngineSpec(
            model_path=path,
            context_tokens=tokens,
            parallel=1,
            gpu_layers=entry.gpu_layers,
            pooling=entry.pooling or (pooling_of(header) if header is not None else Pooling.MEAN),
        ),
        context_tokens=tokens,
        max_tokens=1,
        sampling=SamplingParams(),
        pin=entry.pin,
        keep_alive_seconds=entry.keep_alive,
        unavailable=unavailable,
        notes=_notes(entry, tokens),
        vector_width=vector_width(header) if header is not None else 0,
    )


def why_no_specialist(header: GgufHeader | None) -> str | None:
    """Why weights that can be loaded answer nobody; None for all others."""
    if header is None:
        return None
    if is_reranker(header):
        return f"{header.path.name} {_RERANKS}"
    if makes_embeddings(header):
        return f"{header.path.name} makes embeddings and answers nobody; name it in an [[encoder]] instead"
    return None


def _context_tokens(entry: EncoderTable, header: GgufHeader | None) -> int:
    """What is asked for, but never more than the model was trained for: positions beyond have no meaning."""
    usual = _USUAL_TOKENS_WITHOUT_LOGITS if header is None or is_encoder(header) else _USUAL_TOKENS
    wanted = entry.context or usual
    trained = header.trained_context_tokens if header is not None else None
    return min(wanted, trained) if trained and trained > 0 else wanted


def _notes(entry: EncoderTable, tokens: int) -> tuple[str, ...]:
    if entry.context is None or entry.context <= tokens:
        return ()
    return (
        f"context {entry.context} is more than the {tokens} tokens that its model was trained for, so it gets "
        f"{tokens}; lower context",
    )
