"""What the builder's commands share: options of the same name, and how errors, JSON and progress reach the terminal.

Exit codes: 0 all is well, 1 the work was done or tried and something is wrong, 2 wrong usage or input.
"""

import hashlib
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from modelfiles.errors import ModelfileError
from specialists.builder.errors import BuilderError
from specialists.builder.json_text import to_json
from specialists.errors import SpecialistError
from specialists.gguf_cursor import GgufError

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
ParentOption = Annotated[
    Path, typer.Option("--parent", help="The mixture-of-experts GGUF; of a split one the first part.")
]
MaskOption = Annotated[Path, typer.Option("--mask", help="The expert mask, as `coe mask` writes it.")]
IdsOption = Annotated[
    Literal["kept", "dropped"] | None,
    typer.Option("--ids", help="What the ids of a plain map are, where the file's name does not say it."),
]

_PIPE_COLUMNS = 200  # wide enough that no name is broken over two lines for whoever greps


def file_digest(path: Path) -> str:
    """`sha256:` and the digest of the whole file, as reports name their inputs."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def usage_errors() -> Iterator[None]:
    """What the person can mend becomes one line and exit code 2; a full or failing disk one line and exit code 1."""
    try:
        yield
    except (BuilderError, GgufError, ModelfileError, SpecialistError) as error:  # MaskError is a SpecialistError
        refuse(str(error))
    except OSError as error:
        named = f"{error.filename}: " if error.filename is not None else ""
        refuse(f"{named}{error.strerror or error}", code=1)


def refuse(message: str, *, code: int = 2) -> None:
    """End the command with one line on standard error."""
    typer.echo(f"coe: {message}", err=True)
    raise typer.Exit(code)


def progress_console(*, hidden: bool = False) -> Console:
    """Where progress bars are drawn: standard error, so that standard output stays clean for programs."""
    return Console(stderr=True, quiet=hidden)


@contextmanager
def bytes_progress(what: str, num_bytes: int, *, hidden: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar with bytes, bytes per second and time left; call what it gives with each number of bytes done."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = progress_console(hidden=hidden)
    drawn = console.is_terminal  # into a file, a bar would only leave an empty line
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not drawn) as bar:
        task = bar.add_task(what, total=num_bytes)
        yield lambda count: bar.advance(task, count)


@contextmanager
def ended_cleanly() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that temporary files are removed."""
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def report(data: Any, *, as_json: bool, table: Any) -> None:
    """Print `data` as JSON or else `table`, any rich renderable."""
    if as_json:
        typer.echo(to_json(data))
    else:
        Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS).print(table)
