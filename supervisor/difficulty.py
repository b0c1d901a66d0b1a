"""How hard a question looks: enough to choose between quantisations of one specialist, no more.

Reads only the surface (length, numbers, symbols, words that ask for several steps), so it costs microseconds and can
be read off. Off unless asked for; what it is worth on the labelled proxy is in the model card.
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supervisor.quantized import Floats

_STEPS = re.compile(
    r"\b(?:prove|derive|show that|evaluate|determine|calculate|compute|find|estimate|design|"
    r"optimi[sz]e|minimi[sz]e|maximi[sz]e|assuming|suppose|given that|such that|hence|therefore|"
    r"if and only if|respectively)\b",
    re.IGNORECASE,
)
_CLAUSES = re.compile(r"[.;:?!](?:\s|$)")
_SYMBOLS = re.compile(r"[=+*/^\\<>≤≥∫∑√_{}]")
_UNITS = re.compile(
    r"\d\s*(?:°|%|k?m|cm|mm|k?g|mol|atm|k?pa|k?j|k?w|hz|ev|n|v|ohm|l|ml|s|sec|min|hr|ft|in|lb|btu|psi)\b", re.IGNORECASE
)
_RECALL = re.compile(r"\b(?:what is|who|when|where|which|define|name|list|mean)\b", re.IGNORECASE)

FEATURES = ("log words", "log clauses", "numbers", "symbols", "units", "steps", "recall", "long words", "code")


def surface(text: str) -> Floats:
    """The features named in FEATURES, each about 0 to 5."""
    words = text.split()
    num_words = max(1, len(words))
    counts = (
        np.log1p(num_words),
        np.log1p(len(_CLAUSES.findall(text))),
        np.log1p(sum(any(letter.isdigit() for letter in word) for word in words)),
        np.log1p(len(_SYMBOLS.findall(text))),
        np.log1p(len(_UNITS.findall(text))),
        np.log1p(len(_STEPS.findall(text))),
        np.log1p(len(_RECALL.findall(text))),
        5 * sum(len(word) > 9 for word in words) / num_words,
        float("```" in text or "def " in text or ";\n" in text),
    )
    return np.array(counts, np.float32)


@dataclass(frozen=True, slots=True)
class DifficultyHead:
    """Logistic regression over `surface`."""

    weights: Floats
    bias: float

    def probability(self, text: str) -> float:
        """Of the question being hard, 0 to 1."""
        return float(1 / (1 + np.exp(-(self.weights @ surface(text) + self.bias))))


def auc(scores: NDArray[np.floating], hard: NDArray[np.bool_]) -> float:
    """Chance that a hard question scores above a routine one; ties count half."""
    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(scores))
    ranks[order] = np.arange(1, len(scores) + 1)
    for value in np.unique(scores):
        ranks[scores == value] = ranks[scores == value].mean()
    num_hard = int(hard.sum())
    return float((ranks[hard].sum() - num_hard * (num_hard + 1) / 2) / (num_hard * (len(hard) - num_hard)))
