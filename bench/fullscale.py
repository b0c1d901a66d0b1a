"""Surgery at full scale without a download: a parent of Gemma 4 26B-A4B's widths is cut, checked and loaded.

    python -m bench.fullscale --vocabulary ../shared/data/gemma-4-26b-a4b.vocab.gguf --folder /tmp

Needs 18 GB for the parent and twice the specialist's 9.7 GB (`--layers` for less). Reports the surgery's peak memory,
its time against `cp` of the same number of bytes in the same run, each from a cold page cache and each seen onto the
disk, and the size of the file. Surgery and copy take turns, `--rounds` times each; the fastest of each are compared,
as whatever else the machine does only adds time. Everything it wrote is deleted at the end.
"""

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from bench.report import say
from bench.wide_parent import add_places, write_wide_parent
from specialists.expert_mask import ExpertMask, write_mask
from specialists.gguf_file import read_header
from specialists.moe_layout import layout

EXPECTED_BYTES = 9.7e9  # 30 layers, K = 64, Q4_K gate and up, Q8_0 down
MIB = 1024**2
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Bytes, seconds and MiB. Times of surgery and copy, one for each round, end when the bytes are on the disk."""

    layers: int
    kept: int
    parent_bytes: int
    specialist_bytes: int
    write_parent_seconds: float
    surgery_seconds: tuple[float, ...]
    surgery_peak_mib: float
    copy_seconds: tuple[float, ...]
    verify_seconds: float
    verify_peak_mib: float
    findings: tuple[str, ...]
    load_seconds: float
    first_logits_finite: bool

    @property
    def against_copy(self) -> float:
        return min(self.surgery_seconds) / min(self.copy_seconds)

    @property
    def is_good(self) -> bool:
        """Whether what the builder promises of a full-sized parent holds."""
        right_size = self.layers != 30 or self.kept != 64 or abs(self.specialist_bytes / EXPECTED_BYTES - 1) <= 0.02
        fast = self.against_copy <= 1.5 and self.surgery_peak_mib < 1024
        return right_size and fast and not self.findings and self.first_logits_finite


def measure(vocabulary: Path, folder: Path, *, layers: int, kept: int, seed: int, rounds: int) -> Measured:
    """Everything in `folder`, which is left as it fills up; the caller removes it."""
    parent, mask, specialist, copy = (folder / name for name in ("parent.gguf", "m.mask.json", "cut.gguf", "copy.gguf"))
    say(f"writing a parent of {layers} layers")
    write_parent_seconds = _timed(lambda: _synced(parent, lambda: _write(vocabulary, parent, layers, seed)))
    _write_mask(parent, mask, kept, seed)
    surgeries, copies = [], []
    for number in range(1, rounds + 1):
        say(f"cutting it, and copying the specialist to compare ({number} of {rounds})")
        _forget(parent)
        surgeries.append(_build(parent, mask, specialist))
        _forget(specialist)
        copies.append(_copy(specialist, copy))
        copy.unlink()
    _forget(parent)
    _forget(specialist)
    say("comparing every byte with the parent's")
    started = time.monotonic()
    findings, verify_peak_mib = _in_child(_verify, parent, mask, specialist)
    verify_seconds = time.monotonic() - started
    parent_bytes = parent.stat().st_size
    parent.unlink()
    say("loading it")
    load_seconds, finite = _in_child(_load, specialist)
    return Measured(
        layers=layers,
        kept=kept,
        parent_bytes=parent_bytes,
        specialist_bytes=specialist.stat().st_size,
        write_parent_seconds=write_parent_seconds,
        surgery_seconds=tuple(seconds for seconds, _ in surgeries),
        surgery_peak_mib=max(peak_mib for _, peak_mib in surgeries),
        copy_seconds=tuple(copies),
        verify_seconds=verify_seconds,
        verify_peak_mib=verify_peak_mib,
        findings=findings,
        load_seconds=load_seconds,
        first_logits_finite=finite,
    )


def _timed(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _synced(path: Path, work: Callable[[], object]) -> None:
    work()
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _write(vocabulary: Path, parent: Path, layers: int, seed: int) -> None:
    write_wide_parent(vocabulary, parent, num_layers=layers, seed=seed)


def _write_mask(parent: Path, path: Path, kept: int, seed: int) -> None:
    """Random experts in each layer: the most pieces that a mask can ask for."""
    found = layout(read_header(parent))
    rng = random.Random(seed)
    chosen = {block: tuple(sorted(rng.sample(range(found.num_experts), kept))) for block in found.blocks}
    write_mask(ExpertMask(kept=chosen, num_experts=found.num_experts, domain="math"), path)


def _forget(path: Path) -> None:
    """Have the page cache drop the file, so that whoever reads it next reads the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _build(parent: Path, mask: Path, specialist: Path) -> tuple[float, float]:
    """Seconds and peak MiB of `coe build`, in a process of its own."""
    command = [sys.executable, "-m", "gateway.cli", "build", "--json"]
    arguments = ["--parent", str(parent), "--mask", str(mask), "--out", str(specialist)]
    started = time.monotonic()
    child = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"coe build ended with {child.returncode}")
    return time.monotonic() - started, usage.ru_maxrss / 1024


def _copy(source: Path, target: Path) -> float:
    """Seconds until what `cp` copied is on the disk."""
    return _timed(lambda: _synced(target, lambda: subprocess.run(["cp", source, target], check=True)))


def _in_child(work: Callable[..., Result], *arguments: Path) -> Result:
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _verify(parent: Path, mask: Path, specialist: Path) -> tuple[tuple[str, ...], float]:
    """What is wrong with the specialist, and this process's peak MiB."""
    from specialists.builder.structure import check_structure
    from specialists.engine.llama.blocks import is_finite
    from specialists.expert_mask import read_mask

    report = check_structure(
        layout(read_header(parent)), read_mask(mask).kept, read_header(specialist), is_finite=is_finite
    )
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return tuple(f"{each.where}: {each.what}" for each in report.findings), peak_mib


def _load(specialist: Path) -> tuple[float, bool]:
    """Seconds until llama.cpp has the model, and whether one token's logits are all finite."""
    import numpy as np

    from specialists.engine.llama import Batch, ContextParams, LlamaLog, Model

    started = time.monotonic()
    model = Model.load(specialist, gpu_layers=0, log=LlamaLog())
    seconds = time.monotonic() - started
    context = model.new_context(ContextParams(num_cells=64, max_sequences=1, threads=2))
    batch = Batch(8)
    batch.add([2, 100], position=0, sequence_id=0, logits="last")
    context.decode(batch)
    finite = bool(np.isfinite(context.logits(1)).all())
    context.close()
    model.close()
    return seconds, finite


def _needed_bytes(layers: int, kept: int) -> float:
    """The parent, and the specialist twice."""
    layer = 128 * 4.34e6
    return 1.5e9 + layers * layer + 2 * (1.5e9 + layers * layer * kept / 128)


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.fullscale", description=(__doc__ or "").split("\n")[0])
    add_places(parser)
    parser.add_argument("--layers", type=int, default=30, help="how many layers (default: all 30)")
    parser.add_argument("--keep", type=int, default=64, help="experts kept of 128 (default: 64)")
    parser.add_argument("--rounds", type=int, default=2, help="surgeries and copies (default: 2)")
    parser.add_argument("--seed", type=int, default=1, help="of weights and mask")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="fullscale-", dir=options.folder) as name:
        needed, free = _needed_bytes(options.layers, options.keep), shutil.disk_usage(name).free
        if needed > free:
            raise SystemExit(f"{needed / 1e9:.0f} GB are needed in {name} and {free / 1e9:.0f} are free; use --layers")
        sizes = {"layers": options.layers, "kept": options.keep, "seed": options.seed, "rounds": options.rounds}
        found = measure(options.vocabulary, Path(name), **sizes)
    data = {**asdict(found), "against_copy": found.against_copy, "is_good": found.is_good}
    print(json.dumps(data) if options.json else _words(found))
    return 0 if found.is_good else 1


def _words(found: Measured) -> str:
    speed = found.specialist_bytes / 1e9 / min(found.surgery_seconds)
    logits = "finite" if found.first_logits_finite else "NOT FINITE"
    return "\n".join(
        [
            f"parent      {found.parent_bytes / 1e9:6.2f} GB, {found.layers} layers",
            f"specialist  {found.specialist_bytes / 1e9:6.2f} GB, {found.kept} of 128 experts",
            f"surgery     {_each(found.surgery_seconds)} ({speed:.2f} GB/s), peak {found.surgery_peak_mib:.0f} MiB",
            f"cp          {_each(found.copy_seconds)}",
            f"ratio       {found.against_copy:6.2f} of the fastest",
            f"verify      {found.verify_seconds:6.1f} s, peak {found.verify_peak_mib:.0f} MiB, "
            f"{len(found.findings)} findings",
            f"load        {found.load_seconds:6.1f} s, logits {logits}",
            "all well" if found.is_good else "NOT as promised",
        ]
    )


def _each(seconds: Sequence[float]) -> str:
    return f"{', '.join(f'{each:6.1f}' for each in seconds)} s"


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
