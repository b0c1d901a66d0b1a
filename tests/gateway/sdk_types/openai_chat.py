"""What becomes of each field of OpenAI's chat completions."""

from openai.resources.chat.completions import AsyncCompletions
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming

from specialists.request import TokenLogprob, Tokens, ToolCall, ToolChoice
from tests.fakes import Script
from tests.gateway.college import MATH
from tests.gateway.sdk_types.table import Call, Fields, Proof, Row, Seen, accepted, honoured, refused

ALLOW = {"temperature_policy": "allow"}
OPENAIS_OWN = "for OpenAI's own servers"
CACHING = "prefixes are reused without being asked"
OBFUSCATION = "nothing is padded"
NO_SOUND = "text only"
SPEAKERS = "chat templates know no names of speakers"
USER = {"role": "user", "content": "Hello"}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "weather", "description": "The sky.", "parameters": PARAMETERS, "strict": True}
TWO = [{"type": "function", "function": {"name": name}} for name in ("weather", "time")]
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "Rain."}
LIKELY = Script(pieces=(Tokens("Hi", (TokenLogprob(1, b"Hi", -0.5, ((1, b"Hi", -0.5), (2, b"Ho", -1.5))),)),))
ROLES = ("developer", "system", "user", "assistant", "tool")


def said(role: str, **fields: object) -> Fields:
    """A conversation with a message of that role, which makes sense there."""
    message = {"role": role, "content": "Heed this."} | fields
    if role == "tool":
        return {"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}, {"tool_call_id": "call_1"} | message]}
    return {"messages": [message, USER]}


def part(role: str, **fields: object) -> Fields:
    return said(role, content=[fields])


def called() -> Fields:
    return {"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}, RESULT]}


def heard(text: str) -> Proof:
    return lambda seen: any(text in each for each in seen.texts)


def calls(seen: Seen) -> list[ToolCall]:
    return [call for message in seen.messages for call in message.tool_calls]


def offered(**changes: object) -> Fields:
    return {"tools": [{"type": "function", "function": FUNCTION | changes}]}


def of_a_function(named: str, tools: Fields) -> list[Row]:
    """What a function's own fields do, which the two dialects put into different places; `tools` offers FUNCTION."""
    return [
        honoured(f"{named}.name", tools, lambda seen: [tool.name for tool in seen.tools] == ["weather"]),
        honoured(f"{named}.description", tools, lambda seen: [tool.description for tool in seen.tools] == ["The sky."]),
        honoured(f"{named}.parameters", tools, lambda seen: any('"city"' in tool.parameters for tool in seen.tools)),
        honoured(f"{named}.strict", tools, lambda seen: any(tool.strict for tool in seen.tools)),
    ]


def chosen(value: object) -> Fields:
    return {"tools": TWO, "tool_choice": value}


def schema(**changes: object) -> Fields:
    definition = {"name": "sum", "schema": {"type": "object", "title": "Sum"}} | changes
    return {"response_format": {"type": "json_schema", "json_schema": definition}}


def messages() -> list[Row]:
    heeds, text = heard("Heed this."), {"type": "text", "text": "Heed this."}
    rows = []
    for role in ROLES:
        at = f"messages[{role}]"
        marked = part(role, **text, prompt_cache_breakpoint={"mode": "explicit"})
        rows += [
            honoured(f"{at}.content", said(role), heeds),
            honoured(f"{at}.content[text].text", part(role, **text), heeds),
            accepted(f"{at}.content[text].prompt_cache_breakpoint", marked, CACHING, beside=part(role, **text)),
        ]
        if role != "tool":
            rows.append(accepted(f"{at}.name", said(role, name="Ada"), SPEAKERS, beside=said(role)))
    for kind in ("image_url", "input_audio", "file"):
        rows.append(
            refused(f"messages[user].content[{kind}]", part("user", type=kind), NO_SOUND, param="messages.0.content")
        )
    at = "messages[assistant]"
    custom = {"role": "assistant", "tool_calls": [{"id": "x", "type": "custom", "custom": {"name": "x", "input": ""}}]}
    return [
        *rows,
        honoured(f"{at}.content[refusal].refusal", part("assistant", type="refusal", refusal="Heed this."), heeds),
        honoured(f"{at}.refusal", said("assistant", content=None, refusal="Heed this."), heeds),
        refused(f"{at}.audio", said("assistant", audio={"id": "x"}), NO_SOUND, param="messages.0.audio"),
        refused(
            f"{at}.function_call",
            said("assistant", function_call={"name": "x", "arguments": ""}),
            "deprecated: send tool_calls",
            param="messages.0.function_call",
        ),
        honoured(
            f"{at}.tool_calls[function].id", called(), lambda seen: [each.id for each in calls(seen)] == ["call_1"]
        ),
        honoured(
            f"{at}.tool_calls[function].function.name",
            called(),
            lambda seen: [each.name for each in calls(seen)] == ["weather"],
        ),
        honoured(
            f"{at}.tool_calls[function].function.arguments",
            called(),
            lambda seen: [each.arguments for each in calls(seen)] == ['{"city":"Oslo"}'],
        ),
        refused(
            f"{at}.tool_calls[custom]",
            {"messages": [custom, USER]},
            "functions only",
            param="messages.0.tool_calls.0.type",
        ),
        honoured(
            "messages[tool].tool_call_id",
            called(),
            lambda seen: [each.tool_call_id for each in seen.messages][-1:] == ["call_1"],
        ),
        refused(
            "messages[function]",
            {"messages": [{"role": "function", "name": "x", "content": ""}, USER]},
            "deprecated: send role tool",
            param="messages.0.role",
        ),
    ]


def tools() -> list[Row]:
    custom = {"type": "custom", "custom": {"name": "x"}}
    one = {"type": "function", "function": {"name": "time"}}
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [one]}}
    named = "tools[function].function"
    return [
        *of_a_function(named, offered()),
        refused("tools[custom]", {"tools": [custom]}, "functions only", param="tools.0.type"),
        honoured("tool_choice", "required", lambda seen: seen.choice is ToolChoice.REQUIRED, beside={"tools": TWO}),
        honoured(
            "tool_choice[function].function.name",
            chosen(one),
            lambda seen: [tool.name for tool in seen.tools] == ["time"],
            beside={"tools": TWO},
        ),
        honoured(
            "tool_choice[allowed_tools].allowed_tools.mode",
            chosen(allowed),
            lambda seen: seen.choice is ToolChoice.REQUIRED,
            beside={"tools": TWO},
        ),
        honoured(
            "tool_choice[allowed_tools].allowed_tools.tools",
            chosen(allowed),
            lambda seen: [tool.name for tool in seen.tools] == ["time"],
            beside={"tools": TWO},
        ),
        refused("tool_choice[custom]", chosen(custom), "functions only", param="tool_choice", beside={"tools": TWO}),
        honoured(
            "parallel_tool_calls",
            False,
            lambda seen: seen.tool_use is not None and seen.tool_use.parallel is False,
            beside={"tools": TWO},
        ),
        refused("functions", [{"name": "x"}], "deprecated: send tools"),
        refused("function_call", {"name": "x"}, "deprecated: send tool_choice; none and auto are accepted"),
    ]


def formats() -> list[Row]:
    at = "response_format[json_schema].json_schema"
    return [
        accepted("response_format[text]", {"response_format": {"type": "text"}}, "as without it"),
        honoured(
            "response_format[json_object]",
            {"response_format": {"type": "json_object"}},
            lambda seen: seen.request.json_schema == '{"type":"object"}',
        ),
        honoured(f"{at}.schema", schema(), lambda seen: '"title":"Sum"' in (seen.request.json_schema or "")),
        accepted(f"{at}.name", schema(name="product"), "the schema says all", beside=schema()),
        accepted(f"{at}.description", schema(description="A sum."), "the schema says all", beside=schema()),
        accepted(f"{at}.strict", schema(strict=False), "a schema is always enforced", beside=schema()),
    ]


def sampling() -> list[Row]:
    """What completions understand as well."""
    return [
        honoured("model", "coe-general:q4", lambda seen: seen.request.specialist == "coe-general:q4"),
        honoured(
            "temperature",
            0.3,
            lambda seen: seen.sampling.temperature == 0.3,
            "as far as `COE_TEMPERATURE_POLICY` lets it",
            settings=ALLOW,
        ),
        honoured("top_p", 0.5, lambda seen: seen.sampling.top_p == 0.5),
        honoured("frequency_penalty", 0.5, lambda seen: seen.sampling.frequency_penalty == 0.5),
        honoured("presence_penalty", 0.5, lambda seen: seen.sampling.presence_penalty == 0.5),
        honoured("seed", 42, lambda seen: seen.sampling.seed == 42),
        honoured("logit_bias", {"7": 5}, lambda seen: seen.sampling.logit_bias == ((7, 5.0),)),
        honoured("stop", ["END"], lambda seen: "END" in seen.request.stop, "at most 16"),
        honoured("n", 2, lambda seen: len(seen.requests) == len(seen.answer.choices) == 2, "at most 8"),
        honoured("max_tokens", 9, lambda seen: seen.request.max_tokens == 9, "never more than the specialist's own"),
        honoured("stream", True, lambda seen: isinstance(seen.answer, list)),
        honoured(
            "stream_options.include_usage",
            {"stream": True, "stream_options": {"include_usage": True}},
            lambda seen: bool(seen.answer[-1].usage),
            beside={"stream": True},
        ),
        accepted(
            "stream_options.include_obfuscation",
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            OBFUSCATION,
            beside={"stream": True},
        ),
    ]


def others() -> list[Row]:
    auto = {"model": "auto"}
    return [
        honoured("max_completion_tokens", 9, lambda seen: seen.request.max_tokens == 9, "wins over `max_tokens`"),
        honoured("logprobs", True, lambda seen: seen.answer.choices[0].logprobs is not None, script=LIKELY),
        honoured(
            "top_logprobs",
            2,
            lambda seen: len(seen.answer.choices[0].logprobs.content[0].top_logprobs) == seen.request.logprobs == 2,
            beside={"logprobs": True},
            script=LIKELY,
        ),
        honoured("user", "ada", lambda seen: seen.thread.user == "ada", "keeps `auto` with a specialist", beside=auto),
        honoured(
            "metadata",
            {"conversation_id": "c1"},
            lambda seen: seen.thread.conversation_id == "c1",
            "the conversation's id keeps `auto` with a specialist; nothing else is read",
            beside=auto,
        ),
        refused("audio", {"voice": "alloy", "format": "mp3"}, NO_SOUND),
        refused("modalities", ["text", "audio"], 'other than `["text"]`'),
        refused("moderation", {"model": "omni-moderation-latest"}, "no answer is moderated"),
        refused("web_search_options", {}, "nothing is searched"),
        accepted("prediction", {"type": "content", "content": "Hello"}, "it would change the speed only"),
        accepted("reasoning_effort", "low", "specialists answer with thinking closed"),
        accepted("verbosity", "low", "a hint to models that were trained for it"),
        accepted("store", True, "no chat completion is kept"),
        accepted("prompt_cache_key", "x", CACHING),
        accepted("prompt_cache_options", {"mode": "implicit"}, CACHING),
        accepted("prompt_cache_retention", "24h", CACHING),
        accepted("safety_identifier", "x", OPENAIS_OWN),
        accepted("service_tier", "flex", OPENAIS_OWN),
    ]


CHAT = Call(
    name="chat.completions.create",
    route="POST /v1/chat/completions",
    method=AsyncCompletions.create,
    body=CompletionCreateParamsNonStreaming,
    base={"model": MATH, "messages": [USER]},
    rows=[*sampling(), *others(), *messages(), *tools(), *formats()],
)
