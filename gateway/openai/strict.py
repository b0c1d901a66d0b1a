"""The base of every request model, and the three ways in which a field is refused. Knows no dialect."""

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


def unsupported(what: str, mend: str) -> PydanticCustomError:
    """An error that becomes `unsupported_parameter`."""
    return PydanticCustomError(
        "unsupported_parameter", "{what} is not supported here; {mend}", {"what": what, "mend": mend}
    )


def invalid(text: str) -> PydanticCustomError:
    return PydanticCustomError("invalid_value", "{text}", {"text": text})


def wrong_type(text: str) -> PydanticCustomError:
    return PydanticCustomError("json_type", "{text}", {"text": text})


class Strict(BaseModel):
    """Base of every request model. Fields given as null fall back to their defaults."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _null_means_not_given(cls, data: object) -> object:
        if not isinstance(data, dict):
            raise wrong_type("Input should be a JSON object")
        return {key: value for key, value in data.items() if value is not None}
