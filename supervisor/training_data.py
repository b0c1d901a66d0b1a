"""What a training run starts from: the recipe, the labelled questions and their split, and what may be kept of them."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.artifact import StoredExample
from supervisor.augmentation import dressed
from supervisor.domains import GENERAL
from supervisor.errors import InvalidExamples
from supervisor.examples import Example, own_examples, read_examples, split_by_source
from supervisor.fitting import HeadOptions

HELD_OUT = 0.08
QUICK_PER_DOMAIN = 60
EXCERPT_CHARS = 90
_PRIVATE_SOURCES = ("CounselChat", "K-QA")  # questions about real people's health
_SHOWN_LICENSES = ("MIT", "Apache-2.0", "CC-BY-4.0", "CC-BY-3.0", "project")  # share-alike texts are not shipped


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a training run may vary. `embedder` other than "" trains heads for that encoder, without fine-tuning."""

    seed: int = 17
    epochs: float = 3.5
    quick: bool = False
    embedder: str = ""
    heads: HeadOptions = field(default_factory=HeadOptions)


@dataclass(frozen=True, slots=True)
class Data:
    """`fit` and `held_out` are labelled training questions; `chat` calibrates; `dev` is only reported on."""

    fit: tuple[Example, ...]
    held_out: tuple[Example, ...]
    chat: tuple[Example, ...]
    dev: tuple[Example, ...]

    @property
    def labelled(self) -> tuple[Example, ...]:
        return (*self.fit, *self.held_out)

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(sorted({example.domain for example in self.labelled} | {GENERAL}))


def read_data(directory: Path, recipe: Recipe) -> Data:
    """Raises InvalidExamples when train.jsonl is missing or malformed."""
    file = directory / "train.jsonl"
    if not file.is_file():
        raise InvalidExamples(f"--data: {file} does not exist; put labelled questions there, one JSON object per line")
    labelled = [*read_examples(file), *own_examples()]
    if recipe.quick:
        labelled = few_of_each(labelled, QUICK_PER_DOMAIN, seed=recipe.seed)
    fit, held_out = split_by_source(labelled, HELD_OUT, seed=recipe.seed)
    return Data(
        tuple(fit), tuple(held_out), _optional(directory / "chat_dev.jsonl"), _optional(directory / "dev.jsonl")
    )


def few_of_each(examples: Sequence[Example], num: int, *, seed: int) -> list[Example]:
    """At most `num` of every domain, drawn by seed, in their old order."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for at, example in enumerate(examples):
        groups[example.domain].append(at)
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    kept = {at for group in groups.values() for at in rng.sample(group, min(num, len(group)))}
    return [example for at, example in enumerate(examples) if at in kept]


def dressed_examples(examples: Sequence[Example], *, seed: int) -> list[Example]:
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    return [Example(dressed(one.text, rng), one.domains, one.source, one.license) for one in examples]


def stored_example(example: Example) -> StoredExample:
    """The source, and a short excerpt unless the licence is share-alike or the question is somebody's own trouble."""
    license_name = example.license.split(" ")[0]
    is_share_alike = "-SA-" in example.license
    may_show = (
        license_name in _SHOWN_LICENSES and not is_share_alike and not example.source.startswith(_PRIVATE_SOURCES)
    )
    line = " ".join(example.text.split())
    excerpt = line if len(line) <= EXCERPT_CHARS else line[:EXCERPT_CHARS].rstrip() + "…"
    return StoredExample(example.source, excerpt if may_show else "")


def _optional(file: Path) -> tuple[Example, ...]:
    return tuple(read_examples(file)) if file.is_file() else ()
