"""Memory in a gateway's terms: the budget that the settings ask for, and what one engine takes of it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from gateway.machine import Binding, binding
from gateway.settings import Settings
from specialists.engine.protocol import EngineSpec
from specialists.errors import SpecialistUnavailable
from specialists.expert_mask import MaskError
from specialists.family import identify, read_mask_for
from specialists.gguf_file import GgufError, GgufHeader, read_header
from specialists.moe_layout import MoeError
from specialists.pool.budget import (
    MemoryReading,
    default_memory_budget,
    default_ram_budget,
    format_bytes,
    parse_bytes,
    read_memory,
)
from specialists.pool.footprint import Footprint, estimate_footprint
from specialists.pool.room import Room

logger = logging.getLogger("gateway")


@dataclass(frozen=True, slots=True)
class MemorySplit:
    """Bytes that an engine takes in all, and those of them that are of a GPU's memory."""

    total_bytes: int
    device_bytes: int


class InvalidSetting(Exception):
    """A setting cannot be used; the message names it and the mend."""


def read_engine_memory(
    *, read: Callable[[], MemoryReading] = read_memory, ask: Callable[[], Binding] = binding
) -> MemoryReading:
    """The memory that engines can use: a GPU counts only if llama.cpp here was compiled for one."""
    reading = read()
    if reading.device_free_bytes is None or ask().gpu:
        return reading
    logger.warning(
        "a GPU with %s free is left alone, because llama.cpp was compiled without it (run: make cuda)",
        format_bytes(reading.device_free_bytes),
    )
    return replace(reading, device_free_bytes=None)


def memory_budget(settings: Settings, reading: MemoryReading) -> int:
    """Bytes. Raises InvalidSetting."""
    if not settings.memory_budget:  # `COE_MEMORY_BUDGET=` in an env file means unset
        return default_memory_budget(reading)
    try:
        return parse_bytes(settings.memory_budget)
    except ValueError as error:
        raise InvalidSetting(f"memory_budget (--memory-budget or COE_MEMORY_BUDGET): {error}") from None


def ram_budget(settings: Settings, reading: MemoryReading, budget_bytes: int) -> int:
    """Bytes of the host's RAM for what no GPU holds and for parked conversations. Raises InvalidSetting."""
    if not settings.ram_budget:
        return default_ram_budget(reading, budget_bytes)
    try:
        return parse_bytes(settings.ram_budget)
    except ValueError as error:
        raise InvalidSetting(f"ram_budget (COE_RAM_BUDGET): {error}") from None


def engine_room(footprint: Footprint, *, machine_has_gpu: bool, uses_gpu: bool) -> Room:
    """What an engine takes of both budgets; `uses_gpu` says whether it is loaded on the GPU, if there is one.

    Without a GPU both budgets are of RAM, and what it may park counts in one of them alone. With one, an engine in RAM
    takes nothing of it, and one whose places are not known (by formula) is taken to lie there altogether.
    """
    if not machine_has_gpu:
        return Room(footprint.total_bytes, footprint.total_bytes + footprint.parking_bytes)
    if footprint.device_bytes:
        return Room(footprint.charged_bytes, footprint.ram_bytes + footprint.parking_bytes)
    if uses_gpu:
        return Room(footprint.total_bytes, footprint.parking_bytes)
    return Room(0, footprint.total_bytes + footprint.parking_bytes)


def engine_footprint(spec: EngineSpec) -> Footprint:
    """Reads the header of the weights. Raises SpecialistUnavailable when they are gone or no longer sound."""
    try:
        header = read_header(spec.model_path)
        return estimate_footprint(header, spec, weights_bytes=_frame_weights(spec, header))
    except (GgufError, MoeError, MaskError) as error:
        raise SpecialistUnavailable(str(error)) from None
    except OSError as error:
        raise SpecialistUnavailable(f"{spec.model_path.name} cannot be read: {error.strerror}") from None


def _frame_weights(spec: EngineSpec, header: GgufHeader) -> int | None:
    """What a frame of masked specialists loads of its parent: all but the experts that no slot holds."""
    if not spec.family or spec.family[0].mask_path is None:
        return None
    parent = identify(header)
    num_left_out = parent.layout.num_experts - read_mask_for(parent, spec.family[0].mask_path).num_kept
    return header.tensor_bytes - num_left_out * sum(layer.bytes_per_expert for layer in parent.layout.layers)


def device_share(spec: EngineSpec, reading: MemoryReading) -> float:
    """How much of an engine lies in a GPU's memory, 0 to 1, where no plan says: by layers. 0 where no GPU is used."""
    if spec.gpu_layers == 0 or reading.device_free_bytes is None:
        return 0.0
    if spec.gpu_layers < 0:
        return 1.0
    try:
        num_layers = (read_header(spec.model_path).integer("block_count") or 0) + 1  # the output counts as one
    except GgufError:
        return 0.0
    return min(1.0, spec.gpu_layers / num_layers)
