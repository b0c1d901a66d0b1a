"""`python -m pocket.study STAGE`: from a parent to masks, measurements, the transfer study and a page of figures.

Profiles, masks and the transfer study are the product's own commands; measuring is this folder's. Needs no torch.
"""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from pocket.ablations import ablate
from pocket.baselines import Trigram, gzip_bits, xz_bits
from pocket.college import REASONING, STUDIED, candidates, held_out, mask_path
from pocket.corpora import texts
from pocket.measuring import HeldOut, Scores, opened
from pocket.streams import read_streams

REPOSITORY = Path(__file__).resolve().parent.parent
MODEL = REPOSITORY / "pocket" / "model"
END_ID = 1  # a text is preceded by the last one's end; see `vocabulary.CONTROL`


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pocket.study", description=__doc__)
    parser.add_argument("stage", choices=list(STAGES))
    parser.add_argument("--work", type=Path, default=Path("pocket-work"), help="where `split` left the corpora")
    parser.add_argument("--parent", type=Path, default=MODEL / "pocket-q8_0.gguf")
    parser.add_argument("--masks", type=Path, default=REPOSITORY / "pocket" / "masks")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "pocket" / "study")
    parser.add_argument("--domains", default=",".join(STUDIED))
    parser.add_argument("--tokens", type=int, default=20_000, help="of each domain to profile")
    parser.add_argument("--keep", type=int, default=16)
    parser.add_argument("--records", type=int, default=48, help="held-out records of each domain")
    parser.add_argument("--questions", type=int, default=48, help="cloze questions of each domain")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    asked.domains = tuple(asked.domains.split(","))
    for folder in (asked.masks, asked.out):
        folder.mkdir(parents=True, exist_ok=True)
    STAGES[asked.stage](asked)


def _coe(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "gateway.cli", *map(str, arguments)], check=True)  # noqa: S603 - our own commands


def _corpora(asked: argparse.Namespace, part: str, names: tuple[str, ...]) -> list[str]:
    folder = asked.work / "corpora" / part
    return [word for name in names for word in ("--corpus", f"{name}={folder / f'{name}.jsonl'}")]


def _profile(asked: argparse.Namespace) -> None:
    """On the part of the corpora that trained the parent; the held-out part is never seen by a mask."""
    names = (*asked.domains, REASONING)
    limits = ("--max-tokens", asked.tokens, "--context", 256, "--threads", asked.threads, "--seed", asked.seed)
    out = asked.work / "profile.npz"
    _coe("profile", "--parent", asked.parent, *_corpora(asked, "train", names), *limits, "--out", out)


def _masks(asked: argparse.Namespace) -> None:
    """K of them for each domain, with the whitelist and the reasoning pass."""
    for name in asked.domains:
        recipe = ("--domain", name, "--keep", asked.keep, "--whitelist", "--whitelist-rank", 1.0)
        passes = ("--reasoning", REASONING, "--reasoning-cap", 3, "--no-report")
        _coe("mask", "--profile", asked.work / "profile.npz", *recipe, *passes, "--out", mask_path(asked, name))


def _measure(asked: argparse.Namespace) -> None:
    """Everyone on every domain. Tokens go to tokens.csv, questions to cloze.csv, as `coe transfer` reads them."""
    domains = {name: held_out(asked, name) for name in asked.domains}
    rows: dict[str, list[tuple[object, ...]]] = {"tokens": [], "cloze": []}
    for who, kept in candidates(asked):
        with opened(asked.parent, kept, threads=asked.threads) as scorer:
            for target, held in domains.items():
                scores = scorer.score(held)
                rows["tokens"] += token_rows(who, target, scores)
                rows["cloze"] += [(who, target, n, 1, int(right), "") for n, right in enumerate(scores.cloze)]
        print(who, "measured", flush=True)  # noqa: T201 - a script's progress
    for kind, found in rows.items():
        write_rows(asked.out / f"{kind}.csv", found)


def token_rows(who: str, target: str, scores: Scores) -> list[tuple[object, ...]]:
    columns = zip(scores.num, scores.right, scores.loss, strict=True)
    return [(who, target, n, num, right, round(loss, 3)) for n, (num, right, loss) in enumerate(columns)]


def write_rows(path: Path, rows: list[tuple[object, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("specialist", "target", "record", "num", "right", "loss"))
        writer.writerows(rows)


def _transfer(asked: argparse.Namespace) -> None:
    masks = [word for name in asked.domains for word in ("--mask", f"{name}={mask_path(asked, name)}")]
    near = _corpora(asked, "train", asked.domains)
    shared = (*masks, *near, "--profile", asked.work / "profile.npz", "--parent", asked.parent, "--seed", asked.seed)
    for kind in ("tokens", "cloze"):
        out = asked.out / ("transfer.json" if kind == "tokens" else "transfer-cloze.json")
        _coe("transfer", *shared, "--measured", asked.out / f"{kind}.csv", "--out", out)


def _check(asked: argparse.Namespace) -> None:
    """Of one row. llama.cpp's cache is F16 and its GELU a table, so a token may cross a near tie of a gate."""
    with np.load(asked.work / "reference-logits.npz") as reference:
        tokens, theirs = reference["tokens"], reference["logits"]
    with opened(asked.parent, threads=asked.threads) as scorer:
        ours = scorer.logits(tokens.tolist())
    apart = np.abs(ours - theirs).max(1)
    found = {
        "tokens": len(tokens),
        "median of the largest difference": round(float(np.median(apart)), 4),
        "largest": round(float(apart.max()), 4),
        "same likeliest token": round(float((ours.argmax(1) == theirs.argmax(1)).mean()), 4),
    }
    print(json.dumps({asked.parent.name: found}))  # noqa: T201


def _baselines(asked: argparse.Namespace) -> None:
    """Bits per byte of the parent and of simple means, on the same windows of held-out text."""
    train, _ = (read_streams(asked.work, part) for part in ("train", "held"))
    trigram = Trigram(np.concatenate([*train.values()]).astype(np.int64), vocabulary=1 + max(map(max, train.values())))
    found = {}
    with opened(asked.parent, threads=asked.threads) as scorer:
        for name in asked.domains:
            held = held_out(asked, name)
            text = b"".join(scorer.text(row) for row in held.windows)
            before = "\n".join(texts(asked.work / "corpora", "train", name)).encode()
            model = sum(scorer.score(HeldOut(held.windows, ())).loss)
            grams = sum(float(trigram.surprises(np.array([END_ID, *row])).sum()) for row in held.windows)
            found[name] = {
                "parent": model / np.log(2) / len(text),
                "trigram": grams / np.log(2) / len(text),
                "xz after the training text": xz_bits(text, before),
                "xz": xz_bits(text),
                "gzip": gzip_bits(text),
            }
            print(name, found[name], flush=True)  # noqa: T201 - a script's progress
    rounded = {name: {key: round(value, 4) for key, value in each.items()} for name, each in found.items()}
    (asked.out / "baselines.json").write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")


def _results(asked: argparse.Namespace) -> None:
    from pocket.results import results

    (asked.out / "RESULTS.md").write_text(results(asked.out, asked.domains) + "\n", encoding="utf-8")


STAGES = {
    "check": _check,
    "profile": _profile,
    "masks": _masks,
    "measure": _measure,
    "transfer": _transfer,
    "baselines": _baselines,
    "ablate": ablate,
    "results": _results,
}

if __name__ == "__main__":
    main()
