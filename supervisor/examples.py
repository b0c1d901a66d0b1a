"""Labelled questions: reading them, the ones that come with the project, and splitting them without leaks."""

import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from supervisor.errors import InvalidExamples

CHAT_QUESTIONS = Path(__file__).with_name("chat_questions.txt")
CHAT_SOURCE = "college-of-experts chat questions"
LANGUAGE_SOURCE = "college-of-experts language questions"
OWN_LICENSE = "project"

_CODING_LANGUAGES = (
    *("C", "C++", "C#", "Java", "Kotlin", "Swift", "Go", "Rust", "Ruby", "Perl", "PHP", "Scala", "Haskell", "OCaml"),
    *("F#", "Elixir", "Erlang", "Clojure", "Lua", "Julia", "R", "MATLAB", "Fortran", "COBOL", "Bash", "PowerShell"),
    *("SQL", "PostgreSQL", "Dart", "Objective-C", "Assembly", "Visual Basic", "VBA", "Lisp", "Prolog", "Zig"),
)
_WEB_LANGUAGES = ("JavaScript", "TypeScript", "React", "Vue", "Angular", "Svelte", "Node.js", "HTML", "CSS", "jQuery")
_PYTHON_LANGUAGES = ("Python", "Python 3", "pandas", "numpy", "Django", "matplotlib", "pytorch")
_TASKS = (
    "write a {} program that reads numbers and prints their average",
    "how do I debug this {} code?",
    "can you explain this {} error message to me",
    "Write me some {} code for a small inventory system.",
    "what are best practices in {} for a beginner",
    "show me an example of a loop in {}",
    "{} question: how do I handle dates",
    "convert this function to {}",
    "as a senior {} developer, review the following snippet",
    "how to sort records by two fields in {}",
)
_TASKS_PER_LANGUAGE = 5


@dataclass(frozen=True, slots=True)
class Example:
    """`domains` are those acceptable as an answer; training examples have exactly one."""

    text: str
    domains: tuple[str, ...]
    source: str = ""
    license: str = ""

    @property
    def domain(self) -> str:
        return self.domains[0]


def read_examples(file: Path) -> list[Example]:
    """One JSON object per line: {"text", "domain": name or list of acceptable names, ["source"], ["license"]}.

    Raises InvalidExamples with the line's number.
    """
    lines = file.read_text(encoding="utf-8").splitlines()
    examples = [_parsed(line, f"{file}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not examples:
        raise InvalidExamples(f"{file}: holds no example; write one JSON object with text and domain per line")
    return examples


def _parsed(line: str, place: str) -> Example:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidExamples(f"{place}: not JSON ({error.msg})") from error
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise InvalidExamples(f"{place}: `text` is missing or empty")
    return Example(text, _domains(row.get("domain"), place), str(row.get("source", "")), str(row.get("license", "")))


def _domains(given: object, place: str) -> tuple[str, ...]:
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise InvalidExamples(f"{place}: `domain` must be a name or a list of acceptable names")
    return tuple(names)


def own_examples() -> list[Example]:
    """The project's own questions: chat register, and one family per programming language."""
    return [*chat_questions(CHAT_QUESTIONS.read_text(encoding="utf-8")), *language_questions()]


def chat_questions(text: str) -> list[Example]:
    """Sections "[domain]", one question per line, "#" for remarks, a written \\n for a line break."""
    examples = []
    domain = ""
    for line in text.splitlines():
        if line.startswith("[") and line.endswith("]"):
            domain = line[1:-1]
        elif line.strip() and not line.startswith("#"):
            examples.append(Example(line.replace("\\n", "\n"), (domain,), CHAT_SOURCE, OWN_LICENSE))
    return examples


def language_questions() -> list[Example]:
    """A named language decides between coding, python and web whatever the task; each gets its share of the tasks."""
    rng = random.Random(7)  # noqa: S311 - repeatable, not secret
    families = (("coding", _CODING_LANGUAGES), ("web", _WEB_LANGUAGES), ("python", _PYTHON_LANGUAGES))
    return [
        Example(task.format(language), (domain,), LANGUAGE_SOURCE, OWN_LICENSE)
        for domain, languages in families
        for language in languages
        for task in rng.sample(_TASKS, _TASKS_PER_LANGUAGE)
    ]


def split_by_source(examples: Sequence[Example], share: float, *, seed: int) -> tuple[list[Example], list[Example]]:
    """(kept, held out): the same share of every (domain, source) is held out, chosen by digest, not by place."""
    groups: defaultdict[tuple[str, str], list[Example]] = defaultdict(list)
    for example in examples:
        groups[example.domain, example.source].append(example)
    kept: list[Example] = []
    held_out: list[Example] = []
    for key in sorted(groups):
        group = sorted(groups[key], key=lambda example: _digest(example.text, seed))
        num_held_out = round(len(group) * share)
        held_out.extend(group[:num_held_out])
        kept.extend(group[num_held_out:])
    return kept, held_out


def digest_of(examples: Iterable[Example]) -> str:
    """SHA-256 over texts and domains, in order: names a training set in the card."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(f"{example.text}\0{','.join(example.domains)}\0".encode())
    return digest.hexdigest()


def _digest(text: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\0{text}".encode()).hexdigest()
