"""What each route reads and answers: the table from which the description is made.

A route that is not in it is still described, without types; a test refuses that.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from gateway.control.schemas import CheckBody, ClassifyBody, FeedbackBody, PinBody
from gateway.ollama import schemas as ollama
from gateway.openai.embeddings import EmbeddingsBody
from gateway.openai.responses.answers import ResponseAnswer, ResponseDeleted, ResponseInput
from gateway.openai.responses.paging import MAX_LIMIT
from gateway.openai.responses.schemas import ResponsesBody
from gateway.openai.schemas import ChatCompletionBody, CompletionBody
from gateway.openapi import answers

SSE, NDJSON, TEXT, HTML, JSON = (
    "text/event-stream", "application/x-ndjson", "text/plain", "text/html", "application/json",
)  # fmt: skip


_NUMBER = {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One beside those in the path, never needed; `place` is query or header."""

    name: str
    place: str
    description: str
    schema: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """`body` is what a request holds, None for none; `answer` the JSON of a 200; `texts` media types beside it."""

    body: type[BaseModel] | None = None
    answer: type[BaseModel] | None = None
    texts: tuple[str, ...] = ()
    body_may_be_missing: bool = False
    parameters: tuple[Parameter, ...] = ()


UNKNOWN = Operation(texts=(JSON,))
_FEEDBACK = Operation(answer=answers.FeedbackStatus)
_MOVED = Operation(answer=answers.Residency)
_RESUMABLE = Parameter("X-Resumable", "header", "Seconds that a stream goes on without its reader.", _NUMBER)
_FROM = (
    Parameter("after", "query", "The number of the last event that came.", _NUMBER),
    Parameter("Last-Event-ID", "header", "The same, as browsers send it.", _NUMBER),
)
_FROM_EVENT = (
    Parameter("stream", "query", "Whether to send the events.", {"type": "boolean"}),
    Parameter("starting_after", "query", "The sequence_number of the last event that came.", _NUMBER),
)
_PAGE = (
    Parameter(
        "order", "query", "The last item first (desc) or the first.", {"type": "string", "enum": ["asc", "desc"]}
    ),
    Parameter("limit", "query", "Items at most.", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}),
    Parameter("after", "query", "The id of the last item that came.", {"type": "string"}),
)

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/v1/chat/completions"): Operation(
        ChatCompletionBody, answers.ChatCompletion, (SSE,), parameters=(_RESUMABLE,)
    ),
    ("POST", "/v1/completions"): Operation(CompletionBody, answers.TextCompletion, (SSE,), parameters=(_RESUMABLE,)),
    ("POST", "/v1/responses"): Operation(ResponsesBody, ResponseAnswer, (SSE,), parameters=(_RESUMABLE,)),
    ("GET", "/v1/responses/{id}"): Operation(answer=ResponseAnswer, texts=(SSE,), parameters=_FROM_EVENT),
    ("DELETE", "/v1/responses/{id}"): Operation(answer=ResponseDeleted),
    ("POST", "/v1/responses/{id}/cancel"): Operation(answer=ResponseAnswer),
    ("GET", "/v1/responses/{id}/input_items"): Operation(answer=ResponseInput, parameters=_PAGE),
    ("POST", "/v1/embeddings"): Operation(EmbeddingsBody, answers.EmbeddingList),
    ("GET", "/v1/models"): Operation(answer=answers.ModelList),
    ("GET", "/v1/models/{model}"): Operation(answer=answers.ModelEntry),
    ("POST", "/api/chat"): Operation(ollama.ChatBody, answers.OllamaChatAnswer, (NDJSON,)),
    ("POST", "/api/generate"): Operation(ollama.GenerateBody, answers.OllamaGenerateAnswer, (NDJSON,)),
    ("POST", "/api/embed"): Operation(ollama.EmbedBody, answers.OllamaEmbedAnswer),
    ("POST", "/api/embeddings"): Operation(ollama.EmbeddingsBody, answers.OllamaEmbeddingAnswer),
    ("POST", "/api/show"): Operation(ollama.ShowBody, answers.OllamaShown),
    ("GET", "/api/tags"): Operation(answer=answers.OllamaTags),
    ("GET", "/api/ps"): Operation(answer=answers.OllamaProcesses),
    ("GET", "/api/version"): Operation(answer=answers.OllamaVersion),
    ("HEAD", "/api/tags"): Operation(),
    ("HEAD", "/api/ps"): Operation(),
    ("HEAD", "/api/version"): Operation(),
    ("POST", "/api/create"): Operation(ollama.CreateBody, answers.OllamaStatus, (NDJSON,)),
    ("POST", "/api/copy"): Operation(ollama.CopyBody),
    ("DELETE", "/api/delete"): Operation(ollama.DeleteBody),
    ("POST", "/api/pull"): Operation(ollama.PullBody, answers.OllamaStatus, (NDJSON,)),
    ("GET", "/coe/status"): Operation(answer=answers.GatewayStatus),
    ("GET", "/coe/live"): Operation(texts=(SSE,)),
    ("GET", "/coe/streams/{id}"): Operation(texts=(SSE,), parameters=_FROM),
    ("DELETE", "/coe/streams/{id}"): Operation(answer=answers.StreamDeleted),
    ("POST", "/coe/classify"): Operation(ClassifyBody, answers.Classification),
    ("GET", "/coe/decisions"): Operation(answer=answers.Decisions),
    ("GET", "/coe/shadow"): Operation(answer=answers.Shadow),
    ("GET", "/coe/feedback"): _FEEDBACK,
    ("POST", "/coe/feedback"): Operation(FeedbackBody, answers.FeedbackStatus),
    ("POST", "/coe/feedback/check"): _FEEDBACK,
    ("POST", "/coe/feedback/promote"): _FEEDBACK,
    ("POST", "/coe/feedback/discard"): _FEEDBACK,
    ("POST", "/coe/feedback/revert"): _FEEDBACK,
    ("POST", "/coe/frames/check"): Operation(CheckBody, answers.FramesChecked, body_may_be_missing=True),
    ("POST", "/coe/specialists/{tag}/load"): _MOVED,
    ("POST", "/coe/specialists/{tag}/unload"): _MOVED,
    ("POST", "/coe/specialists/{tag}/pin"): Operation(PinBody, answers.Residency, body_may_be_missing=True),
    ("GET", "/healthz"): Operation(answer=answers.Health),
    ("GET", "/readyz"): Operation(answer=answers.Health),
    ("GET", "/metrics"): Operation(texts=(TEXT,)),
    ("GET", "/openapi.json"): Operation(texts=(JSON,)),
    ("GET", "/"): Operation(texts=(TEXT, HTML)),
    ("HEAD", "/"): Operation(),
}
