"""What a morph costs, on a model of Gemma 4 26B-A4B's widths that is made here, used and deleted.

    python -m bench.morph --layers 10 --folder /tmp

A frame is loaded and then swung to and fro between a specialist and two others, of which one differs from it in 9 %
of the slots (near) and one in 22 % (far), as published masks do. For each morph: bytes moved, which must be the
plan's; seconds; the same bytes copied from the same memory map to ordinary memory by a plain memcpy; and how often
the morph would fit into a full load of the specialist's own file. Last, the logits of the frame after all that are
compared with those of a fresh one, which must agree to the last bit.

Everything is in the page cache, except for the lines that say cold: there the parent has been dropped from it, and
the disk is measured more than the morph; `ahead` lets the system read ahead first.
"""

import argparse
import ctypes
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.report import say
from bench.wide_family import FAR, NEAR, Relative, kept_experts
from bench.wide_parent import add_places, write_wide_parent
from specialists.builder.plan_writer import write_plan
from specialists.engine.expert_files import Piece
from specialists.engine.frame import Frame
from specialists.engine.frame_loading import load_frame
from specialists.engine.llama import Batch, ContextParams, LlamaLog, Model
from specialists.expert_mask import ExpertMask
from specialists.expert_slots import plan_morph
from specialists.family import Family, masked_family
from specialists.gguf_file import read_header
from specialists.moe_layout import MoeLayout, layout

SHARES = {"near": NEAR, "far": FAR}
HOME = "home"
PROMPT_TOKENS = 24
CLOCK = time.perf_counter


@dataclass(frozen=True, slots=True, kw_only=True)
class Swing:
    """The morphs between `home` and one other specialist. Seconds are medians."""

    target: str
    num_writes: int
    least_writes: int
    num_bytes: int
    bytes_as_planned: bool
    seconds: float
    worst_seconds: float
    memcpy_seconds: float
    cold_seconds: float
    cold_ahead_seconds: float

    @property
    def against_memcpy(self) -> float:
        return self.seconds / self.memcpy_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Bytes and seconds. `file_load` is llama.cpp loading the specialist's own file, warm; MiB are of the frame."""

    layers: int
    kept: int
    parent_bytes: int
    specialist_bytes: int
    frame_load_seconds: float
    file_load_seconds: float
    load_peak_anonymous_mib: float
    load_peak_mapped_mib: float
    after_morphs_mapped_mib: float
    swings: list[Swing] = field(default_factory=list)
    is_exact: bool = False

    @property
    def is_good(self) -> bool:
        return self.is_exact and all(swing.bytes_as_planned and swing.against_memcpy <= 2 for swing in self.swings)


def measure(vocabulary: Path, folder: Path, *, layers: int, kept: int, rounds: int, seed: int) -> Measured:
    """Everything in `folder`; the caller removes it."""
    parent, specialist = folder / "parent.gguf", folder / "home.gguf"
    say(f"writing a parent of {layers} layers")
    write_wide_parent(vocabulary, parent, num_layers=layers, seed=seed)
    family = _family(layout(read_header(parent)), kept, seed)
    say("loading a specialist from a file of its own")
    write_plan(family.plan(HOME), specialist, lambda _count: None)
    file_load_seconds = _file_load_seconds(specialist)
    specialist_bytes = specialist.stat().st_size
    specialist.unlink()
    _read_through(parent)
    say("loading a frame from the parent")
    with _watched_memory() as memory:
        started = CLOCK()
        loaded = _load(family)
        frame_load_seconds = CLOCK() - started
    model, frame = loaded
    say("morphing")
    swings = [_swing(frame, family, name, parent, rounds) for name in SHARES]
    mapped_mib = _resident_mib()["RssFile"]
    after = {name: _logits_as(model, frame, family, name) for name in (*SHARES, HOME)}
    frame.files.close()
    model.close()
    say("comparing with fresh loads")
    exact = [np.array_equal(after[name], _fresh_logits(family, name)) for name in after]
    return Measured(
        layers=layers,
        kept=kept,
        parent_bytes=parent.stat().st_size,
        specialist_bytes=specialist_bytes,
        frame_load_seconds=frame_load_seconds,
        file_load_seconds=file_load_seconds,
        load_peak_anonymous_mib=memory["RssAnon"],
        load_peak_mapped_mib=memory["RssFile"],
        after_morphs_mapped_mib=mapped_mib,
        swings=swings,
        is_exact=all(exact) and not np.array_equal(after["near"], after["far"]),
    )


def _family(parent: MoeLayout, kept: int, seed: int) -> Family:
    """`home` and, for each share, a specialist that has so many of its experts exchanged in every layer."""
    relatives = [Relative(name, HOME, share) for name, share in SHARES.items()]
    masks = kept_experts(parent, HOME, relatives, kept, seed)
    return masked_family(
        parent,
        {name: ExpertMask(kept=each, num_experts=parent.num_experts, domain=name) for name, each in masks.items()},
    )


def _file_load_seconds(path: Path) -> float:
    """llama.cpp reading the file into memory of its own, as a server that swaps must; the second of two loads."""
    seconds = 0.0
    for _ in range(2):
        started = CLOCK()
        model = Model.load(path, gpu_layers=0, is_writable=True, log=LlamaLog())
        seconds = CLOCK() - started
        model.close()
    return seconds


def _load(family: Family, name: str = HOME) -> tuple[Model, Frame]:
    found = load_frame(family, name, gpu_layers=0, log=LlamaLog(), clock=CLOCK)
    if found.frame is None:
        raise SystemExit(f"this build cannot morph: {found.why_fixed}")
    return found.model, found.frame


def _swing(frame: Frame, family: Family, name: str, parent: Path, rounds: int) -> Swing:
    """To `name` and back, often; memcpy of the same pieces in between, so that both meet the same machine."""
    home, target = family.members[HOME], family.members[name]
    plan = plan_morph(home, target)
    planned = plan.num_bytes(family.bytes_per_expert)
    buffer = np.ones(planned, dtype=np.uint8)
    seconds, copies, moved = [], [], set()
    for _ in range(rounds):
        pieces = list(frame.pieces(frame.plan(target)))
        copies.append(_memcpy_seconds(frame, pieces, buffer))
        done = frame.morph(name, target, clock=CLOCK)
        seconds.append(done.seconds)
        back = frame.morph(HOME, home, clock=CLOCK)
        seconds.append(back.seconds)
        moved |= {done.num_bytes, back.num_bytes}
    return Swing(
        target=name,
        num_writes=len(plan.writes),
        least_writes=sum(len(set(target[block]) - set(home[block])) for block in home),
        num_bytes=planned,
        bytes_as_planned=moved == {planned},
        seconds=statistics.median(seconds),
        worst_seconds=max(seconds),
        memcpy_seconds=statistics.median(copies),
        cold_seconds=_cold_seconds(frame, family, name, parent, ahead_seconds=0),
        cold_ahead_seconds=_cold_seconds(frame, family, name, parent, ahead_seconds=8),
    )


def _memcpy_seconds(frame: Frame, pieces: Sequence[Piece], buffer: NDArray[np.uint8]) -> float:
    """The same bytes from the same map, to memory that has been touched before."""
    started, target = CLOCK(), buffer.ctypes.data
    for piece in pieces:
        ctypes.memmove(target, frame.files.address(piece), piece.num_bytes)
        target += piece.num_bytes
    seconds = CLOCK() - started
    frame.files.release(pieces)
    return seconds


def _cold_seconds(frame: Frame, family: Family, name: str, parent: Path, *, ahead_seconds: float) -> float:
    """A morph from a disk that has to be read; with `ahead_seconds`, so long after it was said to be likely."""
    with parent.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if ahead_seconds:
        frame.read_ahead(family.members[name])
        time.sleep(ahead_seconds)
    seconds = frame.morph(name, family.members[name], clock=CLOCK).seconds
    frame.morph(HOME, family.members[HOME], clock=CLOCK)
    return seconds


def _logits_as(model: Model, frame: Frame, family: Family, name: str) -> NDArray[np.float32]:
    frame.morph(name, family.members[name], clock=CLOCK)
    return _logits(model)


def _fresh_logits(family: Family, name: str) -> NDArray[np.float32]:
    model, frame = _load(family, name)
    found = _logits(model)
    frame.files.close()
    model.close()
    return found


def _logits(model: Model) -> NDArray[np.float32]:
    threads = len(os.sched_getaffinity(0))
    context = model.new_context(ContextParams(num_cells=256, max_sequences=1, batch_tokens=64, threads=threads))
    batch = Batch(64)
    tokens = [random.Random(0).randrange(1000, model.vocabulary.size) for _ in range(PROMPT_TOKENS)]
    batch.add(tokens, position=0, sequence_id=0, logits="all")
    context.decode(batch)
    found = np.array([context.logits(index).copy() for index in range(len(tokens))])
    context.close()
    return found


def _read_through(path: Path) -> None:
    """Bring a file into the page cache."""
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 24):
            pass


def _resident_mib() -> dict[str, float]:
    lines = Path("/proc/self/status").read_text().splitlines()
    found = (line.split() for line in lines if line.startswith(("RssAnon", "RssFile")))
    return {name.rstrip(":"): int(kib) / 1024 for name, kib, _ in found}


@contextmanager
def _watched_memory(interval_seconds: float = 0.02) -> Iterator[dict[str, float]]:
    """By how much the resident sizes grow at most while the block runs, in MiB."""
    before = _resident_mib()
    peak = dict.fromkeys(before, 0.0)
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(interval_seconds):
            for name, mib in _resident_mib().items():
                peak[name] = max(peak[name], mib - before[name])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        is_over.set()
        thread.join()


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.morph", description=(__doc__ or "").split("\n")[0])
    add_places(parser)
    parser.add_argument("--layers", type=int, default=10, help="how many layers (default: 10, a parent of 6 GB)")
    parser.add_argument("--keep", type=int, default=64, help="experts kept of 128 (default: 64)")
    parser.add_argument("--rounds", type=int, default=9, help="how often to and fro (default: 9)")
    parser.add_argument("--seed", type=int, default=1, help="of weights and masks")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="morph-", dir=options.folder) as name:
        found = measure(
            options.vocabulary,
            Path(name),
            layers=options.layers,
            kept=options.keep,
            rounds=options.rounds,
            seed=options.seed,
        )
    print(json.dumps(asdict(found) | {"is_good": found.is_good}) if options.json else _words(found))
    return 0 if found.is_good else 1


def _words(found: Measured) -> str:
    head = [
        f"parent      {found.parent_bytes / 1e9:.2f} GB, {found.layers} layers; K = {found.kept}: "
        f"{found.specialist_bytes / 1e9:.2f} GB",
        f"full load   {found.file_load_seconds:.2f} s from a file of its own, {found.frame_load_seconds:.2f} s as a "
        "frame from the parent (both warm)",
        f"memory      grew by at most {found.load_peak_anonymous_mib:.0f} MiB of its own and "
        f"{found.load_peak_mapped_mib:.0f} MiB mapped during that load; {found.after_morphs_mapped_mib:.0f} MiB "
        "mapped after all morphs, libraries included",
    ]
    exact = "equal a fresh load's, bit for bit" if found.is_exact else "DIFFER from a fresh load's"
    return "\n".join([*head, *(_line(found, swing) for swing in found.swings), f"logits      {exact}"])


def _line(found: Measured, swing: Swing) -> str:
    speed = swing.num_bytes / 1e9 / swing.seconds
    planned = "as planned" if swing.bytes_as_planned else "NOT as planned"
    return (
        f"{swing.target:11s} {swing.num_bytes / 1e6:.0f} MB {planned} ({swing.num_writes} slots, at least "
        f"{swing.least_writes}), {swing.seconds * 1e3:.0f} ms (worst {swing.worst_seconds * 1e3:.0f}), "
        f"{speed:.1f} GB/s, {swing.against_memcpy:.2f} x memcpy, 1/{found.file_load_seconds / swing.seconds:.0f} of "
        f"a full load; cold {swing.cold_seconds * 1e3:.0f} ms, ahead {swing.cold_ahead_seconds * 1e3:.0f} ms"
    )


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
