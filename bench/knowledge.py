"""How often looking things up finds the right document: by words, by meaning, and by both.

Questions are sentences that were taken out of their documents, with half of their words dropped (seeded), so that a
question shares its topic with its document and little else. The documents are records of `../shared/corpora`, some from
each domain. Off topic are questions that no document can answer. Printed: recall@1 and @5 of the document, how many of
the off-topic questions find nothing, and how long a search takes.

    python -m bench.knowledge --corpora ../shared/corpora --per-domain 20 --questions 200
"""

import argparse
import json
import random
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gateway.knowledge.encoders import full_name, open_encoder, token_counter
from gateway.knowledge.indexing import prepare_store, update
from gateway.knowledge.searching import search, terms_of
from gateway.knowledge.store import KnowledgeStore, Vector, open_store
from supervisor.embedder import Embedder

SEED = 11
OFF_TOPIC = (
    "Hello, how are you today?", "Thanks, that was great!", "Tell me a joke.", "Write a short poem about my cat.",
    "Can you speak Portuguese?", "What should I cook tonight?", "Who are you?", "I feel bored.", "Good morning!",
    "Which phone should I buy?", "Say something nice.", "Please make that shorter.",
)  # fmt: skip
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


class Question(NamedTuple):
    text: str
    name: str  # of the document that it was taken from


def make_collection(corpora: Path, folder: Path, *, per_domain: int, num_questions: int) -> list[Question]:
    """Writes documents to `folder`; returns questions about some of them."""
    draw = random.Random(SEED)
    questions = []
    for file in sorted(corpora.glob("*.jsonl")):
        records = [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()]
        for number, text in enumerate(draw.sample(records, min(per_domain, len(records)))):
            name = f"{file.stem}-{number}.txt"
            sentences = _SENTENCE.split(text)
            usable = [index for index, sentence in enumerate(sentences) if 10 <= len(sentence.split()) <= 40]
            if usable and len(sentences) > 3:
                taken = sentences.pop(draw.choice(usable)).split()
                kept = sorted(draw.sample(range(len(taken)), len(taken) // 2))
                questions.append(Question(" ".join(taken[index] for index in kept), name))
            (folder / name).write_text(" ".join(sentences), encoding="utf-8")
    return draw.sample(questions, min(num_questions, len(questions)))


Finder = Callable[[KnowledgeStore, str, Vector], list[int]]


def by_words(store: KnowledgeStore, question: str, vector: Vector) -> list[int]:
    terms = terms_of(question)
    return store.matching(terms, 5) if terms else []


def by_meaning(store: KnowledgeStore, question: str, vector: Vector) -> list[int]:
    return [id for id, _ in store.nearest(vector, 5)]


def by_both(store: KnowledgeStore, question: str, vector: Vector) -> list[int]:
    return [hit.passage.id for hit in search(store, question, vector, limit=5)]


FINDERS: dict[str, Finder] = {"words alone": by_words, "meaning alone": by_meaning, "both (as served)": by_both}


def measure(store: KnowledgeStore, questions: Sequence[Question], encoder: Embedder) -> None:
    vectors = {text: encoder.embed(text) for text in [*OFF_TOPIC, *(question.text for question in questions)]}
    print(f"{'':18} recall@1  recall@5  off topic finds nothing  ms (median)")
    for name, find in FINDERS.items():
        firsts = fives = 0
        seconds = []
        for question in questions:
            begun = time.perf_counter()
            ids = find(store, question.text, vectors[question.text])
            seconds.append(time.perf_counter() - begun)
            passages = store.passages(ids) if ids else {}
            ranked = [passages[id].source.rpartition("/")[2] for id in ids]
            firsts += ranked[:1] == [question.name]
            fives += question.name in ranked
        silent = sum(not find(store, text, vectors[text]) for text in OFF_TOPIC)
        total = len(questions)
        print(
            f"{name:18} {firsts / total:8.3f}  {fives / total:8.3f}  {silent:>13} of {len(OFF_TOPIC)}"
            f"  {1000 * float(np.median(seconds)):12.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, default=Path("../shared/corpora"))
    parser.add_argument("--per-domain", type=int, default=20)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--embedder", default="", help="onnx, or sentence-transformers:<model>")
    options = parser.parse_args()
    name = full_name(options.embedder)
    encoder = open_encoder(name)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "documents")
        folder.mkdir()
        questions = make_collection(
            options.corpora, folder, per_domain=options.per_domain, num_questions=options.questions
        )
        path = Path(scratch, "index.sqlite")
        prepare_store(path, encoder=encoder, name=name)
        with open_store(path) as store:
            begun = time.perf_counter()
            changes = update(store, folder, encoder=encoder, count_tokens=token_counter())
            seconds = time.perf_counter() - begun
            print(f"{name}: {changes.added} documents, {changes.passages} passages in {seconds:.1f} s")
            measure(store, questions, encoder)


if __name__ == "__main__":
    main()
