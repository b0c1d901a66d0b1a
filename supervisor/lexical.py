"""The lexical model: hashed words, word pairs and letter groups, with named programming languages as cues of their own.

It catches what the encoder blurs ("Haskell" against "Python") and is never asked alone: one polite sentence is enough
to confuse it. Features are counted in `NUM_BUCKETS` buckets by CRC-32, so no vocabulary is stored; weights are int8.
"""

import re
import zlib
from collections import Counter, defaultdict
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from supervisor.quantized import Bytes, Floats, times

NUM_BUCKETS = 1 << 17
LETTER_GROUPS = (3, 4, 5)
MAX_CHARS = 2000
_WORD_CACHE = 8192

_WORD = re.compile(r"[a-z0-9_+#]+|[^\sa-z0-9_+#]")
_CUES = {
    "coding": re.compile(
        r"(?<![\w+#])(?:c\+\+|c#|f#|objective-c|java|kotlin|swift|golang|rust|ruby|perl|php|scala|haskell|ocaml|elixir|erlang|"
        r"clojure|lua|julia|matlab|fortran|cobol|bash|powershell|sql|mysql|postgres(?:ql)?|sqlite|dart|flutter|vba|prolog|"
        r"verilog|vhdl|solidity|android|linq|jvm|gcc|cmake|makefile|git|awk|sed|zig|delphi|assembly|unity|arduino|regex)(?![\w+#])"
    ),
    "python": re.compile(
        r"(?<!\w)(?:python3?|pandas|numpy|scipy|matplotlib|django|flask|pip|pytorch|sklearn|scikit-learn|jupyter|"
        r"dataframe|tkinter|pygame|pytest|asyncio|def \w+\(|import \w+ as|elif|__init__)(?!\w)"
    ),
    "web": re.compile(
        r"(?<!\w)(?:javascript|typescript|react(?:js)?|vue(?:js)?|angular|svelte|next\.?js|node(?:\.?js)?|npm|html5?|css3?|"
        r"jquery|dom|tailwind|webpack|express\.?js|redux|frontend|front-end|usestate|useeffect|console\.log|browser|website)(?!\w)"
    ),
    "c-like code": re.compile(
        r"#include|int main|public static|std::|fn main|println!|->\w|select .+ from\b|void \w+\("
    ),
    "script code": re.compile(r"const \w+ =|let \w+ =|=> ?\{|document\.|</\w+>|function ?\w*\("),
    "python code": re.compile(r"^\s*def \w+\(.*\):|^\s*(?:from|import) \w+|print\(|self\.", re.MULTILINE),
    "formula": re.compile(r"\\frac|\$[^$]+\$|\bx\^?2\b|=\s*\?|\d\s*[+*/^×]\s*\d|∫|√|\bdx\b"),
    "choices": re.compile(r"^[A-J][.)] ", re.MULTILINE | re.IGNORECASE),
}
_CUE_WEIGHT = 3.0


class LexicalModel:
    """Linear over hashed features. `weights` (classes, buckets) int8 with `scales` per class, `idf` per bucket."""

    def __init__(self, weights: Bytes, scales: Floats, biases: Floats, idf: Floats) -> None:
        self._by_bucket = np.ascontiguousarray(weights.T)  # one row per bucket: a text touches few
        self._scales, self._biases, self._idf = scales, biases, idf

    def margins(self, text: str) -> Floats:
        """One signed margin per class, shape (classes,)."""
        buckets, values = weighted_features(text, self._idf)
        margins: Floats = times(self._by_bucket[buckets].astype(np.float32).T, values) * self._scales + self._biases
        return margins

    def cue_words(self, text: str, label: int, *, most: int = 5) -> list[str]:
        """The words of the text that speak most for class `label`, strongest first."""
        total: defaultdict[str, float] = defaultdict(float)
        norm = np.linalg.norm(weighted_features(text, self._idf)[1]) or 1.0
        for word in dict.fromkeys(_words(text)):
            if not any(letter.isalpha() for letter in word):
                continue
            for bucket, count in _word_features(word):
                weight = float(self._by_bucket[bucket, label]) * float(self._scales[label])
                total[word] += weight * float(self._idf[bucket]) * count / float(norm)
        strongest = sorted(total.items(), key=lambda pair: -pair[1])[:most]
        return [word for word, weight in strongest if weight > 0]


def weighted_features(text: str, idf: Floats) -> tuple[NDArray[np.int64], Floats]:
    """(buckets, values): sub-linear counts times idf, unit length; each bucket once, in rising order."""
    counts = features(text)
    buckets = np.fromiter(sorted(counts), np.int64, len(counts))
    values = np.array([counts[bucket] for bucket in buckets.tolist()], np.float32)
    values = (1 + np.log(values)) * idf[buckets]
    norm = float(np.linalg.norm(values))
    return buckets, (values / norm if norm > 0 else values).astype(np.float32)


def features(text: str) -> dict[int, float]:
    """Bucket → count, of words, pairs of neighbours, letter groups within words, and cues."""
    lowered = text[:MAX_CHARS].lower()
    words = _words(lowered)
    counts: dict[int, float] = {}
    for word in words:
        for bucket, count in _word_features(word):
            counts[bucket] = counts.get(bucket, 0.0) + count
    for left, right in pairwise(words):
        bucket = _bucket(f"2 {left} {right}")
        counts[bucket] = counts.get(bucket, 0.0) + 1.0
    for cue in cues(lowered):
        counts[_bucket(f"cue {cue}")] = _CUE_WEIGHT
    return counts


def cues(lowered: str) -> list[str]:
    """Names of the cues a lower-cased text holds: languages by family, code by look, formulas, answer choices."""
    return [name for name, pattern in _CUES.items() if pattern.search(lowered)]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


@lru_cache(maxsize=_WORD_CACHE)
def _word_features(word: str) -> tuple[tuple[int, float], ...]:
    counts = Counter([_bucket(f"1 {word}")])
    padded = f" {word} "
    for size in LETTER_GROUPS:
        counts.update(_bucket(f"l {padded[at : at + size]}") for at in range(len(padded) - size + 1))
    return tuple((bucket, float(count)) for bucket, count in counts.items())


def _bucket(feature: str) -> int:
    return zlib.crc32(feature.encode()) % NUM_BUCKETS
