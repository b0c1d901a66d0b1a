"""`coe supervisor …`: train a model, evaluate one, add a domain to one, ask one.

Exit code 0 only when all is well; what went wrong is one line that names the file or option and the mend.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from supervisor.artifact import load_model
from supervisor.classifier import MODEL_DIRECTORY, Classification, SupervisorClassifier
from supervisor.errors import InvalidExamples, MissingExtra, SupervisorError
from supervisor.evaluation import Report, evaluate
from supervisor.examples import read_examples
from supervisor.extension import Collisions, collisions, fit_extension, save_extension
from supervisor.plots import to_html

app = typer.Typer(
    name="supervisor",
    help="The classifier that decides who answers: train it, evaluate it, add domains, ask it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ModelOption = Annotated[
    Path, typer.Option("--model", help="The model directory (default: the one that ships).", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
EmbedderOption = Annotated[
    str,
    typer.Option(
        "--embedder", envvar="COE_EMBEDDER", help="onnx, or sentence-transformers:<model>.", show_default=False
    ),
]


@app.command()
def train(
    data: Annotated[
        Path, typer.Option("--data", help="Folder with train.jsonl, and if there chat_dev.jsonl, dev.jsonl.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Where the model directory is written.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="Few examples and the shipped encoder: seconds, no torch.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Same data, same seed: same model.")] = 17,
    epochs: Annotated[float, typer.Option("--epochs", help="Passes of the encoder over the questions.")] = 3.5,
    base: Annotated[Path | None, typer.Option("--base", help="A sentence-transformers model to start from.")] = None,
    encoder: Annotated[
        Path | None, typer.Option("--encoder", help="A trained encoder to keep: only heads are fitted.")
    ] = None,
    embedder: EmbedderOption = "",
    as_json: JsonOption = False,
) -> None:
    """Train a model directory (minutes on one core; see docs/supervisor.md)."""
    with _one_line_errors():
        try:
            from supervisor.embedder import SENTENCE_TRANSFORMERS  # scikit-learn and friends are for training only
            from supervisor.training import train as run
            from supervisor.training_data import Recipe, read_data
        except ImportError as error:
            raise MissingExtra(
                f"training needs more than serving ({error}); pip install -c constraints.txt '.[train]'"
            ) from error

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    chosen = embedder.removeprefix(SENTENCE_TRANSFORMERS) if embedder.startswith(SENTENCE_TRANSFORMERS) else ""
    recipe = Recipe(seed=seed, epochs=epochs, quick=quick, embedder=chosen)
    with _one_line_errors():
        report = run(read_data(data, recipe), out, recipe, base=base, encoder=encoder)
        version = load_model(out).version
    if as_json:
        typer.echo(
            json.dumps({"model": str(out), "version": version, "dev": None if report is None else asdict(report)})
        )
        return
    typer.echo(f"wrote {out}, version {version}")
    if report is not None:
        _print_report(report)


@app.command("eval")
def evaluate_file(
    file: Annotated[Path, typer.Argument(help='JSON lines of {"text", "domain": name or list of acceptable names}.')],
    model: ModelOption = MODEL_DIRECTORY,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for report.html and report.json.")] = None,
    flips: Annotated[int, typer.Option("--flips", help="So many texts are altered to see whether answers hold.")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Of the alterations.")] = 17,
    embedder: EmbedderOption = "",
    as_json: JsonOption = False,
) -> None:
    """Evaluate a model on labelled questions."""
    with _one_line_errors():
        examples = read_examples(file)
        report = evaluate(
            SupervisorClassifier.load(model, embedder=embedder), examples, num_flip_examples=flips, seed=seed
        )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.html").write_text(to_html(report, file.name), encoding="utf-8")
        (out / "report.json").write_text(report.to_json() + "\n", encoding="utf-8")
    if as_json:
        typer.echo(report.to_json())
        return
    _print_report(report)
    if out is not None:
        typer.echo(f"wrote {out / 'report.html'} and report.json")


@app.command("add-domain")
def add_domain(
    name: Annotated[str, typer.Argument(help="The new domain: letters, digits, - and _.")],
    examples: Annotated[
        Path, typer.Option("--examples", help="One question per line, or JSON lines with text; 5 to 20.")
    ],
    model: ModelOption = MODEL_DIRECTORY,
    embedder: EmbedderOption = "",
    as_json: JsonOption = False,
) -> None:
    """Teach a model a new domain from a few examples, without retraining, and say what it collides with."""
    with _one_line_errors():
        file, found = extend(name, read_lines(examples), model, embedder=embedder)
    if as_json:
        typer.echo(json.dumps({"domain": name, "file": str(file), **asdict(found)}))
        return
    typer.echo(f"{name}: {found.recognised:.0%} of its examples are recognised from the others; wrote {file}")
    for domain, count in found.examples_look_like:
        typer.echo(f"  before, {count} of the examples were taken for {domain}")
    for domain, share in found.takes_from:
        typer.echo(f"  collides with {domain}: takes {share:.1%} of its stored examples")


def extend(name: str, texts: list[str], directory: Path, *, embedder: str = "") -> tuple[Path, Collisions]:
    """Fits and saves an extension; returns its file and what it collides with.

    Raises InvalidExamples for a bad or taken name or too few examples, InvalidModel for an unreadable directory.
    """
    model = load_model(directory)
    if not name.replace("-", "").replace("_", "").isalnum() or name in model.domains:
        raise InvalidExamples(f"NAME: {name!r} must be letters, digits, - or _, and none of {', '.join(model.domains)}")
    classifier = SupervisorClassifier.load(directory, embedder=embedder)
    bank = model.heads.neighbours.bank
    import numpy as np

    vectors = (
        np.stack([classifier.embed(text) for text in texts]) if texts else np.zeros((0, bank.shape[1]), np.float32)
    )
    extension = fit_extension(name, vectors, texts, bank)
    bank_domains = [model.domains[label] for label in model.heads.neighbours.labels.tolist()]
    taken_for = [classifier.classify_text(text).domain for text in texts]
    return save_extension(extension, directory), collisions(extension, bank, bank_domains, taken_for)


def read_lines(file: Path) -> list[str]:
    """The texts of a file of examples: JSON lines with `text`, or plain lines. Raises InvalidExamples."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise InvalidExamples(f"--examples: {error}") from error
    return [_text_of(line, f"{file}:{number}") for number, line in enumerate(lines, 1)]


def _text_of(line: str, place: str) -> str:
    if not line.startswith("{"):
        return line
    try:
        text = json.loads(line).get("text")
    except json.JSONDecodeError as error:
        raise InvalidExamples(f"{place}: starts like JSON and is not ({error.msg})") from error
    if not isinstance(text, str) or not text.strip():
        raise InvalidExamples(f"{place}: `text` is missing or empty")
    return text


@app.command()
def classify(
    text: Annotated[str, typer.Argument(help="What a user might say.")],
    model: ModelOption = MODEL_DIRECTORY,
    embedder: EmbedderOption = "",
    as_json: JsonOption = False,
) -> None:
    """Ask the supervisor about one message, and why."""
    with _one_line_errors():
        answer = SupervisorClassifier.load(model, embedder=embedder).classify_text(text)
    if as_json:
        typer.echo(json.dumps(asdict(answer), ensure_ascii=False))
        return
    _print_answer(answer)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except (SupervisorError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


def _print_answer(answer: Classification) -> None:
    typer.echo(f"{answer.domain} ({answer.confidence:.0%}): {answer.reason}")
    typer.echo("  likeliest: " + ", ".join(f"{name} {share:.0%}" for name, share in answer.probabilities[:4]))
    if answer.evidence.cue_words:
        typer.echo("  cue words: " + ", ".join(answer.evidence.cue_words))
    for near in answer.evidence.nearest:
        typer.echo(f"  near: {near.domain} {near.similarity:.2f}  {near.excerpt or near.source}")
    typer.echo(f"  model {answer.model_version}")


def _print_report(report: Report) -> None:
    table = Table(show_header=False, title=f"{report.num} examples, model {report.model_version}")
    low, high = report.accuracy_low, report.accuracy_high
    table.add_row("accuracy", f"{report.accuracy:.1%} (95 %: {low:.1%} to {high:.1%})")
    table.add_row("macro-F1", f"{report.macro_f1:.3f}")
    table.add_row("right domain among the first two", f"{report.top2_accuracy:.1%}")
    table.add_row("calibration error", f"{report.calibration_error:.3f}")
    table.add_row("wrong specialist / lost to general", f"{report.wrong_specialist:.1%} / {report.lost_work:.1%}")
    if report.general_kept is not None:
        table.add_row("small talk kept by general", f"{report.general_kept:.1%}")
    table.add_row(
        "conformal coverage, mean size", f"{report.conformal_coverage:.1%}, {report.conformal_size:.2f} domains"
    )
    for name, rate in report.flips.items():
        table.add_row(f"flips under {name}", f"{rate:.1%}")
    table.add_row("time per text", f"p50 {report.milliseconds_p50:.1f} ms, p95 {report.milliseconds_p95:.1f} ms")
    Console().print(table)
