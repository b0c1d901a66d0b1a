"""Whether a user's turn names a topic of its own, or only leans on what was said before.

Decided by words alone, in a few languages; in doubt a turn counts as one with a topic. Knows no conversation.
"""

import re

LONGEST_CHARS = 120
MOST_WORDS = 12  # of a turn without any word of content
MOST_LEANING_WORDS = 5  # of a turn with one word of content that leans on what was said ("and in python?", "prove it")

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_FORMULA = re.compile(r"[=+*/^×÷√∫∑<>\\]")  # "12*7=" has no words and a topic all the same

_CONNECTIVES_LISTED = "and but or so also then in with without for und oder aber auch et mais ou y o pero en"
_POINTERS_LISTED = "it that this those these them"
_EMPTY_LISTED = """
a an the this that these those it its it's that's there here one ones some any other others another same all both
i i'm i'd me my we us our you your he she they them their who whom whose
is are was were be been being am do does did doing done don't doesn't didn't isn't aren't wasn't has have had
can could can't will would won't shall should may might must let lets let's
and or but so also then than as if else because since though however either neither not no nor yes yep yeah nope
in on at to of for from by with without into onto over under about between through out up down off per
what what's which when where why how how's again more less most least much many few little bit lot very too just
only even still already yet now later first second third next last previous above below before after back
ok okay sure right wrong true false correct exactly really actually maybe perhaps please thanks thank thx ty cheers
great good nice cool perfect awesome well hi hello hey hm hmm huh oh ah sorry pardon morning evening afternoon
explain elaborate continue go on keep going proceed repeat rephrase clarify expand summarize summarise shorten
say tell show give make try do get see mean means meant think know understand need want like work works
example examples instance detail details detailed step steps simpler simple simply shorter short longer long
briefly brief better worse different differently another way ways word words sentence sentences line lines point
points part parts thing things something anything nothing everything else answer reason question source sources
warum wieso weshalb wie was wer wo wann ja nein doch danke bitte weiter mehr noch genauer nochmal beispiel
pourquoi comment quoi oui non merci encore plus exemple continuez continue
por qué porque cómo como sí si gracias más otra vez ejemplo continúa
und oder aber auch et mais ou y o pero en
为什么 继续 谢谢 好的 なぜ 続けて почему спасибо дальше
"""
_CONNECTIVES = frozenset(_CONNECTIVES_LISTED.split())
_POINTERS = frozenset(_POINTERS_LISTED.split())
_EMPTY_WORDS = frozenset(_EMPTY_LISTED.split())


def is_follow_up(text: str) -> bool:
    """True for a short turn without a topic of its own ("why?", "can you say that again?", "and in python?").

    1. Nothing but signs and numbers, and no formula.
    2. At most twelve words, none of them of content.
    3. At most five words, one of them of content, that lean on what was said: they begin with a connective ("and",
       "what about") or point back ("it", "that").
    """
    if len(text) > LONGEST_CHARS or _FORMULA.search(text):
        return False
    words = _WORD.findall(text.casefold().replace("’", "'"))
    num_content = sum(word not in _EMPTY_WORDS for word in words)
    if num_content == 0:  # 1, 2
        return len(words) <= MOST_WORDS
    return num_content == 1 and len(words) <= MOST_LEANING_WORDS and _leans(words)  # 3


def _leans(words: list[str]) -> bool:
    is_connected = words[0] in _CONNECTIVES or (words[0] in ("what", "how") and words[1:2] == ["about"])
    return is_connected or not _POINTERS.isdisjoint(words)
