"""What can go wrong between a request and a specialist.

    SpecialistError
    ├── CatalogueError           college.toml or a Modelfile is wrong; names the field and the mend
    ├── RequestRejected          this request can never succeed as it stands
    │   ├── ContextOverflow      the prompt alone is longer than the context
    │   └── InvalidSchema        the JSON schema is malformed or beyond our limits
    ├── UnknownSpecialist        no such tag
    ├── SpecialistUnavailable    known, but cannot be served: file missing or corrupt, or it crashed too often
    │   └── ModelTooLarge        its footprint exceeds the whole memory budget
    │       └── LoadKilled       the system killed its engine while it was loading
    ├── QueueFull                too many requests are waiting already
    ├── LoadTimeout              a load made no progress for too long
    ├── WorkerLost               the engine process died
    │   └── MorphFailed          its frame could not become another specialist, which has to be loaded instead
    ├── WorkerTimeout            the engine process lives but went silent
    ├── GenerationFailed         the engine lives, but cannot compute this one request
    └── ShuttingDown             the gateway is draining

`retry_after_seconds` is set where trying again later can help; where it is None, trying again is pointless.
"""

import math
from typing import Self


class SpecialistError(Exception):
    """Base of every error this package raises on purpose. `code` is stable and shown to clients."""

    code = "internal_error"
    retry_after_seconds: int | None = None

    def retry_after(self, seconds: float) -> Self:
        """This error, with a better guess than its kind's of when to try again; permanent ones stay permanent."""
        if self.retry_after_seconds is not None:
            self.retry_after_seconds = max(1, math.ceil(seconds))
        return self


class CatalogueError(SpecialistError):
    code = "invalid_college"


class RequestRejected(SpecialistError):
    """The request can never succeed as it stands; `param` names the field that has to change."""

    code = "invalid_value"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ContextOverflow(RequestRejected):
    code = "context_length_exceeded"

    def __init__(self, message: str, *, param: str | None = "messages") -> None:
        super().__init__(message, param=param)

    @classmethod
    def of(cls, *, prompt_tokens: int, context_tokens: int) -> Self:
        """With the sentence that clients look for to recognise an overflow."""
        return cls(
            f"This model's maximum context length is {context_tokens} tokens. However, your messages resulted in "
            f"at least {prompt_tokens} tokens. Please reduce the length of the messages."
        )


class InvalidSchema(RequestRejected):
    code = "invalid_json_schema"

    def __init__(self, message: str, *, param: str | None = "response_format") -> None:
        super().__init__(message, param=param)


class UnknownSpecialist(SpecialistError):
    code = "model_not_found"


class SpecialistUnavailable(SpecialistError):
    code = "model_unavailable"


class ModelTooLarge(SpecialistUnavailable):
    code = "model_too_large"


class LoadKilled(ModelTooLarge):
    """Most likely memory ran out, though the plan had room; somebody may also have killed it by hand."""


class QueueFull(SpecialistError):
    code = "queue_full"
    retry_after_seconds = 5


class LoadTimeout(SpecialistError):
    code = "model_loading"
    retry_after_seconds = 10


class WorkerLost(SpecialistError):
    code = "worker_lost"
    retry_after_seconds = 2


class MorphFailed(WorkerLost):
    """The frame serves what it served before, or nobody; only a fresh load makes it the wanted specialist."""


class WorkerTimeout(SpecialistError):
    code = "worker_timeout"
    retry_after_seconds = 5


class GenerationFailed(SpecialistError):
    code = "generation_failed"


class ShuttingDown(SpecialistError):
    code = "shutting_down"
    retry_after_seconds = 5
