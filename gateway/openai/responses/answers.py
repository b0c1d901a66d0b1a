"""What /v1/responses answers, as models that only describe: nothing is ever parsed or made with them."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class ResponseAnswer(BaseModel):
    """A response; `output` holds messages, function calls and reasoning in their order."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: str
    created_at: int
    status: str
    model: str
    output: list[dict[str, Any]]
    error: dict[str, Any] | None
    incomplete_details: dict[str, Any] | None
    previous_response_id: str | None
    usage: dict[str, Any] | None
    metadata: dict[str, str]


class ResponseDeleted(BaseModel):
    id: str
    object: str
    deleted: bool


class ResponseInput(BaseModel):
    """The items that a response answered, the last one first."""

    object: str
    data: list[dict[str, Any]]
    first_id: str
    last_id: str
    has_more: bool
