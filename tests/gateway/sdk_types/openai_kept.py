"""What becomes of each field of OpenAI's calls that come back to a response."""

from openai import AsyncOpenAI
from openai.resources.responses import AsyncResponses
from openai.resources.responses.input_items import AsyncInputItems

from tests.gateway.college import MATH
from tests.gateway.sdk_types.openai_chat import OBFUSCATION
from tests.gateway.sdk_types.openai_responses import CREATE, LOGPROBS, STREAM, kept
from tests.gateway.sdk_types.table import KEPT, Call, accepted, honoured


async def kept_stream(client: AsyncOpenAI) -> str:
    """The id of a response whose events can be read again."""
    events = await client.responses.create(model=MATH, input="Heed this.", background=True, stream=True)
    ids = [event.response.id async for event in events if event.type == "response.completed"]
    return ids[0]


async def kept_turns(client: AsyncOpenAI) -> str:
    """The id of a response to two messages."""
    said = [{"role": "user", "content": text} for text in ("Heed this.", "And that.")]
    return (await client.responses.create(model=MATH, input=said)).id  # type: ignore[arg-type]


async def begun(client: AsyncOpenAI) -> str:
    """The id of a response that is being made."""
    return (await client.responses.create(model=MATH, input="Heed this.", background=True)).id


RETRIEVE = Call(
    name="responses.retrieve",
    route="GET /v1/responses/{id}",
    method=AsyncResponses.retrieve,
    base={"response_id": KEPT},
    before=kept_stream,
    rows=[
        honoured(
            "stream",
            True,
            lambda seen: isinstance(seen.answer, list),
            "of a response whose stream was recorded ([api.md](api.md#responses))",
        ),
        honoured(
            "starting_after",
            3,
            lambda seen: seen.answer[0].sequence_number == 4,
            beside=STREAM,
        ),
        accepted("include", LOGPROBS["include"], "a response is kept as it was answered"),
        accepted("include_obfuscation", True, OBFUSCATION),
    ],
)
CANCEL = Call(
    name="responses.cancel",
    route="POST /v1/responses/{id}/cancel",
    method=AsyncResponses.cancel,
    base={"response_id": KEPT},
    before=begun,
)
DELETE = Call(
    name="responses.delete",
    route="DELETE /v1/responses/{id}",
    method=AsyncResponses.delete,
    base={"response_id": KEPT},
    before=kept,
)
INPUT_ITEMS = Call(
    name="responses.input_items.list",
    route="GET /v1/responses/{id}/input_items",
    method=AsyncInputItems.list,
    base={"response_id": KEPT},
    before=kept_turns,
    rows=[
        honoured("after", f"{KEPT}_in01", lambda seen: len(seen.answer.data) == 1),
        honoured("limit", 1, lambda seen: len(seen.answer.data) == 1 and seen.answer.has_more),
        honoured("order", "asc", lambda seen: seen.answer.data[0].content[0].text == "Heed this."),
        accepted("include", LOGPROBS["include"], "items are kept as they were sent"),
    ],
)
RESPONSES = (CREATE, RETRIEVE, DELETE, CANCEL, INPUT_ITEMS)
