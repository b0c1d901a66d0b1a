"""Where a terminal chat is shown: `RichScreen` for a person, `PlainScreen` for a pipe."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown

_FENCE = re.compile(r"^\s{0,3}(```|~~~)", re.MULTILINE)


def finished_blocks(text: str) -> int:
    """How many characters of `text` are whole Markdown blocks: up to its last blank line outside a code fence."""
    end = text.rfind("\n\n")
    while end != -1 and len(_FENCE.findall(text, 0, end)) % 2:
        end = text.rfind("\n\n", 0, end)
    return 0 if end == -1 else end + 2


@dataclass(slots=True)
class RichScreen:
    """Renders Markdown as it grows.

    Whole blocks are printed for good and only the last, unfinished one is redrawn: an answer taller than the
    terminal scrolls as it should.
    """

    console: Console = field(default_factory=Console)

    def ask(self) -> str:
        return self.console.input("[bold cyan]> [/]")

    def show_answer(self, pieces: Iterator[str]) -> None:
        rest = ""
        try:
            with Live(console=self.console, auto_refresh=False, transient=True) as live:
                for piece in pieces:
                    rest += piece
                    if end := finished_blocks(rest):
                        live.update("", refresh=True)
                        self.console.print(Markdown(rest[:end]))
                        rest = rest[end:]
                    live.update(Markdown(rest), refresh=True)
        finally:  # also what had come when the answer was stopped or broke off
            if rest.strip():
                self.console.print(Markdown(rest))

    def note(self, text: str) -> None:
        self.console.print(text, style="dim", markup=False, highlight=False)

    def complain(self, text: str) -> None:
        self.console.print(text, style="red", markup=False, highlight=False)


@dataclass(slots=True)
class PlainScreen:
    """Questions in, answers out, one after the other; what is not an answer goes to `errors`, or nowhere."""

    questions: TextIO = field(default_factory=lambda: sys.stdin)
    answers: TextIO = field(default_factory=lambda: sys.stdout)
    errors: TextIO = field(default_factory=lambda: sys.stderr)

    def ask(self) -> str:
        line = self.questions.readline()
        if not line:
            raise EOFError
        return line

    def show_answer(self, pieces: Iterator[str]) -> None:
        for piece in pieces:
            self.answers.write(piece)
            self.answers.flush()
        self.answers.write("\n")
        self.answers.flush()

    def note(self, text: str) -> None:
        """A pipe wants answers alone."""

    def complain(self, text: str) -> None:
        self.errors.write(f"{text}\n")
