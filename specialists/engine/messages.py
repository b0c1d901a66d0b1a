"""What parent and engine process say to each other: msgpack frames over a Unix socket.

A frame is a big-endian u32 length and that many bytes: a list of messages. A list, because one step of the engine
produces an event for each running Sequence and they should cost one write, one wake-up.
"""

import struct
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from specialists.engine.protocol import CacheType, FrameReport, MorphReport, Pooling
from specialists.request import GenerationEvent, GenerationRequest

MAX_FRAME_BYTES = 64 * 1024 * 1024
HEADER = struct.Struct(">I")

# ── parent → engine ──────────────────────────────────────────────────────────


class Member(Struct, frozen=True):
    """One of a family: paths as in `protocol.FamilyMember`."""

    name: str
    mask_path: str | None
    model_path: str | None


class Load(Struct, frozen=True, tag="load", kw_only=True):
    """Load a model; always the first message. Sizes are in tokens.

    Of a `family`, `serving` is the member to begin with. What there is beside that is as in `protocol.EngineSpec`.
    """

    model_path: str
    adapter_path: str | None
    gpu_layers: int
    context_tokens: int
    parallel: int
    threads: int
    family: tuple[Member, ...] = ()
    serving: str = ""
    parking_bytes: int = 0
    cpu_expert_layers: int = 0
    pooling: Pooling | None = None
    cache_type: CacheType = CacheType.F16


class Submit(Struct, frozen=True, tag="submit"):
    request: GenerationRequest


class Abort(Struct, frozen=True, tag="abort"):
    """Stop a request wherever it is and free what it holds; unknown ids are ignored."""

    id: str


class Pause(Struct, frozen=True, tag="pause"):
    """Do not generate for this request until Resume: its reader is slow."""

    id: str


class Resume(Struct, frozen=True, tag="resume"):
    id: str


class Morph(Struct, frozen=True, tag="morph"):
    """Become that member of the family, between two steps; answered by Morphed or MorphRefused."""

    name: str


class ReadAhead(Struct, frozen=True, tag="read_ahead"):
    """That member is likely to be next. Never answered."""

    name: str


class CheckFrame(Struct, frozen=True, tag="check_frame"):
    """Compare a sample of slots with the files; answered by FrameChecked."""

    num_slots: int
    seed: int


class Embed(Struct, frozen=True, tag="embed"):
    """Make a vector of each text; answered by a TextEmbedded for each in any order, or by one Failed."""

    id: str
    texts: tuple[str, ...]
    may_truncate: bool


ToEngine = Load | Submit | Abort | Pause | Resume | Morph | ReadAhead | CheckFrame | Embed

# ── engine → parent ──────────────────────────────────────────────────────────


class LoadProgress(Struct, frozen=True, tag="load_progress"):
    """Share of the weights read, in [0, 1]."""

    share: float


class Ready(Struct, frozen=True, tag="ready", kw_only=True):
    """The model is loaded; requests may come."""

    model_name: str
    vocabulary_size: int
    trained_context_tokens: int
    load_seconds: float
    why_fixed: str | None = None


class LoadFailed(Struct, frozen=True, tag="load_failed"):
    """The model cannot be loaded; the process ends. `too_large`: memory ran out."""

    reason: str
    too_large: bool


class Event(Struct, frozen=True, tag="event"):
    id: str
    event: GenerationEvent


class Failed(Struct, frozen=True, tag="failed"):
    """This request ended without an answer. `code` is that of the matching SpecialistError."""

    id: str
    code: str
    message: str
    param: str | None


class Heartbeat(Struct, frozen=True, tag="heartbeat"):
    """The engine's loop is alive. Counts are of requests."""

    running: int
    waiting: int
    parked: int = 0
    parked_bytes: int = 0


class Morphed(Struct, frozen=True, tag="morphed"):
    """The frame serves `name` now."""

    name: str
    report: MorphReport


class MorphRefused(Struct, frozen=True, tag="morph_refused"):
    """The frame could not become `name`; it is to be given up."""

    name: str
    reason: str


class FrameChecked(Struct, frozen=True, tag="frame_checked"):
    """None: this engine has no frame."""

    report: FrameReport | None


class TextEmbedded(Struct, frozen=True, tag="text_embedded"):
    """One text's vector: little-endian float32, one after the other. The rest is as in `protocol.TextVector`."""

    id: str
    index: int
    vector: bytes
    num_tokens: int
    is_truncated: bool


FromEngine = (
    LoadProgress
    | Ready
    | LoadFailed
    | Event
    | Failed
    | Heartbeat
    | Morphed
    | MorphRefused
    | FrameChecked
    | TextEmbedded
)

# ── a dry run's answer ───────────────────────────────────────────────────────


class PlannedBuffer(Struct, frozen=True, kw_only=True):
    """Bytes in one kind of buffer; `is_host` where it is ordinary RAM."""

    name: str
    is_host: bool
    weights_bytes: int
    cache_bytes: int
    compute_bytes: int


class DryRun(Struct, frozen=True, tag="dry_run", kw_only=True):
    """What an engine would allocate. `output_bytes` of RAM hold the logits that are handed out."""

    buffers: tuple[PlannedBuffer, ...]
    output_bytes: int
    vocabulary_size: int


class DryRunFailed(Struct, frozen=True, tag="dry_run_failed"):
    reason: str


_encoder = msgspec.msgpack.Encoder()
_to_engine = msgspec.msgpack.Decoder(list[ToEngine])
_from_engine = msgspec.msgpack.Decoder(list[FromEngine])


def encode_frame(messages: Sequence[ToEngine] | Sequence[FromEngine]) -> bytes:
    body = _encoder.encode(messages)
    return HEADER.pack(len(body)) + body


def decode_to_engine(body: bytes) -> list[ToEngine]:
    """Raises msgspec.DecodeError on anything that is not a list of our messages."""
    return _to_engine.decode(body)


def decode_from_engine(body: bytes) -> list[FromEngine]:
    """Raises msgspec.DecodeError on anything that is not a list of our messages."""
    return _from_engine.decode(body)
