"""Measures the supervisor on this machine: time per text by length, load time, memory, flips, accuracy.

    python -m bench.routing [--model DIR] [--examples FILE.jsonl …] [--flips 400]

Every figure is measured in a process of its own with one thread for the encoder. Texts of each length are made from
the project's own questions, so no data is needed; accuracy is measured on the files that are given.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

CHAT_PER_ROUND = 300
BIG_BYTES = 8192

_LOAD = """
import time, sys, resource, json
start = time.perf_counter()
from supervisor.classifier import SupervisorClassifier
from pathlib import Path
model = sys.argv[1]
classifier = SupervisorClassifier.load(Path(model) if model else None)
loaded = time.perf_counter() - start
classifier.classify_text("What is a tort?")
first = time.perf_counter() - start - loaded
for n in range(50):
    classifier.classify_text("What is the derivative of the sine? " * (n + 1))
rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": loaded, "first_ms": 1000 * first, "mebibytes": rss, "torch": "torch" in sys.modules}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="model directory (default: the shipped one)")
    parser.add_argument("--examples", nargs="*", type=Path, default=[], help="labelled JSON lines")
    parser.add_argument("--flips", type=int, default=400, help="texts altered per file")
    arguments = parser.parse_args()
    print_load(arguments.model)
    print_latency(arguments.model)
    for file in arguments.examples:
        print_accuracy(arguments.model, file, arguments.flips)


def print_load(model: str) -> None:
    """Import and load, in fresh processes: the best of three is what the code costs."""
    runs = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", _LOAD, model], capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout))
    best = min(runs, key=lambda run: run["seconds"])
    print(f"import and load   {best['seconds']:.2f} s (best of 3), first answer {best['first_ms']:.1f} ms")
    print(f"peak memory       {best['mebibytes']:.0f} MiB, torch imported: {best['torch']}")


def print_latency(model: str) -> None:
    from supervisor.classifier import SupervisorClassifier
    from supervisor.examples import own_examples

    classifier = SupervisorClassifier.load(Path(model) if model else None)
    chat = [example.text for example in own_examples()][:: len(own_examples()) // CHAT_PER_ROUND]
    joined = " ".join(chat)
    lengths = {
        "chat length": chat,
        "500 characters": [joined[at : at + 500] for at in range(0, 12000, 120)],
        "8 kB": [joined[at : at + BIG_BYTES] for at in range(0, 6000, 120)],
    }
    for name, texts in lengths.items():
        milliseconds = []
        for text in texts:
            start = time.perf_counter()
            classifier.classify_text(text)
            milliseconds.append(1000 * (time.perf_counter() - start))
        p50, p95 = statistics.median(milliseconds), statistics.quantiles(milliseconds, n=20)[-1]
        print(f"{name:17} p50 {p50:.1f} ms, p95 {p95:.1f} ms ({len(texts)} texts)")
    print(f"peak memory here  {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def print_accuracy(model: str, file: Path, num_flips: int) -> None:
    from supervisor.classifier import SupervisorClassifier
    from supervisor.evaluation import evaluate
    from supervisor.examples import read_examples

    classifier = SupervisorClassifier.load(Path(model) if model else None)
    report = evaluate(classifier, read_examples(file), num_flip_examples=num_flips)
    print(f"\n{file.name}: {report.num} examples")
    print(f"  accuracy {report.accuracy:.3f} [{report.accuracy_low:.3f}, {report.accuracy_high:.3f}]")
    print(f"  macro-F1 {report.macro_f1:.3f}, ECE {report.calibration_error:.3f}, top-2 {report.top2_accuracy:.3f}")
    print(f"  wrong specialist {report.wrong_specialist:.3f}, lost to general {report.lost_work:.3f}")
    kept = "no example" if report.general_kept is None else f"{report.general_kept:.3f}"
    print(f"  general kept {kept}, conformal {report.conformal_coverage:.3f} at {report.conformal_size:.2f} domains")
    print("  flips " + ", ".join(f"{name} {100 * rate:.1f} %" for name, rate in report.flips.items()))


if __name__ == "__main__":
    main()
