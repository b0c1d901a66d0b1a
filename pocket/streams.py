"""Tokenised corpora: one stream of tokens per domain, texts in their files' order, each between its marks."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocket.corpora import DOMAINS, texts

Streams = dict[str, NDArray[np.uint16]]


def write_streams(work: Path, tokenizer: Any) -> dict[str, int]:
    """Write `work`/streams-train.npz and -held.npz; gives the numbers of tokens."""
    begin, end = tokenizer.token_to_id("<bos>"), tokenizer.token_to_id("<eos>")
    sizes = {}
    for part in ("train", "held"):
        streams = {}
        for domain in DOMAINS:
            encoded = tokenizer.encode_batch(texts(work / "corpora", part, domain), add_special_tokens=False)
            ids = [token for text in encoded for token in (begin, *text.ids, end)]
            streams[domain] = np.asarray(ids, dtype=np.uint16)
        np.savez(work / f"streams-{part}.npz", **streams)
        sizes[part] = sum(map(len, streams.values()))
    return sizes


def read_streams(work: Path, part: str) -> Streams:
    with np.load(work / f"streams-{part}.npz") as archive:
        return {name: archive[name] for name in archive.files}
