"""What watching the gates costs: tokens per second of profiling against a plain prefill of the same text.

    python -m bench.profile_speed --rounds 5
    python -m bench.profile_speed --parent P.gguf --text FILE

Both compute the same windows in the same batches; a plain prefill asks for the logits of each window's last token, a
profile sums up what every gate chose. The arms take turns, and each figure is the median of its rounds, with their
range. Without `--parent`, a mixture-of-experts model of random weights is written to a temporary folder and deleted.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from specialists.builder.accumulation import add_trace, resampling_draws
from specialists.builder.corpus import Corpus
from specialists.builder.histogram import DomainProfile, ProfileShape
from specialists.builder.packing import plan_batches
from specialists.builder.profiler import NUM_SLOTS, ExpertProfiler, context_params
from specialists.builder.prompting import Prompter
from specialists.engine.llama import Batch, Context, LlamaLog, Model
from specialists.gguf_file import read_header
from specialists.moe_layout import MoeLayout, layout
from tests.pico import PicoShape, write_pico_gemma

MIDDLE: Final = PicoShape(
    sliding=(True, True, True, True, True, False) * 2,
    window_tokens=512,
    width=512,
    heads=8,
    head_width=64,
    mlp_width=512,
    experts=64,
    experts_used=8,
    expert_width=128,
    gate_up_type="Q8_0",
    down_type="Q8_0",
)
SAMPLE: Final = "The gate of each layer chooses eight of its experts for every token, and weighs what they say. "


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Tokens per second of one arm: the median of its rounds and their extremes; `ratio` to the plain prefill."""

    arm: str
    tokens_per_second: float
    slowest: float
    fastest: float
    ratio: float


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        parent = arguments.parent or write_pico_gemma(Path(folder) / "middle.gguf", MIDDLE)
        text = arguments.text
        if text is None:
            text = Path(folder) / "sample.txt"
            text.write_text((SAMPLE * 12 + "\n\n") * 64, encoding="utf-8")
        speeds = measure(parent, text, rounds=arguments.rounds, num_tokens=arguments.tokens, threads=arguments.threads)
    for speed in speeds:
        if arguments.json:
            continue
        print(
            f"{speed.arm:<28} {speed.tokens_per_second:9.1f} tokens/s "
            f"({speed.slowest:.1f} to {speed.fastest:.1f})  {speed.ratio:.3f} x plain"
        )
    if arguments.json:
        print(json.dumps([asdict(speed) for speed in speeds]))


def measure(
    parent: Path,
    text: Path,
    *,
    rounds: int,
    num_tokens: int,
    threads: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Speed]:
    """One Speed for each arm, the plain prefill first."""
    moe = layout(read_header(parent))
    with closing(Model.load(parent, gpu_layers=-1, log=LlamaLog())) as model:
        sizes = {"context_tokens": 1024, "batch_tokens": 512, "threads": threads}
        windows = _windows(Prompter(model, context_tokens=sizes["context_tokens"]), text, num_tokens)
        tokens = sum(map(len, windows))
        context, batch = model.new_context(context_params(**sizes)), Batch(sizes["batch_tokens"])
        counting = ExpertProfiler(model, moe, with_contributions=False, **sizes)
        contributing = ExpertProfiler(model, moe, with_contributions=True, **sizes)
        with closing(context), closing(counting), closing(contributing):
            arms = {
                "plain prefill": lambda: prefill(context, batch, windows),
                "counts and weights": lambda: profile(counting, moe, windows),
                "with contributions": lambda: profile(contributing, moe, windows),
            }
            seconds = alternate(arms, rounds=rounds, clock=clock)
    plain = median(seconds["plain prefill"])
    return [
        Speed(
            arm=arm,
            tokens_per_second=tokens / median(taken),
            slowest=tokens / max(taken),
            fastest=tokens / min(taken),
            ratio=plain / median(taken),
        )
        for arm, taken in seconds.items()
    ]


def alternate(
    arms: dict[str, Callable[[], None]], *, rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each arm in each round, after one round that does not count."""
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    for counts in [False, *[True] * rounds]:
        for arm, run in arms.items():
            started = clock()
            run()
            if counts:
                seconds[arm].append(clock() - started)
    return seconds


def prefill(context: Context, batch: Batch, windows: Sequence[Sequence[int]]) -> None:
    """Compute the windows as a server would, unwatched."""
    lengths = [len(window) for window in windows]
    for pieces in plan_batches(lengths, batch_tokens=context.params.batch_tokens, num_slots=NUM_SLOTS):
        batch.clear()
        for piece in pieces:
            tokens = windows[piece.window][piece.start : piece.end]
            logits = "last" if piece.is_last else "none"
            batch.add(tokens, position=piece.start, sequence_id=piece.slot, logits=logits)
        context.decode(batch)
        for piece in pieces:
            if piece.is_last:
                context.remove(piece.slot, 0)


def profile(profiler: ExpertProfiler, moe: MoeLayout, windows: Sequence[Sequence[int]]) -> None:
    """All that `coe profile` does with a group of records once they are tokens."""
    shape = ProfileShape(layers=len(moe.blocks), experts=moe.num_experts, ranks=moe.num_used, replicates=32)
    total = DomainProfile.zeros(shape)
    draws = resampling_draws("bench", range(len(windows)), replicates=shape.replicates, seed=0)
    for traced in profiler.traces(windows):
        add_trace(total, traced.trace, np.asarray(traced.windows), draws)
    assert int(total.num_tokens[0]) == sum(map(len, windows)), "every token was counted once"


def _windows(prompter: Prompter, text: Path, num_tokens: int) -> list[list[int]]:
    corpus = Corpus("bench", [text])
    found: list[list[int]] = []
    for index in range(len(corpus)):
        found += prompter.windows(prompter.tokens(corpus.read(index)))
        if sum(map(len, found)) >= num_tokens:
            break
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parent", type=Path, help="a mixture-of-experts GGUF (default: a random one)")
    parser.add_argument("--text", type=Path, help="text or JSON lines to run (default: one sentence many times)")
    parser.add_argument("--tokens", type=int, default=8192, help="tokens a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
