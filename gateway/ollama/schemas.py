"""What Ollama's clients may send, checked to the last field before anything else looks at it.

As strict as OpenAI's schemas and with the same bounds; unknown fields and options are ignored, as Ollama does. What is
known and not done here (images, suffixes, templates of the client's own) is refused by name. What the fields mean for a
specialist is decided in `gateway.policy`.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from gateway.ollama.times import parse_duration
from gateway.openai.schemas import (
    MAX_MESSAGES,
    MAX_MODEL_CHARACTERS,
    CoeFields,
    Number,
    Refused,
    ResponseFormat,
    Stops,
)
from gateway.openai.strict import Strict, invalid, unsupported, wrong_type
from gateway.openai.tools import MAX_CALL_ID_CHARACTERS, MAX_CALLS_IN_A_MESSAGE, Tools
from specialists.request import LoopGuardMode

MAX_PARAMETERS = 64
MAX_TEXT_CHARACTERS = 262_144  # of a persona's system text or template
LARGEST_COUNT = 2**31 - 1


def _whole(value: object) -> object:
    """Whole numbers may come as 40.0, since some clients know no other kind; any count beyond reason is the largest."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return max(-LARGEST_COUNT, min(value, LARGEST_COUNT)) if type(value) is int else value


def _no_images(value: object) -> None:
    if value:
        raise unsupported("An image", "send text only")


def _no_pictures(value: object) -> None:
    if value:
        raise unsupported("Making a picture", "leave it out")


def _no_template(value: object) -> None:
    if value:
        raise unsupported("A template", "leave it out, or send a finished prompt with raw set to true")


def _no_context(value: object) -> None:
    if value:
        raise unsupported("The field 'context'", "send the conversation to /api/chat")


def _no_suffix(value: object) -> None:
    if value:
        raise unsupported("Filling in before a suffix", "leave it out")


def _think(value: object) -> object:
    if not isinstance(value, bool | str):
        raise wrong_type("Input should be true, false, or a level such as 'low'")
    return value


def _format(value: object) -> object:
    """Ollama's word for a response format, in OpenAI's words."""
    if value == "":
        return None
    if value == "json":
        return {"type": "json_object"}
    if isinstance(value, dict):
        return {"type": "json_schema", "json_schema": {"schema": value}}
    raise invalid('Input should be "json" or a JSON schema that is an object')


def _duration(value: object) -> float:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise invalid(f"Input is not usable: {error}") from None


def _bounded_object(value: object) -> object:
    if not isinstance(value, dict):
        raise wrong_type("Input should be an object")
    if len(value) > MAX_PARAMETERS:
        raise invalid(f"Input should hold at most {MAX_PARAMETERS} entries")
    return value


def _texts(value: object) -> object:
    """One text or several, always as a list."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise wrong_type("Input should be a string or a list of strings")
    return texts


Whole = Annotated[int, BeforeValidator(_whole)]
KeepAlive = Annotated[float, BeforeValidator(_duration)]
Think = Annotated[bool | str, BeforeValidator(_think)]
ModelName = Annotated[str, Field(min_length=1, max_length=MAX_MODEL_CHARACTERS)]
Text = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS)]


class Options(Strict):
    """The options that have an effect; `ignored` holds the names of the others, `num_ctx` is only answered."""

    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_k: Annotated[Whole, Field(ge=0)] | None = None
    top_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[Number, Field(gt=0, le=10)] | None = None
    repeat_last_n: Annotated[Whole, Field(ge=-1)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    seed: Whole | None = None
    num_predict: Whole | None = None
    num_ctx: Whole | None = None
    stop: Stops = Field(default_factory=list)
    ignored: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _set_the_others_aside(cls, data: object) -> object:
        if not isinstance(data, dict):
            raise wrong_type("Input should be an object")
        known = {name for name in cls.model_fields if name != "ignored"}
        others = sorted(str(name)[:64] for name in data if name not in known and data[name] is not None)
        return {name: data[name] for name in known if name in data} | {"ignored": tuple(others[:MAX_PARAMETERS])}


class Generating(Strict):
    """What chat and generate have in common. `stream` is on unless it is switched off."""

    model: ModelName
    stream: bool = True
    options: Options = Field(default_factory=Options)
    format: Annotated[ResponseFormat | None, BeforeValidator(_format)] = None
    keep_alive: KeepAlive | None = None
    think: Think | None = None
    logprobs: bool = False
    top_logprobs: Annotated[Whole, Field(ge=0, le=20)] = 0
    coe: CoeFields | None = None

    @property
    def schema_text(self) -> str | None:
        return self.format.schema_text() if self.format else None

    @property
    def loop_guard(self) -> LoopGuardMode | None:
        return self.coe.mode if self.coe is not None else None

    @property
    def num_logprobs(self) -> int | None:
        return self.top_logprobs if self.logprobs else None


class OllamaFunction(Strict):
    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: dict[str, Any] = Field(default_factory=dict)


class OllamaToolCall(Strict):
    """A call of the assistant's, sent back; older clients give it no id."""

    id: Annotated[str, Field(max_length=MAX_CALL_ID_CHARACTERS)] = ""
    function: OllamaFunction


class OllamaMessage(Strict):
    """One turn. `thinking` of earlier answers is not shown to the model again."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    images: Annotated[None, BeforeValidator(_no_images)] = None
    tool_calls: Annotated[list[OllamaToolCall], Field(max_length=MAX_CALLS_IN_A_MESSAGE)] = Field(default_factory=list)
    tool_name: Annotated[str, Field(max_length=256)] = ""
    tool_call_id: Annotated[str, Field(max_length=MAX_CALL_ID_CHARACTERS)] = ""


class ChatBody(Generating):
    """The body of POST /api/chat; without messages it loads or unloads."""

    messages: Annotated[list[OllamaMessage], Field(max_length=MAX_MESSAGES)] = Field(default_factory=list)
    tools: Tools = Field(default_factory=list)


class GenerateBody(Generating):
    """The body of POST /api/generate; without a prompt it loads or unloads."""

    prompt: str = ""
    system: str = ""
    raw: bool = False
    suffix: Annotated[None, BeforeValidator(_no_suffix)] = None
    template: Annotated[None, BeforeValidator(_no_template)] = None
    context: Annotated[None, BeforeValidator(_no_context)] = None
    width: Annotated[None, BeforeValidator(_no_pictures)] = None
    height: Annotated[None, BeforeValidator(_no_pictures)] = None
    steps: Annotated[None, BeforeValidator(_no_pictures)] = None
    images: Annotated[None, BeforeValidator(_no_images)] = None

    @model_validator(mode="after")
    def _raw_is_raw(self) -> "GenerateBody":
        if self.raw and self.system:
            raise invalid("raw mode does not support template, system, or context")
        return self


class Named(Strict):
    """A body that names a model; `name` is the older word for `model`."""

    model: ModelName

    @model_validator(mode="before")
    @classmethod
    def _name_is_model(cls, data: object) -> object:
        if isinstance(data, dict) and data.get("model") is None and data.get("name") is not None:
            return data | {"model": data["name"]}
        return data


class ShowBody(Named):
    verbose: bool = False


class DeleteBody(Named):
    pass


class PullBody(Named):
    stream: bool = True


class CopyBody(Strict):
    source: ModelName
    destination: ModelName


class CreateMessage(Strict):
    role: Literal["system", "user", "assistant"]
    content: Text
    images: Annotated[None, BeforeValidator(_no_images)] = None


def _licenses(value: object) -> object:
    return [value] if isinstance(value, str) else value


class CreateBody(Named):
    """The body of POST /api/create: a whole Modelfile, or its parts; the parts win."""

    stream: bool = True
    modelfile: Text | None = None
    base: Annotated[str, Field(min_length=1, max_length=MAX_MODEL_CHARACTERS)] | None = Field(None, alias="from")
    system: Text | None = None
    template: Text | None = None
    license: Annotated[list[Text], BeforeValidator(_licenses), Field(max_length=16)] = Field(default_factory=list)
    parameters: Annotated[dict[str, Any], BeforeValidator(_bounded_object)] = Field(default_factory=dict)
    messages: Annotated[list[CreateMessage], Field(max_length=MAX_MESSAGES)] = Field(default_factory=list)
    files: Refused = None
    adapters: Refused = None
    quantize: Refused = None


class EmbedBody(Strict):
    """The body of POST /api/embed."""

    model: ModelName
    input: Annotated[list[str], BeforeValidator(_texts)]
    truncate: bool = True
    dimensions: Whole | None = None
    keep_alive: KeepAlive | None = None


class EmbeddingsBody(Strict):
    """The body of POST /api/embeddings, which /api/embed has superseded."""

    model: ModelName
    prompt: str = ""
    keep_alive: KeepAlive | None = None
