"""What becomes of each field of OpenAI's responses."""

from typing import Any

from openai import AsyncOpenAI, NotFoundError
from openai.resources.responses import AsyncResponses
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming

from specialists.request import ToolChoice
from tests.gateway.college import MATH
from tests.gateway.sdk_types.openai_chat import (
    ALLOW,
    CACHING,
    FUNCTION,
    LIKELY,
    NO_SOUND,
    OBFUSCATION,
    OPENAIS_OWN,
    calls,
    heard,
    of_a_function,
)
from tests.gateway.sdk_types.table import KEPT, Call, Fields, Row, accepted, honoured, refused

HEEDS = heard("Heed this.")
BOOKKEEPING = "calls and results are matched by `call_id`, turns by their order"
TEXT_ALONE = "models read the text alone"
NOT_HERE = "of tools that OpenAI runs, and of what it keeps"
OTHER_ITEMS = (
    *("additional_tools", "apply_patch_call", "apply_patch_call_output", "code_interpreter_call", "compaction"),
    *("compaction_trigger", "computer_call", "computer_call_output", "configuration_update", "custom_tool_call"),
    *("custom_tool_call_output", "file_search_call", "image_generation_call", "item_reference", "local_shell_call"),
    *("local_shell_call_output", "mcp_approval_request", "mcp_approval_response", "mcp_call", "mcp_list_tools"),
    *("program", "program_output", "shell_call", "shell_call_output", "tool_search_call", "tool_search_output"),
    "web_search_call",
)
OTHER_TOOLS = (
    *("apply_patch", "code_interpreter", "computer", "computer_use_preview", "custom", "file_search"),
    *("image_generation", "local_shell", "mcp", "namespace", "programmatic_tool_calling", "shell", "tool_search"),
    *("web_search", "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11"),
)
OTHER_CHOICES = (
    *("apply_patch", "code_interpreter", "computer", "computer_use", "computer_use_preview", "custom", "file_search"),
    *("image_generation", "mcp", "programmatic_tool_calling", "shell", "web_search_preview"),
    "web_search_preview_2025_03_11",
)
TWO = [{"type": "function", "name": name, "parameters": None, "strict": False} for name in ("weather", "time")]
SCHEMA = {"type": "json_schema", "name": "sum", "schema": {"type": "object", "title": "Sum"}}
STREAM: Fields = {"stream": True}
LOGPROBS = {"include": ["message.output_text.logprobs"]}
CALLED = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Oslo"}'}
RESULT = {"type": "function_call_output", "call_id": "call_1", "output": "Heed this."}


def said(role: str = "user", **fields: object) -> Fields:
    return {"input": [{"type": "message", "role": role, "content": "Heed this."} | fields]}


def part(role: str = "user", **fields: object) -> Fields:
    return said(role, content=[fields])


def called(call: Fields | None = None, **result: object) -> Fields:
    """A call and its result, each with what is given of it."""
    return {"input": [{**CALLED, **(call or {})}, {**RESULT, **result}]}


def reasoned() -> Fields:
    return {"input": [{"type": "reasoning", "id": "rs_1", "summary": []}, *said()["input"]]}


def streamed(**options: object) -> Fields:
    return {**STREAM, "stream_options": options}


def offered(**changes: object) -> Fields:
    return {"tools": [{"type": "function"} | FUNCTION | changes]}


def formatted(**format: object) -> Fields:
    return {"text": {"format": format}}


def plain() -> list[Row]:
    auto = {"model": "auto"}
    return [
        honoured("model", "coe-general:q4", lambda seen: seen.request.specialist == "coe-general:q4"),
        honoured("instructions", "Heed this.", HEEDS),
        honoured(
            "temperature",
            0.3,
            lambda seen: seen.sampling.temperature == 0.3,
            "as far as `COE_TEMPERATURE_POLICY` lets it",
            settings=ALLOW,
        ),
        honoured("top_p", 0.5, lambda seen: seen.sampling.top_p == 0.5),
        honoured(
            "max_output_tokens", 9, lambda seen: seen.request.max_tokens == 9, "never more than the specialist's own"
        ),
        honoured("stream", True, lambda seen: isinstance(seen.answer, list)),
        honoured(
            "include",
            LOGPROBS["include"],
            lambda seen: seen.request.logprobs == 0 and bool(seen.answer.output[0].content[0].logprobs),
            "`message.output_text.logprobs`; what else may be named here never occurs",
            script=LIKELY,
        ),
        honoured(
            "top_logprobs",
            2,
            lambda seen: len(seen.answer.output[0].content[0].logprobs[0].top_logprobs) == seen.request.logprobs == 2,
            beside=LOGPROBS,
            script=LIKELY,
        ),
        honoured("user", "ada", lambda seen: seen.thread.user == "ada", "keeps `auto` with a specialist", beside=auto),
        honoured(
            "metadata",
            {"conversation_id": "c1"},
            lambda seen: seen.thread.conversation_id == "c1" and seen.answer.metadata == {"conversation_id": "c1"},
            "answered; the conversation's id keeps `auto` with a specialist",
            beside=auto,
        ),
        honoured("background", True, lambda seen: seen.answer.status != "completed"),
        refused("moderation", {"model": "omni-moderation-latest"}, "no answer is moderated"),
        refused("context_management", [{"type": "compaction"}], "no conversation is shortened"),
        refused("conversation", "conv_1", "send `previous_response_id`"),
        refused("prompt", {"id": "pmpt_1"}, "none are kept here"),
        refused("truncation", "auto", "other than `disabled`"),
        accepted("stream_options.include_obfuscation", streamed(include_obfuscation=True), OBFUSCATION, beside=STREAM),
        accepted("max_tool_calls", 3, "it bounds OpenAI's own tools"),
        accepted("reasoning", {"effort": "low"}, "specialists answer with thinking closed"),
        accepted("text.verbosity", {"text": {"verbosity": "low"}}, "a hint to models that were trained for it"),
        accepted("prompt_cache_key", "x", CACHING),
        accepted("prompt_cache_options", {"mode": "implicit"}, CACHING),
        accepted("prompt_cache_retention", "24h", CACHING),
        accepted("access_programs", {"cyber": "standard"}, OPENAIS_OWN),
        accepted("safety_identifier", "x", OPENAIS_OWN),
        accepted("service_tier", "flex", OPENAIS_OWN),
        accepted("image", {"context_compression": "enabled"}, "images are refused themselves"),
    ]


TEXT: Fields = {"type": "input_text", "text": "Heed this."}
SPOKEN: Fields = {"type": "output_text", "text": "Heed this.", "annotations": []}
MARKED: Fields = {"prompt_cache_breakpoint": {"mode": "explicit"}}


def messages() -> list[Row]:
    at = "input[message]"
    spoken = part("assistant", **SPOKEN)
    cited = {"type": "file_path", "file_id": "x", "index": 0}
    likely = {"token": "x", "logprob": -0.5, "bytes": [120], "top_logprobs": []}
    return [
        honoured("input", "Heed this.", HEEDS),
        honoured(f"{at}.content", said(), HEEDS),
        honoured(f"{at}.role", said("developer"), lambda seen: "Heed this." in seen.messages[0].content),
        honoured(f"{at}.content[input_text].text", part(**TEXT), HEEDS),
        honoured(f"{at}.content[output_text].text", spoken, HEEDS),
        honoured(f"{at}.content[refusal].refusal", part("assistant", type="refusal", refusal="Heed this."), HEEDS),
        accepted(
            f"{at}.content[input_text].prompt_cache_breakpoint", part(**TEXT, **MARKED), CACHING, beside=part(**TEXT)
        ),
        accepted(
            f"{at}.content[output_text].annotations",
            part("assistant", **{**SPOKEN, "annotations": [cited]}),
            TEXT_ALONE,
            beside=spoken,
        ),
        accepted(
            f"{at}.content[output_text].logprobs",
            part("assistant", **SPOKEN, logprobs=[likely]),
            TEXT_ALONE,
            beside=spoken,
        ),
        *(
            accepted(f"{at}.{name}", said("assistant", **{name: value}), BOOKKEEPING, beside=said("assistant"))
            for name, value in (("id", "x_1"), ("status", "completed"), ("phase", "final_answer"))
        ),
        *(
            refused(f"{at}.content[{kind}]", part(type=kind), NO_SOUND, param="input.0.message.content")
            for kind in ("input_image", "input_file")
        ),
    ]


def functions() -> list[Row]:
    call, result, output = "input[function_call]", "input[function_call_output]", "input.1.function_call_output.output"
    both: dict[str, Any] = {"id": "x_1", "status": "completed", "namespace": "x", "caller": {"type": "direct"}}
    texts = called(output=[TEXT])
    return [
        honoured(f"{call}.call_id", called(), lambda seen: [each.id for each in calls(seen)] == ["call_1"]),
        honoured(f"{call}.name", called(), lambda seen: [each.name for each in calls(seen)] == ["weather"]),
        honoured(
            f"{call}.arguments", called(), lambda seen: [each.arguments for each in calls(seen)] == ['{"city":"Oslo"}']
        ),
        honoured(f"{result}.output", called(), HEEDS),
        honoured(f"{result}.output[input_text].text", texts, HEEDS),
        honoured(f"{result}.call_id", called(), lambda seen: seen.messages[-1].tool_call_id == "call_1"),
        accepted(
            f"{result}.output[input_text].prompt_cache_breakpoint",
            called(output=[{**TEXT, **MARKED}]),
            CACHING,
            beside=texts,
        ),
        *(
            accepted(f"{call}.{name}", called({name: value}), BOOKKEEPING, beside=called())
            for name, value in (both | {"async": True}).items()
        ),
        *(
            accepted(f"{result}.{name}", called(**{name: value}), BOOKKEEPING, beside=called())
            for name, value in (both | {"name": "weather"}).items()
        ),
        *(
            refused(f"{result}.output[{kind}]", called(output=[{"type": kind}]), NO_SOUND, param=output)
            for kind in ("input_image", "input_file")
        ),
    ]


def items() -> list[Row]:
    return [
        accepted("input[reasoning]", reasoned(), "reasoning is not shown to the model again", beside=said()),
        *(refused(f"input[{kind}]", {"input": [{"type": kind}]}, NOT_HERE, param="input.0") for kind in OTHER_ITEMS),
    ]


def tools() -> list[Row]:
    one, both = {"type": "function", "name": "time"}, {"tools": TWO}
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [one]}
    named = "tools[function]"
    rows = [
        *of_a_function(named, offered()),
        honoured("tool_choice", "required", lambda seen: seen.choice is ToolChoice.REQUIRED, beside=both),
        honoured(
            "tool_choice[function].name",
            both | {"tool_choice": one},
            lambda seen: [tool.name for tool in seen.tools] == ["time"],
            beside=both,
        ),
        honoured(
            "tool_choice[allowed_tools].mode",
            both | {"tool_choice": allowed},
            lambda seen: seen.choice is ToolChoice.REQUIRED,
            beside=both,
        ),
        honoured(
            "tool_choice[allowed_tools].tools",
            both | {"tool_choice": allowed},
            lambda seen: [tool.name for tool in seen.tools] == ["time"],
            beside=both,
        ),
        honoured(
            "parallel_tool_calls",
            False,
            lambda seen: seen.tool_use is not None and seen.tool_use.parallel is False,
            beside=both,
        ),
    ]
    ways: tuple[tuple[str, Any], ...] = (
        ("allowed_callers", ["direct"]),
        ("async", True),
        ("defer_loading", True),
        ("output_schema", {"type": "object"}),
    )
    for name, value in ways:
        rows.append(
            accepted(
                f"{named}.{name}", offered(**{name: value}), "the client itself calls, as always", beside=offered()
            )
        )
    rows += [refused(f"tools[{kind}]", {"tools": [{"type": kind}]}, NOT_HERE, param="tools.0") for kind in OTHER_TOOLS]
    for kind in OTHER_CHOICES:
        choice = {"tool_choice": {"type": kind}}
        rows.append(refused(f"tool_choice[{kind}]", both | choice, NOT_HERE, param="tool_choice", beside=both))
    return rows


def formats() -> list[Row]:
    at, plain = "text.format[json_schema]", formatted(**SCHEMA)
    return [
        accepted("text.format[text]", formatted(type="text"), "as without it"),
        honoured(
            "text.format[json_object]",
            formatted(type="json_object"),
            lambda seen: seen.request.json_schema == '{"type":"object"}',
        ),
        honoured(f"{at}.schema", plain, lambda seen: '"title":"Sum"' in (seen.request.json_schema or "")),
        honoured(f"{at}.name", plain, lambda seen: getattr(seen.answer.text.format, "name", "") == "sum", "answered"),
        accepted(f"{at}.description", formatted(**SCHEMA, description="A sum."), "the schema says all", beside=plain),
        accepted(f"{at}.strict", formatted(**SCHEMA, strict=False), "a schema is always enforced", beside=plain),
    ]


async def kept(client: AsyncOpenAI) -> str:
    """The id of a response that can be gone on from."""
    return (await client.responses.create(model=MATH, input="Heed this.")).id


async def is_kept(client: AsyncOpenAI, answer: Any) -> bool:
    try:
        return bool(await client.responses.retrieve(getattr(answer, "id", "")))
    except (NotFoundError, ValueError):
        return False


CREATE = Call(
    name="responses.create",
    route="POST /v1/responses",
    method=AsyncResponses.create,
    body=ResponseCreateParamsNonStreaming,
    base={"model": MATH, "input": "Hello"},
    before=kept,
    after=is_kept,
    rows=[
        *plain(),
        honoured("previous_response_id", KEPT, HEEDS, "kept for an hour"),
        honoured("store", False, lambda seen: not seen.after),
        *messages(),
        *functions(),
        *items(),
        *tools(),
        *formats(),
    ],
)
