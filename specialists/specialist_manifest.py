"""One [[specialist]] of college.toml, its Modelfile and the header of its weights, as the specialist that is served.

Of a Modelfile, what says how Ollama renders a prompt (TEMPLATE, RENDERER, PARSER) is not used: the chat template in
the weights is.
"""

from typing import Final

from modelfiles.modelfile import Modelfile
from specialists.college_file import LoopGuardTable, SpecialistTable
from specialists.encoders import why_no_specialist
from specialists.engine.protocol import EngineSpec
from specialists.manifest import KnowledgeRules, LoopGuardRules, SpecialistManifest
from specialists.request import LoopGuardParams, Message, SamplingParams
from specialists.weights import Weights

_DEFAULT_CONTEXT_TOKENS: Final = 4096
_DEFAULT_PARALLEL: Final = 4


def specialist_manifest(
    entry: SpecialistTable, modelfile: Modelfile, weights: Weights, *, adapter: Weights | None
) -> SpecialistManifest:
    """`adapter` is that of the Modelfile, None without one."""
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
            cache_type=entry.cache_type,
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
        unavailable=_unavailable(weights, adapter) or why_no_specialist(weights.header),
        notes=_notes(entry, modelfile, context_tokens),
    )


def _unavailable(weights: Weights, adapter: Weights | None) -> str | None:
    return weights.unavailable or (adapter.unavailable if adapter else None)


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


def _context_tokens(entry: SpecialistTable, modelfile: Modelfile, weights: Weights) -> int:
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
