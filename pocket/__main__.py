"""`python -m pocket STAGE`: split, vocabulary, train, export, card. See README.md for the stages in their order."""

import argparse
import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocket.card import LOG, write_card
from pocket.corpora import write_split

if TYPE_CHECKING:
    from pocket.shape import PocketShape

REPOSITORY = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pocket", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("pocket-work"), help="folder for all that is made on the way")
    stages = parser.add_subparsers(dest="stage", required=True)
    corpora = {"type": Path, "default": REPOSITORY.parent / "shared" / "corpora"}
    split = stages.add_parser("split", help="part the corpora into what trains and what is held out")
    split.add_argument("--corpora", **corpora)
    learn = stages.add_parser("vocabulary", help="learn the BPE vocabulary and tokenise")
    learn.add_argument("--size", type=int, default=4096)
    train = stages.add_parser("train", help="train, or go on training")
    train.add_argument("--name", default="parent")
    train.add_argument("--threads", type=int, default=2)
    train.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of the recipe or the shape")
    export = stages.add_parser("export", help="write the checkpoint as GGUF, F16 and Q8_0")
    export.add_argument("--name", default="parent")
    export.add_argument("--out", type=Path, default=REPOSITORY / "pocket" / "model")
    card = stages.add_parser("card", help="write the model card and the training curve")
    card.add_argument("--name", default="parent")
    card.add_argument("--corpora", **corpora)
    card.add_argument("--out", type=Path, default=REPOSITORY / "pocket" / "model")
    arguments = parser.parse_args()
    STAGES[arguments.stage](arguments)


def _split(arguments: argparse.Namespace) -> None:
    sizes = write_split(arguments.corpora, arguments.work / "corpora")
    print(json.dumps({part: sum(each.values()) for part, each in sizes.items()}))  # noqa: T201


def _vocabulary(arguments: argparse.Namespace) -> None:
    from pocket.streams import write_streams
    from pocket.vocabulary import learn_vocabulary

    tokenizer = learn_vocabulary(arguments.work / "corpora", arguments.size)
    tokenizer.save(str(arguments.work / "tokenizer.json"))
    print(json.dumps(write_streams(arguments.work, tokenizer)))  # noqa: T201


def _train(arguments: argparse.Namespace) -> None:
    import torch

    from pocket.shape import PocketShape
    from pocket.streams import read_streams
    from pocket.training import Recipe, Run

    torch.set_num_threads(arguments.threads)
    asked = dict(pair.split("=", 1) for pair in arguments.set)
    recipe = Recipe(**_typed(Recipe, asked))
    shape = PocketShape(**_typed(PocketShape, asked))
    folder = arguments.work / arguments.name
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder, read_streams(arguments.work, "train"), shape, recipe)
    run.run(read_streams(arguments.work, "held"))


def _export(arguments: argparse.Namespace) -> None:
    import torch

    from pocket.gguf_export import write_gguf
    from pocket.shape import PocketShape

    saved = torch.load(arguments.work / arguments.name / "checkpoint.pt", weights_only=True)
    arrays = {name: value.float().numpy() for name, value in saved["model"].items()}
    shape = PocketShape.from_json(json.loads(saved["shape"]))
    arguments.out.mkdir(parents=True, exist_ok=True)
    _write_reference(arguments.work, shape, saved["model"])
    for kind in ("F16", "Q8_0"):
        path = arguments.out / f"pocket-{kind.lower()}.gguf"
        said = f"Trained from nothing for {saved['step']} steps"
        write_gguf(path, arrays, shape, arguments.work / "tokenizer.json", kind=kind, description=said)
        print(path, path.stat().st_size)  # noqa: T201


def _write_reference(work: Path, shape: "PocketShape", weights: dict[str, Any]) -> None:
    """Logits in float32 for a stretch of held-out text, which `pocket.study check` compares llama.cpp's with."""
    import numpy as np
    import torch

    from pocket.network import PocketModel
    from pocket.streams import read_streams

    model = PocketModel(shape, torch.float32)
    model.load_state_dict(weights)
    tokens = read_streams(work, "held")["general"][: shape.window_tokens * 2].astype(np.int64)
    with torch.no_grad():
        logits = model.logits(model(torch.from_numpy(tokens)[None])[0])[0]
    np.savez(work / "reference-logits.npz", tokens=tokens, logits=logits.numpy())


def _card(arguments: argparse.Namespace) -> None:
    shutil.copyfile(arguments.work / arguments.name / "log.jsonl", arguments.out / LOG)
    shutil.copyfile(arguments.work / "tokenizer.json", arguments.out / "tokenizer.json")
    write_card(arguments.out, arguments.corpora / "SOURCES.md")


def _typed(kind: type, asked: dict[str, str]) -> dict[str, int | float]:
    types = {each.name: each.type for each in fields(kind)}
    return {name: (float if types[name] is float else int)(value) for name, value in asked.items() if name in types}


STAGES = {"split": _split, "vocabulary": _vocabulary, "train": _train, "export": _export, "card": _card}

if __name__ == "__main__":
    main()
