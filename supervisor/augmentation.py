"""What people do to a question without changing it: slips, manners, roles, cut ends, pasted logs.

Training shows the encoder each question in such clothes and asks for the same answer; evaluation counts how often
the answer flips. Every function takes its own random generator, so a run can be repeated.
"""

import random
from collections.abc import Callable

Alteration = Callable[[str, random.Random], str]

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_POLITE = (
    "hey, quick question – can you help me with this please? ",
    "Hello! ",
    "Hi there, ",
    "Good morning, I hope you are doing well. ",
    "Could you please help me with the following? ",
    "Please, ",
    "Hi, I was wondering if you could help me out. ",
    "Thanks in advance for your help! ",
    "Sorry to bother you, but I have a question. ",
    "I would be very grateful for an answer to this: ",
)
_ROLES = (
    "You are a helpful assistant. ",
    "You are an expert in this field. ",
    "Act as an experienced professional. ",
    "You are a world-class expert. Think carefully and answer. ",
    "As an expert, answer the following. ",
    "I want you to act as a knowledgeable teacher. ",
    "You are an AI assistant that gives precise answers. ",
    "Imagine you are a specialist with 20 years of experience. ",
    "System: you are a friendly chatbot. User: ",
)
_CHATTER = (
    "My boss asked me to find this out: ",
    "For my homework: ",
    "I have been reading about this lately. ",
    "Not sure whether you know this, but ",
    "Okay so, ",
    "Answer in detail. ",
    "Can you tell me, ",
    "In your own words: ",
    "You are ChatGPT, a large language model trained to follow instructions. ",
    "Respond as briefly as you can. ",
    "### Instruction:\n",
    "Question: ",
    "Let's think step by step. ",
    "I'm a bit confused about something. ",
    "You talk like an experienced colleague and give examples. ",
    "This may be a silly one, ",
)
_LEVELS = ("INFO", "DEBUG", "WARN", "ERROR")
_UNITS = ("scheduler", "http.server", "db.pool", "worker-3", "cache", "auth", "metrics", "kernel", "queue", "proxy")
_EVENTS = (
    "connection accepted from 10.0.{}.{}",
    "request {} finished in {} ms",
    "retrying job {} (attempt {})",
    "evicted {} entries, {} left",
    "timeout after {} ms waiting for lock {}",
    "GET /api/v1/items/{} 200 {}",
    "heartbeat {} ok, lag {} ms",
    "failed to open /var/lib/data/{}.bin: errno {}",
)


def typos(text: str, rng: random.Random, *, rate: float = 0.04) -> str:
    """Each character slips with probability `rate`: replaced, dropped, doubled by another, or swapped with the next."""
    letters = list(text)
    out: list[str] = []
    at = 0
    while at < len(letters):
        if rng.random() >= rate:
            out.append(letters[at])
        else:
            slip = rng.randrange(4)
            if slip == 0:
                out.append(rng.choice(_LETTERS))
            elif slip == 1:
                out.extend((rng.choice(_LETTERS), letters[at]))
            elif slip == 2 and at + 1 < len(letters):
                out.extend((letters[at + 1], letters[at]))
                at += 1
        at += 1
    return "".join(out)


def polite_prefix(text: str, rng: random.Random) -> str:
    return rng.choice(_POLITE) + text


def role_prefix(text: str, rng: random.Random) -> str:
    return rng.choice(_ROLES) + text


def chatter(text: str, rng: random.Random) -> str:
    """A start that hygiene does not know: what the encoder itself has to look past. For training only."""
    return rng.choice(_CHATTER) + text


def lower_case(text: str, rng: random.Random) -> str:
    return text.lower()


def truncation(text: str, rng: random.Random) -> str:
    """The first 60 to 95 % of the words, at least six."""
    words = text.split(" ")
    return " ".join(words[: max(6, round(len(words) * rng.uniform(0.6, 0.95)))])


def pasted_log(text: str, rng: random.Random, *, num_bytes: int = 2048) -> str:
    """The text, then about `num_bytes` of a service's log."""
    return f"{text}\n\n{made_up_log(rng, num_bytes)}"


def made_up_log(rng: random.Random, num_bytes: int) -> str:
    """Lines of a log that no service ever wrote, in one of four layouts."""
    layout = rng.randrange(4)
    lines: list[str] = []
    size = 0
    while size < num_bytes:
        lines.append(_log_line(rng, layout))
        size += len(lines[-1]) + 1
    return "\n".join(lines)[:num_bytes]


def _log_line(rng: random.Random, layout: int) -> str:
    event = rng.choice(_EVENTS).format(rng.randrange(1000), rng.randrange(1000))
    level, unit = rng.choice(_LEVELS), rng.choice(_UNITS)
    clock = f"{rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}"
    day = rng.randrange(1, 29)
    if layout == 0:
        return f"2025-03-{day:02}T{clock}.{rng.randrange(1000):03}Z {level} [{unit}] {event}"
    if layout == 1:
        return f"Mar {day:2} {clock} host-{rng.randrange(9)} {unit}[{rng.randrange(9999)}]: {event}"
    if layout == 2:
        return f"[{level}] {clock} {unit} - {event}"
    return f"{level}: {unit}: {event}"


ALTERATIONS: dict[str, Alteration] = {
    "typos": typos,
    "polite prefix": polite_prefix,
    "role prefix": role_prefix,
    "lower case": lower_case,
    "pasted log": pasted_log,
}


def dressed(text: str, rng: random.Random) -> str:
    """One training view: usually altered in one way, sometimes in two, typos most often."""
    kinds: tuple[Alteration, ...] = (
        typos,
        typos,
        typos,
        typos,
        polite_prefix,
        role_prefix,
        chatter,
        chatter,
        truncation,
        pasted_log,
    )
    for alteration in rng.sample(kinds, 2 if rng.random() < 0.25 else 1):
        text = alteration(text, rng)
    return text
