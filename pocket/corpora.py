"""The domain corpora, parted into what trains and what is held out, by whole chapters and files.

Knows the corpora's format (lines of `{"text", "source", "license"}`) and which licences a shipped model may learn from.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOMAINS = (
    "biology", "business", "chemistry", "cs", "economics", "engineering", "general", "health", "history", "law",
    "math", "philosophy", "physics", "psychology", "python", "reasoning", "web",
)  # fmt: skip
HELD_OUT_PERCENT = 8
SHARE_ALIKE = "-SA-"  # a model that learnt from share-alike texts would leave its own licence in doubt


@dataclass(frozen=True, slots=True)
class Record:
    domain: str
    text: str
    source: str
    licence: str

    @property
    def held_out(self) -> bool:
        """By the digest of the source, so that no chapter is on both sides."""
        return int.from_bytes(hashlib.sha256(self.source.encode()).digest()[:4]) % 100 < HELD_OUT_PERCENT


def read_domain(folder: Path, domain: str) -> Iterator[Record]:
    """The records a shipped model may learn from. FileNotFoundError names a missing corpus."""
    with (folder / f"{domain}.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            fields = json.loads(line)
            if SHARE_ALIKE not in fields["license"]:
                yield Record(domain, fields["text"], fields["source"], fields["license"])


def write_split(folder: Path, out: Path) -> dict[str, dict[str, int]]:
    """Write `out`/train/DOMAIN.jsonl and `out`/held/DOMAIN.jsonl; gives bytes of text by part and domain."""
    sizes: dict[str, dict[str, int]] = {"train": {}, "held": {}}
    for part in sizes:
        (out / part).mkdir(parents=True, exist_ok=True)
    for domain in DOMAINS:
        records = list(read_domain(folder, domain))
        for part, wanted in (("train", False), ("held", True)):
            mine = [record for record in records if record.held_out is wanted]
            _write(out / part / f"{domain}.jsonl", mine)
            sizes[part][domain] = sum(len(record.text.encode()) for record in mine)
    return sizes


def _write(path: Path, records: list[Record]) -> None:
    lines = (
        json.dumps({"text": record.text, "source": record.source, "license": record.licence}, ensure_ascii=False)
        for record in records
    )
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def texts(split: Path, part: str, domain: str) -> list[str]:
    lines = (split / part / f"{domain}.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line)["text"] for line in lines if line]
