"""Memory in a gateway's terms: the budget that the settings ask for, and what one engine takes of it."""

from gateway.settings import Settings
from specialists.engine.protocol import EngineSpec
from specialists.errors import SpecialistUnavailable
from specialists.gguf_file import GgufError, read_header
from specialists.pool.budget import MemoryReading, default_memory_budget, parse_bytes
from specialists.pool.footprint import Footprint, estimate_footprint


class InvalidSetting(Exception):
    """A setting cannot be used; the message names it and the mend."""


def memory_budget(settings: Settings, reading: MemoryReading) -> int:
    """Bytes. Raises InvalidSetting."""
    if not settings.memory_budget:  # `COE_MEMORY_BUDGET=` in an env file means unset
        return default_memory_budget(reading)
    try:
        return parse_bytes(settings.memory_budget)
    except ValueError as error:
        raise InvalidSetting(f"memory_budget (--memory-budget or COE_MEMORY_BUDGET): {error}") from None


def engine_footprint(spec: EngineSpec) -> Footprint:
    """Reads the header of the weights. Raises SpecialistUnavailable when they are gone or no longer sound."""
    try:
        return estimate_footprint(read_header(spec.model_path), spec)
    except GgufError as error:
        raise SpecialistUnavailable(str(error)) from None
    except OSError as error:
        raise SpecialistUnavailable(f"{spec.model_path.name} cannot be read: {error.strerror}") from None
