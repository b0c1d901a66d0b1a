"""Ollama's Python package against a running starter college: `python -m tests.clients.ollama_python URL`.

Says what it has checked, a line each, and ends with 0 when all of it held. It makes and deletes a persona of its own.
"""

import json
import sys
from collections.abc import Callable, Sequence

from ollama import ChatResponse, Client, ResponseError

MATH, GENERAL = "coe-smollm2-math:q4", "coe-smollm2-general:q4"
QUESTION = {"role": "user", "content": "What is two plus two?"}
BRIEF = {"num_predict": 12, "seed": 7}
PERSONA = "client-check-pirate"
SCHEMA = {
    "type": "object",
    "properties": {"sum": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["sum"],
    "additionalProperties": False,
}


def require(holds: bool, what: str) -> None:
    if not holds:
        raise SystemExit(f"FAILED: {what}")


def require_facts(answer: ChatResponse) -> None:
    """The last object's counts and durations are those of a real generation."""
    require(answer.done is True and answer.done_reason in ("stop", "length"), f"an end, not {answer.done_reason}")
    require(0 < (answer.eval_count or 0) <= BRIEF["num_predict"], f"1 to 12 tokens, not {answer.eval_count}")
    require((answer.prompt_eval_count or 0) > 10, f"a prompt with a template, not {answer.prompt_eval_count} tokens")
    parts = (answer.prompt_eval_duration or 0) + (answer.eval_duration or 0)
    require(0 < parts <= (answer.total_duration or 0), "durations that fit into the whole")


def chats(client: Client) -> None:
    whole = client.chat(model=MATH, messages=[QUESTION], options=BRIEF)
    pieces = list(client.chat(model=MATH, messages=[QUESTION], options=BRIEF, stream=True))
    require(bool(whole.message.content), "a text")
    require("".join(piece.message.content or "" for piece in pieces) == whole.message.content, "streamed as whole")
    require(pieces[-1].eval_count == whole.eval_count, "as many tokens streamed as whole")
    require_facts(whole)
    require_facts(pieces[-1])


def thinks_not(client: Client) -> None:
    answer = client.chat(model=MATH, messages=[QUESTION], options=BRIEF, think=True)
    require(not answer.message.thinking and bool(answer.message.content), "content and no thinking")


def generates(client: Client) -> None:
    templated = client.generate(model=MATH, prompt="Say hello.", options=BRIEF, system="Be brief.")
    raw = client.generate(model=MATH, prompt="Once upon a", raw=True, options=BRIEF)
    require(bool(templated.response) and bool(raw.response), "texts")
    require((raw.prompt_eval_count or 99) < 10, "no template around a raw prompt")


def keeps_to_a_format(client: Client) -> None:
    asked = {"role": "user", "content": "Two plus two as JSON."}
    answer = client.chat(model=MATH, messages=[asked], format=SCHEMA, options={"num_predict": 64})
    require(set(json.loads(answer.message.content or "")) == {"sum"}, "JSON of the schema")


def routes(client: Client) -> None:
    answer = client.chat(model="auto", messages=[QUESTION], options=BRIEF)
    require((answer.model or "").startswith("coe-smollm2-"), f"a specialist, not {answer.model}")


def lists(client: Client) -> None:
    names = {model.model for model in client.list().models}
    require({MATH, GENERAL, "auto:latest", "coe-supervisor-minilm:latest"} <= names, "every model listed")
    shown = client.show(MATH)
    require((shown.modelinfo or {}).get("general.architecture") == "llama", "an architecture")
    require(shown.details is not None and shown.details.parameter_size == "134.52M", "134.52M parameters")


def loads_and_unloads(client: Client) -> None:
    require(client.generate(model=MATH, keep_alive="1h").done_reason == "load", "loaded")
    (running,) = [model for model in client.ps().models if model.model == MATH]
    require((running.size or 0) > 50_000_000 and running.expires_at is not None, "a size and a date")
    require(client.generate(model=MATH, keep_alive=0).done_reason == "unload", "unloaded")
    require(client.ps().models == [], "nothing in memory")


def makes_personas(client: Client) -> None:
    steps = list(client.create(model=PERSONA, from_=MATH, system="Talk like a pirate.", stream=True))
    require(steps[-1].status == "success", "a success")
    client.copy(PERSONA, f"{PERSONA}-copy")
    answer = client.chat(model=f"{PERSONA}-copy", messages=[QUESTION], options=BRIEF)
    require(bool(answer.message.content), "an answer of the copy")
    for name in (PERSONA, f"{PERSONA}-copy"):
        client.delete(name)
    require(refused(lambda: client.show(PERSONA)) == 404, "gone after deletion")


def embeds(client: Client) -> None:
    found = client.embed(model="coe-supervisor-minilm", input=["sort a list", "sorting lists", "bake bread"])
    sort, sorting, bread = found.embeddings
    require(len(sort) == 384 and dot(sort, sorting) > dot(sort, bread), "like texts closer than unlike ones")


def refuses(client: Client) -> None:
    require(refused(lambda: client.chat(model="no-such", messages=[QUESTION])) == 404, "404 for an unknown model")
    image = QUESTION | {"images": ["aGk="]}
    require(refused(lambda: client.chat(model=MATH, messages=[image])) == 400, "400 for an image")
    require(refused(lambda: client.generate(model=MATH, prompt="a", suffix="b")) == 400, "400 for a suffix")


def refused(call: Callable[[], object]) -> int | None:
    """The status of the refusal, None if there was none."""
    try:
        call()
    except ResponseError as error:
        return error.status_code
    return None


def dot(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


CHECKS = (
    chats, thinks_not, generates, keeps_to_a_format, routes, lists, loads_and_unloads, makes_personas, embeds, refuses,
)  # fmt: skip


def main(url: str) -> None:
    with Client(host=url, timeout=120) as client:
        for check in CHECKS:
            check(client)
            sys.stdout.write(f"ok: {check.__name__.replace('_', ' ')}\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000")
