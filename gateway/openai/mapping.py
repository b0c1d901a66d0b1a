"""OpenAI's requests in the gateway's own words. What the fields may hold is decided by the schemas."""

from gateway.openai.schemas import ChatCompletionBody, ChatMessage, CompletionBody, SamplingFields
from gateway.openai.tools import require_answered_calls, tool_use
from gateway.request import ChatRequest, CompletionRequest, ConversationThread, SamplingWishes
from specialists.request import Message


def _wishes(body: SamplingFields) -> SamplingWishes:
    return SamplingWishes(
        temperature=body.temperature,
        top_k=body.top_k,
        top_p=body.top_p,
        min_p=body.min_p,
        repeat_penalty=body.repeat_penalty,
        frequency_penalty=body.frequency_penalty,
        presence_penalty=body.presence_penalty,
        seed=body.seed,
        logit_bias=tuple(body.logit_bias.items()),
    )


def to_chat_request(body: ChatCompletionBody) -> ChatRequest:
    """max_completion_tokens is the newer name and wins; an answer of the assistant's may have been a refusal.

    Raises RequestRejected on tools, calls and results that do not belong together.
    """
    return ChatRequest(
        model=body.model,
        messages=require_answered_calls([_message_of(message) for message in body.messages]),
        tool_use=tool_use((tool.function for tool in body.tools), body.tool_choice, parallel=body.parallel_tool_calls),
        wishes=_wishes(body),
        max_tokens=body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens,
        stop=tuple(body.stop),
        n=body.n,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        json_schema=body.response_format.schema_text() if body.response_format else None,
        thread=ConversationThread(user=body.user, conversation_id=body.metadata),
        loop_guard=body.loop_guard,
        calculator=body.coe is None or body.coe.calculator,
        knowledge=body.coe is None or body.coe.knowledge,
        is_streamed=body.stream,
    )


def _message_of(message: ChatMessage) -> Message:
    return Message(
        role=message.role,
        content=message.content or message.refusal,
        tool_calls=tuple(call.as_call() for call in message.tool_calls),
        tool_call_id=message.tool_call_id,
    )


def to_completion_request(body: CompletionBody) -> CompletionRequest:
    return CompletionRequest(
        model=body.model,
        prompts=tuple(prompt if isinstance(prompt, str) else tuple(prompt) for prompt in body.prompt),
        wishes=_wishes(body),
        max_tokens=body.max_tokens,
        stop=tuple(body.stop),
        n=body.n,
        logprobs=body.logprobs,
        echo=body.echo,
        loop_guard=body.loop_guard,
        is_streamed=body.stream,
    )
