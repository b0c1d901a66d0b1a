"""Personas: specialists of the college under another name, with instructions and parameters of their own.

A persona is a Modelfile whose FROM is a specialist's tag; it runs on that specialist's engine and under the same rules
as a client's wishes, so it can neither leave the college's temperature nor its context. Pure: where personas are kept
is `gateway.shelf`, who may make them is decided by the routes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

from gateway.policy import RequestPolicy
from gateway.request import SamplingWishes
from modelfiles.modelfile import Modelfile
from modelfiles.parameters import Parameters
from specialists.college_file import check_tag, without_latest
from specialists.errors import RequestRejected
from specialists.manifest import SpecialistManifest
from specialists.request import Message

_WISHES = frozenset(field.name for field in fields(SamplingWishes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Persona:
    """`name` is complete, with its variant. `modelfile.source` is the tag it builds on. `created` is unix seconds."""

    name: str
    modelfile: Modelfile
    created: float

    @property
    def base(self) -> str:
        return self.modelfile.source


def full_name(name: str, *, param: str = "model") -> str:
    """`name` with the variant that it has when none is given. Raises RequestRejected for what is no name."""
    try:
        check_tag(name)
    except ValueError as error:
        raise RequestRejected(f"Invalid '{param}': {error}.", param=param) from None
    return name if ":" in name else f"{name}:latest"


def is_same_name(one: str, other: str) -> bool:
    return without_latest(one) == without_latest(other)


def layered(below: Modelfile, above: Modelfile) -> Modelfile:
    """A Modelfile that builds on what `below` builds on, with what `above` says put over what `below` says."""
    return Modelfile(
        source=below.source,
        parameters=_merged(below.parameters, above.parameters),
        template=below.template if above.template is None else above.template,
        system=below.system if above.system is None else above.system,
        messages=above.messages or below.messages,
        licenses=above.licenses or below.licenses,
    )


def _merged(below: Parameters, above: Parameters) -> Parameters:
    given = {field.name: getattr(above, field.name) for field in fields(Parameters)}
    return replace(below, **{name: value for name, value in given.items() if value not in (None, ())})


def persona_manifest(persona: Persona, base: SpecialistManifest, policy: RequestPolicy) -> SpecialistManifest:
    """The persona as a specialist: on the engine of `base`, and within its limits."""
    parameters = persona.modelfile.parameters
    context_tokens = min(parameters.num_ctx or base.context_tokens, base.context_tokens)
    sampling, _ = policy.sampling(_wishes(parameters), base.sampling, context_tokens)
    asked = parameters.num_predict
    max_tokens = min(base.max_tokens, context_tokens)
    system = base.system if persona.modelfile.system is None else persona.modelfile.system.strip() or None
    messages = tuple(Message(turn.role, turn.content) for turn in persona.modelfile.messages)
    return replace(
        base,
        tag=persona.name,
        context_tokens=context_tokens,
        max_tokens=min(asked, max_tokens) if asked is not None and asked > 0 else max_tokens,
        sampling=sampling,
        domains=(),
        system=system,
        examples=messages or base.examples,
        stop=(*base.stop, *(text for text in parameters.stop if text not in base.stop)),
    )


def remarks(modelfile: Modelfile, base: SpecialistManifest, policy: RequestPolicy) -> Iterator[str]:
    """What of a persona's Modelfile will not be as it says, in words."""
    parameters = modelfile.parameters
    _, changes = policy.sampling(_wishes(parameters), base.sampling, base.context_tokens)
    yield from (f"note: {change}" for change in changes)
    if parameters.num_ctx is not None and parameters.num_ctx > base.context_tokens:
        yield f"note: num_ctx={base.context_tokens} (asked {parameters.num_ctx}; the specialist's own)"
    for name in ("num_gpu", "num_thread"):
        if getattr(parameters, name) is not None:
            yield f"note: {name} has no effect, the engine is the specialist's"
    if modelfile.template is not None:
        yield "note: the template is kept but not used; the weights' own chat template is"


def _wishes(parameters: Parameters) -> SamplingWishes:
    given = {name: value for name, value in parameters.items() if name in _WISHES}
    if given.get("seed") == -1:
        del given["seed"]
    return SamplingWishes(**given)  # type: ignore[arg-type]  # Parameters has checked each one's type
