"""How often a prompt itself asks for something to be said: repetition that was ordered is no loop.

A pure function over the user's words. It looks for a sentence that tells the model to write or repeat and that names a
number of times, lines, copies or digits, in some dozen languages, or that wants one quoted thing for ever. Missing
such a request is safe for all but long runs, and reading one into a prompt only raises the guard's limits: nothing
here lifts them.
"""

import re

MOST_REPEATS = 10_000
_ENDLESS_REPEATS = 1_000
_READ_CHARS = 20_000  # of a long prompt, from its end

_SENTENCE_END = re.compile(r"(?<=[^\d\s])[.!?](?=\s)|\n|[。！？]")
_ORDER = re.compile(
    r"\b(?:repeat|say|write|print|type|output|chant|sing|recite|copy|display|generate|give|produce|draw|fill|create|make"
    r"|compute|wiederhol|schreib|sag|tipp|dis|écri|répèt|répét|copie|escrib|repit|repet|escrev|dig[ao]|scriv|ripet"
    r"|herhaal|schrijf|zeg|skriv|upprepa|gentag|napisz|powtórz|напиши|повтори|скажи|yaz|tekrarla)\w*"
    r"|写|寫|重复|重複|说|說|書い|繰り返|言っ|써|반복|말해|लिख|اكتب|كرر",
    re.IGNORECASE,
)
_UNITS = (
    "times|time|x|×|mal|fois|veces|vez|vezes|volte|раза?|keer|gånger|gange|razy?|kez|kere|defa|बार|مرة|مرات"
    "|次|遍|回|번|lines|rows|copies|repetitions|zeros|zeroes|ones|digits|places|decimals|zeilen|stellen|nullen"
    "|lignes|líneas|linhas|righe"
)
_NUMBER = r"(?<!\d)(?:\d{1,3}(?:[ ,.’']\d{3}){1,2}|\d{1,7})(?!\d)"  # bounded: prompts may be all digits
_WORDS = {
    "ten": 10, "twelve": 12, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60,
    "seventy": 70, "eighty": 80, "ninety": 90, "hundred": 100, "thousand": 1000,
}  # fmt: skip
# "17 times 23" and "2 times as much" multiply; they repeat nothing.
_COUNT = re.compile(
    rf"(?:(?P<number>{_NUMBER})|\b(?P<word>{'|'.join(_WORDS)}))[\s-]{{0,3}}(?:decimal |more )?(?:{_UNITS})"
    r"(?![\w])(?!\s+(?:[\d(]|(?:as|more|larger|greater|bigger|the)\b|[a-z]\b))",
    re.IGNORECASE,
)
_GRID = re.compile(r"\b(\d{1,3})\s*(?:x|×|by)\s*(\d{1,3})\b", re.IGNORECASE)
_ENDLESS = re.compile(
    r"\b(?:over and over|again and again|for ?ever|non-?stop|endlessly|indefinitely|infinitely|immer wieder|endlos"
    r"|sans arrêt|à l'infini|sin parar|all'infinito)\b|不停|无限|永遠",
    re.IGNORECASE,
)
_QUOTED = re.compile(
    r"[\"'“”‘’«»„`「」]\S|\bthe (?:word|letter|phrase|sentence|line|number|digit|emoji)\b", re.IGNORECASE
)


def requested_repeats(prompt: str) -> int | None:
    """The number of repetitions that `prompt` (the last user turn's text) asks for; None when it asks for none."""
    found = [count for sentence in _sentences(prompt) if _ORDER.search(sentence) for count in _counts(sentence)]
    return min(max(found), MOST_REPEATS) if found else None


def _sentences(prompt: str) -> list[str]:
    return _SENTENCE_END.split(prompt[-_READ_CHARS:])


def _counts(sentence: str) -> list[int]:
    found = [_value(match) for match in _COUNT.finditer(sentence)]
    found += [int(rows) * int(columns) for rows, columns in _GRID.findall(sentence)]
    if _ENDLESS.search(sentence) and _QUOTED.search(sentence):
        found.append(_ENDLESS_REPEATS)
    return [count for count in found if count > 1]


def _value(match: re.Match[str]) -> int:
    if match["word"]:
        return _WORDS[match["word"].lower()]
    return int("".join(filter(str.isdecimal, match["number"])))
