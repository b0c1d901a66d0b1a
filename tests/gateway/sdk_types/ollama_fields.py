"""What becomes of each field of Ollama's calls."""

from typing import Any

from ollama import AsyncClient
from ollama import _types as types

from gateway.embeddings import ENCODER_TAG
from specialists.request import TextPrompt
from tests.gateway.college import GENERAL, MATH
from tests.gateway.sdk_types.openai_chat import ALLOW, FUNCTION, LIKELY, calls, heard
from tests.gateway.sdk_types.table import VECTORS, Call, Fields, Row, Seen, accepted, honoured, refused

HEEDS = heard("Heed this.")
USER = {"role": "user", "content": "Hello"}
TOOL = {"type": "function", "function": FUNCTION}
CALLED = {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Oslo"}}}]}
RESULT = {"role": "tool", "content": "Rain."}
SCHEMA = {"type": "object", "title": "Sum"}
LISTED = "listed in `coe.ignored_options`"
KNOWN_ELSEWHERE: dict[str, Any] = {
    "numa": True,
    "num_batch": 8,
    "num_gpu": 1,
    "main_gpu": 0,
    "low_vram": True,
    "f16_kv": True,
    "logits_all": True,
    "vocab_only": True,
    "use_mmap": True,
    "use_mlock": True,
    "embedding_only": True,
    "num_thread": 2,
    "num_keep": 4,
    "tfs_z": 1.0,
    "typical_p": 0.9,
    "mirostat": 1,
    "mirostat_tau": 5.0,
    "mirostat_eta": 0.1,
    "penalize_newline": True,
}


def said(**fields: object) -> Fields:
    return {"messages": [{"role": "user", "content": "Heed this."} | fields]}


def option(name: str, value: object) -> Fields:
    return {"options": {name: value}}


def sampled(name: str, value: float, note: str = "", **options: Any) -> Row:
    """An option that the sampler gets as it was sent."""
    return honoured(
        f"options.{name}", option(name, value), lambda seen: getattr(seen.sampling, name) == value, note, **options
    )


def options() -> list[Row]:
    return [
        sampled("temperature", 0.3, "as far as `COE_TEMPERATURE_POLICY` lets it", settings=ALLOW),
        sampled("top_k", 7),
        sampled("top_p", 0.5),
        sampled("repeat_penalty", 1.1, "kept between 1.0 and 1.5"),
        sampled("repeat_last_n", 33),
        sampled("frequency_penalty", 0.5),
        sampled("presence_penalty", 0.5),
        sampled("seed", 42),
        honoured("options.num_predict", option("num_predict", 9), lambda seen: seen.request.max_tokens == 9),
        honoured("options.stop", option("stop", ["END"]), lambda seen: "END" in seen.request.stop, "at most 16"),
        accepted("options.num_ctx", option("num_ctx", 512), "it is the specialist's; `coe.sampling.changed` says so"),
        *(accepted(f"options.{name}", option(name, value), LISTED) for name, value in KNOWN_ELSEWHERE.items()),
    ]


def generating() -> list[Row]:
    """What chat and generate have in common."""
    return [
        honoured("model", GENERAL, lambda seen: seen.request.specialist == GENERAL),
        honoured("stream", True, lambda seen: isinstance(seen.answer, list)),
        *options(),
        honoured("format", "json", lambda seen: seen.request.json_schema == '{"type":"object"}', "or a JSON schema"),
        honoured("keep_alive", "7m", lambda seen: seen.keep_alive_seconds == 420.0),
        accepted("think", True, "thinking stays closed; `coe.sampling.changed` says so"),
        honoured("logprobs", True, lambda seen: seen.answer.logprobs is not None, script=LIKELY),
        honoured(
            "top_logprobs",
            2,
            lambda seen: seen.request.logprobs == 2,
            beside={"logprobs": True},
            script=LIKELY,
        ),
    ]


def messages() -> list[Row]:
    conversation = {"messages": [USER, CALLED, RESULT]}
    named = {"messages": [USER, CALLED, RESULT | {"tool_name": "weather"}]}

    def results(seen: Seen) -> list[str]:
        return [message.tool_name for message in seen.messages if message.role == "tool"]

    return [
        honoured("messages.role", said(role="system"), lambda seen: "Heed this." in seen.messages[0].content),
        honoured("messages.content", said(), HEEDS),
        accepted(
            "messages.thinking",
            said(role="assistant", thinking="Hm."),
            "not shown to the model again",
            beside=said(role="assistant"),
        ),
        refused("messages.images", said(images=["aGk="]), "text only", param="images", beside=said()),
        honoured("messages.tool_name", named, lambda seen: results(seen) == ["weather"]),
        honoured(
            "messages.tool_calls.function.name",
            conversation,
            lambda seen: [each.name for each in calls(seen)] == ["weather"],
        ),
        honoured(
            "messages.tool_calls.function.arguments",
            conversation,
            lambda seen: [each.arguments for each in calls(seen)] == ['{"city":"Oslo"}'],
        ),
    ]


def tools() -> list[Row]:
    offered = {"tools": [TOOL]}
    return [
        refused(
            "tools.type", {"tools": [TOOL | {"type": "magic"}]}, "other than `function`", param="tools", beside=offered
        ),
        honoured("tools.function.name", offered, lambda seen: [tool.name for tool in seen.tools] == ["weather"]),
        honoured(
            "tools.function.description",
            offered,
            lambda seen: [tool.description for tool in seen.tools] == ["The sky."],
        ),
        honoured(
            "tools.function.parameters",
            offered,
            lambda seen: any('"city"' in tool.parameters for tool in seen.tools),
            is_whole=True,
        ),
    ]


CHAT = Call(
    name="chat",
    route="POST /api/chat",
    method=AsyncClient.chat,
    body=types.ChatRequest,
    base={"model": MATH, "messages": [USER]},
    rows=[*generating(), *messages(), *tools()],
)

GENERATE = Call(
    name="generate",
    route="POST /api/generate",
    method=AsyncClient.generate,
    body=types.GenerateRequest,
    base={"model": MATH, "prompt": "Hello"},
    rows=[
        *generating(),
        honoured("prompt", "Heed this.", HEEDS),
        honoured("system", "Heed this.", HEEDS),
        honoured("raw", True, lambda seen: seen.request.prompt == TextPrompt(text="Hello")),
        refused("suffix", "end", "nothing is filled in"),
        refused("template", "{{ .Prompt }}", "send a finished prompt with `raw`"),
        refused("context", [1, 2], "send the conversation to chat"),
        refused("images", ["aGk="], "text only"),
        refused("width", 512, "no pictures are made"),
        refused("height", 512, "no pictures are made"),
        refused("steps", 4, "no pictures are made"),
    ],
)


def embedding() -> list[Row]:
    """What both calls for vectors have in common."""
    return [
        honoured(
            "keep_alive",
            "7m",
            lambda seen: seen.keep_alive_seconds == 420.0,
            "the supervisor's encoder is always there",
            beside={"model": VECTORS},
        ),
        accepted("options", {"num_ctx": 64}, "models that make vectors have none"),
    ]


EMBED = Call(
    name="embed",
    route="POST /api/embed",
    method=AsyncClient.embed,
    body=types.EmbedRequest,
    base={"model": ENCODER_TAG, "input": "A text."},
    rows=[
        honoured("model", VECTORS, lambda seen: len(seen.answer.embeddings[0]) == 2),
        honoured("input", ["One", "Two"], lambda seen: len(seen.answer.embeddings) == 2),
        honoured(
            "truncate",
            False,
            lambda seen: "maximum context length" in str(seen.error),
            "refuses a text that is too long",
            beside={"input": "long " * 200},
        ),
        honoured("dimensions", 3, lambda seen: len(seen.answer.embeddings[0]) == 3),
        *embedding(),
    ],
)

EMBEDDINGS = Call(
    name="embeddings",
    route="POST /api/embeddings",
    method=AsyncClient.embeddings,
    body=types.EmbeddingsRequest,
    base={"model": ENCODER_TAG, "prompt": "A text."},
    rows=[
        honoured("model", VECTORS, lambda seen: len(seen.answer.embedding) == 2),
        honoured("prompt", "", lambda seen: len(seen.answer.embedding) == 0),
        *embedding(),
    ],
)
