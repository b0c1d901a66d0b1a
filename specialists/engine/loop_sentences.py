"""Sentences that come again word for word: what tells a loop with edits from a case after case of the same form.

A pure function over text. Numbers that count a line are no part of its sentence.
"""

import re

_SENTENCE = re.compile(r"[^\n]+?(?:[.!?…]+[\"'”’»)*_]*(?=\s)|[。！？]|(?=\n)|\Z)")
_COUNTER = re.compile(r"(?:[\W\d_]*\w{1,8} \d{1,4}[.):])?[\W\d_]*")
_LEAST_CHARS = 16  # "Yes." and "Go on." may be said often


def repeated_share(text: str, newest: int) -> float:
    """The share (0 to 1) of the last `newest` characters that lies in sentences said before in `text`.

    The last sentence may still be incomplete; what there is of it must have begun a sentence before.
    """
    start = max(0, len(text) - newest)
    said: set[str] = set()
    again = 0
    for found in _SENTENCE.finditer(text):
        sentence = _COUNTER.sub("", found[0], count=1).rstrip()
        if len(sentence) < _LEAST_CHARS:
            continue
        is_last = found.end() == len(text)
        if sentence in said or (is_last and any(other.startswith(sentence) for other in said)):
            again += max(0, found.end() - max(start, found.start()))
        said.add(sentence)
    return again / max(1, len(text) - start)
