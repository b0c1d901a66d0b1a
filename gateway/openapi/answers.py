"""What the routes answer, as models that only describe: nothing is ever parsed or made with them.

Fields that may be missing have a default. Objects may hold more than is named here, as `coe` does.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict

JSON = dict[str, Any]


class Described(BaseModel):
    model_config = ConfigDict(extra="allow")


# ── OpenAI's dialect ─────────────────────────────────────────────────────────


class ErrorObject(Described):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(Described):
    """Every refusal on /v1 and /coe."""

    error: ErrorObject


class ModelEntry(Described):
    id: str
    object: str
    created: int
    owned_by: str
    coe: JSON


class ModelList(Described):
    object: str
    data: list[ModelEntry]


class TokenUsage(Described):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AssistantMessage(Described):
    role: str
    content: str | None
    refusal: str | None = None
    reasoning_content: str | None = None


class ChatChoice(Described):
    index: int
    message: AssistantMessage
    logprobs: JSON | None
    finish_reason: str | None


class ChatCompletion(Described):
    id: str
    object: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: TokenUsage
    coe: JSON


class TextChoice(Described):
    index: int
    text: str
    logprobs: JSON | None
    finish_reason: str | None


class TextCompletion(Described):
    id: str
    object: str
    created: int
    model: str
    choices: list[TextChoice]
    usage: TokenUsage
    coe: JSON


class EmbeddingEntry(Described):
    object: str
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Described):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Described):
    object: str
    data: list[EmbeddingEntry]
    model: str
    usage: EmbeddingUsage


# ── Ollama's dialect ─────────────────────────────────────────────────────────


class OllamaError(Described):
    """Every refusal on /api."""

    error: str


class OllamaVersion(Described):
    version: str


class OllamaModel(Described):
    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: JSON


class OllamaTags(Described):
    models: list[OllamaModel]


class OllamaResident(OllamaModel):
    size_vram: int
    expires_at: str
    context_length: int


class OllamaProcesses(Described):
    models: list[OllamaResident]


class OllamaShown(Described):
    license: str
    modelfile: str
    parameters: str
    template: str
    details: JSON
    model_info: JSON
    capabilities: list[str]
    modified_at: str


class OllamaTold(Described):
    """The last object of an answer; a stream's earlier lines have `done` false and no counts."""

    model: str
    created_at: str
    done: bool
    done_reason: str | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None


class OllamaChatAnswer(OllamaTold):
    message: JSON


class OllamaGenerateAnswer(OllamaTold):
    response: str


class OllamaEmbedAnswer(Described):
    model: str
    embeddings: list[list[float]]
    prompt_eval_count: int


class OllamaEmbeddingAnswer(Described):
    embedding: list[float]


class OllamaStatus(Described):
    status: str


# ── the gateway's own ────────────────────────────────────────────────────────


class Health(Described):
    status: str


class GatewayStatus(Described):
    college: str
    default: str
    draining: bool
    in_flight: int
    encoders: list[JSON]
    notes: JSON
    pool: JSON
    frames: list[JSON]
    loops: Any


class StreamDeleted(Described):
    id: str
    object: str
    deleted: bool


class FramesChecked(Described):
    sound: bool
    frames: list[JSON]


class DomainProbability(Described):
    domain: str
    probability: float


class Classification(Described):
    domain: str
    confidence: float | None
    specialist: str
    abstained: bool
    reason: str
    domains: list[DomainProbability]
    decision_id: str | None


class Decisions(Described):
    decisions: list[JSON]
    loops: list[JSON]


class Shadow(Described):
    shadow: JSON | None


class FeedbackStatus(Described):
    """How many lessons wait, and what can be done with them; `comparison` where there was one."""


class Residency(Described):
    specialist: str
    state: str
    pinned: bool
    footprint_bytes: int
