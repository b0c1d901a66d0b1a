"""The model card: what the parent is, how its training went, and whose texts it learnt from, written from the files.

The training curve is a drawing beside the card. Needs no torch.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pocket.corpora import DOMAINS, SHARE_ALIKE
from pocket.shape import PocketShape
from specialists.builder.plots import Series, lines

LOG, CURVE = "training-log.jsonl", "training-curve.svg"
_STYLE = (
    "svg{background:#fff;--soft:#59636e;--rule:#d8dee4;--c0:#0072b2;--c1:#d55e00}"
    "text{font:11px sans-serif;fill:var(--soft)}"
)


def write_card(model: Path, sources: Path) -> None:
    """Write README.md and the curve into the folder `model`, which holds the GGUFs and the training log.

    `sources` is the corpora's SOURCES.md. FileNotFoundError names what is missing.
    """
    log = [json.loads(line) for line in (model / LOG).read_text(encoding="utf-8").splitlines()]
    (model / CURVE).write_text(curve(log), encoding="utf-8")
    parts = [_what(), _files(model), _training(log), _data(sources.read_text(encoding="utf-8"))]
    (model / "README.md").write_text("\n".join(line for part in parts for line in part) + "\n", encoding="utf-8")


def curve(log: Sequence[Mapping[str, Any]]) -> str:
    """Nats per token over millions of tokens, of the batches and of held-out text, as one SVG."""
    trained = [row for row in log if "loss" in row]
    held = [row for row in log if "held_out" in row]
    series = (
        Series(name="training", xs=[row["tokens"] / 1e6 for row in trained], ys=[row["loss"] for row in trained]),
        Series(name="held out", xs=[row["tokens"] / 1e6 for row in held], ys=[row["held_out"]["loss"] for row in held]),
    )
    label = "Loss on training batches (blue) and on held-out text (orange)"
    drawn = lines(series, "million tokens", "nats per token", label)
    drawn = drawn[: drawn.index("</svg>") + len("</svg>")]  # the legend is HTML, for pages
    return drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
        ">", f"><title>{label}</title><style>{_STYLE}</style>", 1
    )


def _what() -> Iterator[str]:
    shape = PocketShape()
    yield "# The pocket parent"
    yield ""
    yield "Written by `python -m pocket card`; do not edit."
    yield ""
    yield "A mixture of experts of Gemma 4's architecture with random beginnings: nothing of Gemma's weights is in it."
    yield f"{shape.layers} layers, width {shape.width}, {shape.experts} experts of which {shape.experts_used} serve a"
    yield "token. It goes on from a text in the manner of its textbooks and knows nothing. It exists so that cutting"
    yield "and morphing specialists can be shown and measured on a file of a few megabytes; use it for nothing else."


def _files(model: Path) -> Iterator[str]:
    yield from ("", "| file | bytes | SHA-256 |", "|---|---|---|")
    for path in sorted(model.glob("*.gguf")):
        yield f"| {path.name} | {path.stat().st_size:,} | `{hashlib.sha256(path.read_bytes()).hexdigest()}` |"


def _training(log: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    last, held = ([row for row in log if key in row][-1] for key in ("cpu_s", "held_out"))
    found = held["held_out"]
    yield from ("", "## Training", "", f"![Training curve]({CURVE})", "")
    yield f"{last['step']:,} steps, {last['tokens'] / 1e6:.1f} million tokens, {last['cpu_s'] / 3600:.1f} hours of CPU"
    yield f"time. At the end the loss on training batches is {last['loss']:.2f} nats per token, on four windows of each"
    yield f"domain's held-out text {found['loss']:.2f}; {found['mean']:.1%} of next tokens are guessed right there:"
    yield ""
    names = [name for name in DOMAINS if name in found]
    yield f"| {' | '.join(names)} |"
    yield "|---" * len(names) + "|"
    yield f"| {' | '.join(f'{found[name]:.1%}' for name in names)} |"
    yield ""
    yield "Measured on more text, beside gzip, xz and a trigram model: docs/pocket-study.md. The log of every twentieth"
    yield f"step is {LOG}; the recipe is the default of `pocket/training.py`."


def _data(sources: str) -> Iterator[str]:
    yield from ("", "## Data and licence", "")
    yield "The weights are offered under CC BY 4.0, like the greater part of the texts. Share-alike texts were left"
    yield "out. Of the others, figures, captions and exercises without solution were left out, formulas rewritten as"
    yield "text, and records sampled. OpenStax texts are of revisions offered under CC BY 4.0 (access for free at"
    yield "https://openstax.org)."
    yield from ("", "| source | title | author | licence |", "|---|---|---|---|")
    for cells in _rows(sources):
        source, _, title, author, licence, *_ = cells
        if SHARE_ALIKE not in licence:
            yield f"| {source} | {title} | {author} | {licence} |"
    yield ""
    yield from _section(sources, "## Notices")


def _rows(sources: str) -> Iterator[list[str]]:
    """Cells of the tables under "Sources by domain", without their heads; a source of two domains once."""
    seen = set()
    for line in _section(sources, "## Sources by domain"):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        key = tuple(cells[:3])
        if line.startswith("|") and cells[0] != "source" and not line.startswith("|-") and key not in seen:
            seen.add(key)
            yield cells


def _section(sources: str, title: str) -> list[str]:
    """The lines under a heading, until the next of its level."""
    lines_ = sources.splitlines()
    start = lines_.index(title) + 1
    ends = [number for number, line in enumerate(lines_) if number >= start and line.startswith("## ")]
    return lines_[start : ends[0] if ends else None]
