"""How often word problems come out right with the calculator and without, on a running gateway.

One-step problems with made-up numbers (seeded), each asked both ways. An answer is right when it holds the number.

    python -m bench.calculator --url http://127.0.0.1:8000 --model TAG --problems 20
"""

import argparse
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx

SEED = 7


class Problem(NamedTuple):
    text: str
    solution: int


def problems(count: int) -> Iterator[Problem]:
    draw = random.Random(SEED)
    for number in range(count):
        small, large = draw.randint(12, 49), draw.randint(51, 99)
        yield (
            Problem(f"There are {small} crates with {large} pens each. How many pens are there?", small * large),
            Problem(f"A bus goes {large} km each hour for {small} hours. How far does it go?", small * large),
            Problem(f"Anna has {large * 7} coins and loses {small}. How many are left?", large * 7 - small),
            Problem(f"{small * large} seats stand in {small} equal rows. How many are in a row?", large),
        )[number % 4]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", required=True, help="tag of a specialist with calculator = true")
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--max-tokens", type=int, default=60)
    options = parser.parse_args()
    with httpx.Client(base_url=options.url, timeout=600) as http:
        for has_calculator in (True, False):
            right = used = tokens = 0
            for number, problem in enumerate(problems(options.problems)):
                found = _ask(http, options, problem.text, number, has_calculator=has_calculator)
                text = found["choices"][0]["message"]["content"].replace(",", "")
                right += str(problem.solution) in text
                used += bool(found["coe"]["calculator"]["calls"])
                tokens += found["usage"]["completion_tokens"]
            name = "with calculator" if has_calculator else "without"
            print(f"{name:16} right {right} of {options.problems}, used in {used}, {tokens} tokens drawn", flush=True)


def _ask(
    http: httpx.Client, options: argparse.Namespace, text: str, seed: int, *, has_calculator: bool
) -> dict[str, Any]:
    body = {
        "model": options.model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": options.max_tokens,
        "seed": seed,
        "coe": {"calculator": has_calculator, "knowledge": False},
    }
    reply = http.post("/v1/chat/completions", json=body).raise_for_status()
    found: dict[str, Any] = reply.json()
    return found


if __name__ == "__main__":
    main()
