"""What a classifier learns from one corrected question, and the frozen questions that say whether it was harmed.

A lesson is one more prototype of its domain and one more stored neighbour; the linear and the lexical head need
training and stay as they are. Pure: models and extensions come in, new ones go out. Who may teach, and when what was
learnt is used, is for `feedback`.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from supervisor.artifact import Model, StoredExample
from supervisor.augmentation import dressed
from supervisor.conversation import Turn
from supervisor.examples import own_examples
from supervisor.extension import Extension
from supervisor.heads import NeighbourHead, PrototypeHead
from supervisor.quantized import Floats

SOURCE = "feedback"
BENCHMARK_STEP = 5  # every so many of the project's own questions is asked
_SEED = 23


def taught(model: Model, vector: Floats, domain: str) -> Model:
    """`model` with `vector` (width,) as one more example of its trained `domain`; nobody's words are kept."""
    label = model.domains.index(domain)
    heads = replace(
        model.heads,
        neighbours=_more_neighbours(model.heads.neighbours, vector, label),
        prototypes=_more_prototypes(model.heads.prototypes, vector, label),
    )
    return replace(model, heads=heads, examples=(*model.examples, StoredExample(SOURCE, "")))


def extended(extension: Extension, vector: Floats) -> Extension:
    """An added domain with one more example, without its words."""
    return replace(extension, vectors=np.vstack([extension.vectors, vector]), texts=(*extension.texts, ""))


def _more_neighbours(head: NeighbourHead, vector: Floats, label: int) -> NeighbourHead:
    return replace(head, bank=np.vstack([head.bank, vector]), labels=np.append(head.labels, label))


def _more_prototypes(head: PrototypeHead, vector: Floats, label: int) -> PrototypeHead:
    return replace(head, centres=np.vstack([head.centres, vector]), labels=np.append(head.labels, label))


class Answers(Protocol):
    """As much of a classifier as a benchmark needs."""

    @property
    def domains(self) -> Sequence[str]: ...

    def classify(self, conversation: Sequence[Turn], /) -> Any: ...


def frozen_benchmark() -> Callable[[Answers], list[bool]]:
    """Asks the project's own questions, dressed up by a fixed seed so that none is known word for word.

    Questions of domains that a classifier does not have are left out.
    """
    rng = random.Random(_SEED)  # noqa: S311 - repeatable, not secret
    asked = [(dressed(one.text, rng), one.domain) for one in own_examples()[::BENCHMARK_STEP]]

    def ask(classifier: Answers) -> list[bool]:
        return [
            classifier.classify((Turn("user", text),)).domain == domain
            for text, domain in asked
            if domain in classifier.domains
        ]

    return ask
