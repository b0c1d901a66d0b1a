"""Input items to messages, and what a specialist said to output items. Pure."""

from collections.abc import Sequence
from typing import Any

from gateway.openai.responses.schemas import (
    FunctionCallItem,
    FunctionCallOutputItem,
    Item,
    MessageItem,
    ResponsesBody,
)
from gateway.openai.schemas import conversation_id
from gateway.openai.tools import arguments_object, require_answered_calls, tool_use
from gateway.request import ChatRequest, ConversationThread, SamplingWishes
from specialists.request import Message, ToolCall

Messages = tuple[Message, ...]


def to_messages(items: Sequence[Item]) -> Messages:
    """Turns of a conversation; calls belong to the assistant's turn they stand beside."""
    messages: list[Message] = []
    for item in items:
        match item:
            case MessageItem():
                messages.append(Message(item.role, item.content))
            case FunctionCallItem():
                _add_call(messages, ToolCall(item.call_id, item.name, arguments_object(item.arguments)))
            case FunctionCallOutputItem():
                messages.append(Message("tool", item.output, tool_call_id=item.call_id))
    return tuple(messages)


def _add_call(messages: list[Message], call: ToolCall) -> None:
    if messages and messages[-1].role == "assistant":
        last = messages.pop()
        messages.append(Message("assistant", last.content, (*last.tool_calls, call)))
    else:
        messages.append(Message("assistant", "", (call,)))


def to_chat_request(body: ResponsesBody, before: Messages) -> ChatRequest:
    """`before` is the conversation that this one goes on from. Instructions are never carried over.

    Raises RequestRejected on tools, calls and outputs that do not belong together.
    """
    instructions = (Message("system", body.instructions),) if body.instructions else ()
    conversation = require_answered_calls([*before, *to_messages(body.input)], field="input")
    return ChatRequest(
        model=body.model,
        messages=(*instructions, *conversation),
        wishes=SamplingWishes(temperature=body.temperature, top_p=body.top_p),
        max_tokens=body.max_output_tokens,
        logprobs=body.num_logprobs,
        json_schema=body.json_schema,
        tool_use=tool_use(body.tools, body.tool_choice, parallel=body.parallel_tool_calls),
        thread=ConversationThread(user=body.user, conversation_id=conversation_id(body.metadata)),
        loop_guard=body.coe.mode if body.coe is not None else None,
        calculator=body.coe is None or body.coe.calculator,
        knowledge=body.coe is None or body.coe.knowledge,
        is_streamed=body.stream,
    )


def input_object(item: Item, id: str) -> dict[str, Any]:
    """An input item as clients read it back."""
    if isinstance(item, MessageItem):
        kind = "output_text" if item.role == "assistant" else "input_text"
        said: dict[str, Any] = {"type": kind, "text": item.content}
        content = [said | {"annotations": []} if item.role == "assistant" else said]
        return {"id": id, "type": "message", "role": item.role, "status": "completed", "content": content}
    rest: dict[str, Any] = {"summary": []} if item.type == "reasoning" else {"status": "completed"}
    return item.model_dump() | {"id": id} | rest


def said_message(output: Sequence[dict[str, Any]]) -> Message:
    """The output items as the assistant's turn, to go on from."""
    text = "".join(part["text"] for item in output if item["type"] == "message" for part in item["content"])
    calls = [item for item in output if item["type"] == "function_call"]
    return Message(
        "assistant",
        text,
        tuple(ToolCall(item["call_id"], item["name"], arguments_object(item["arguments"])) for item in calls),
    )
