"""Fine-tunes the encoder: classify the question, and answer alike however it is dressed.

Each question is seen clean or dressed (see augmentation.py) after the same hygiene and spelling as in serving. A
third of a batch is seen both ways, and the symmetric divergence between the two answers is added to the loss. The
word embeddings and the first layers stay as they were, which keeps what the encoder knows of words no example holds.
Classes are directions on the unit sphere, so that nearest neighbours and prototypes work on the same vectors.
Needs torch and sentence-transformers; nothing in serving imports this module.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch.nn import functional

from supervisor.augmentation import dressed
from supervisor.tokens import WordPieces

logger = logging.getLogger(__name__)

TOKENS_PER_BATCH = 2048


@dataclass(frozen=True, slots=True)
class FineTuning:
    """What the recipe may vary. `scale` turns cosines into logits; `twin_share` of a batch is seen both ways."""

    epochs: float = 3.5
    learning_rate: float = 1e-4
    head_learning_rate: float = 2e-3
    batch: int = 32
    scale: float = 14.0
    twin_share: float = 0.34
    dressed_share: float = 0.4
    consistency: float = 1.0
    label_smoothing: float = 0.05
    frozen_layers: int = 1
    threads: int = 1
    seed: int = 17


@dataclass(frozen=True, slots=True)
class Batch:
    """Ids padded to one length. Row `first[i]` and row `second[i]` are the same question, clean and dressed."""

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor


def load_base(directory: Path) -> SentenceTransformer:
    return SentenceTransformer(str(directory), device="cpu")


def fine_tune(
    model: SentenceTransformer,
    pieces: WordPieces,
    tidy: Callable[[str], str],
    texts: Sequence[str],
    labels: Sequence[int],
    options: FineTuning,
) -> list[float]:
    """Trains `model` in place; returns the mean loss of each 50 steps. `tidy` is hygiene and spelling."""
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    bert: Any = model[0].auto_model
    _freeze(bert, options.frozen_layers)
    head = torch.nn.Parameter(_centroids(bert, pieces, tidy, texts, labels))
    parameters = [parameter for parameter in bert.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": parameters, "lr": options.learning_rate}, {"params": [head], "lr": options.head_learning_rate}],
        weight_decay=0.01,
    )
    batches = list(_batches(pieces, tidy, texts, labels, options))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_then_linear(step, len(batches)))
    return [
        _report(step, loss, len(batches)) for step, loss in _steps(bert, head, optimizer, schedule, batches, options)
    ]


def _steps(
    bert: Any, head: torch.Tensor, optimizer: Any, schedule: Any, batches: Sequence[Batch], options: FineTuning
) -> Iterator[tuple[int, float]]:
    bert.eval()  # no dropout: the dressing is the noise
    recent: list[float] = []
    for step, batch in enumerate(batches, 1):
        loss = _loss(bert, head, batch, options)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        recent.append(loss.item())
        if step % 50 == 0 or step == len(batches):
            yield step, float(np.mean(recent))
            recent.clear()


def _report(step: int, loss: float, num_steps: int) -> float:
    logger.info("step %d of %d: loss %.3f at %s", step, num_steps, loss, time.strftime("%H:%M:%S"))
    return loss


def _loss(bert: Any, head: torch.Tensor, batch: Batch, options: FineTuning) -> torch.Tensor:
    vectors = pooled(bert, batch.ids, batch.mask)
    logits = options.scale * vectors @ functional.normalize(head, dim=1).T
    loss = functional.cross_entropy(logits, batch.labels, label_smoothing=options.label_smoothing)
    if len(batch.first):
        logs = functional.log_softmax(logits, dim=1)
        clean, other = logs[batch.first], logs[batch.second]
        apart = functional.kl_div(other, clean, log_target=True, reduction="batchmean")
        apart = apart + functional.kl_div(clean, other, log_target=True, reduction="batchmean")
        loss = loss + options.consistency * apart / 2
    return loss


def pooled(bert: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of the last layer over real tokens, unit length: (batch, width)."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = bert(input_ids=ids, attention_mask=mask).last_hidden_state
    weights = mask.unsqueeze(-1).float()
    mean = (states.float() * weights).sum(1) / weights.sum(1)
    return functional.normalize(mean, dim=1)


def _freeze(bert: Any, num_layers: int) -> None:
    for parameter in bert.embeddings.parameters():
        parameter.requires_grad = False
    for layer in bert.encoder.layer[:num_layers]:
        for parameter in layer.parameters():
            parameter.requires_grad = False


def _centroids(
    bert: Any, pieces: WordPieces, tidy: Callable[[str], str], texts: Sequence[str], labels: Sequence[int]
) -> torch.Tensor:
    """(classes, width): the mean vector of up to 60 questions of each class, where the head starts."""
    chosen = [
        index for label in sorted(set(labels)) for index in [i for i, own in enumerate(labels) if own == label][:60]
    ]
    chosen.sort(key=lambda index: len(texts[index]))
    sums = torch.zeros(max(labels) + 1, bert.config.hidden_size)
    with torch.no_grad():
        for at in range(0, len(chosen), 64):
            part = chosen[at : at + 64]
            ids, mask = padded([pieces.encode(tidy(texts[index])) for index in part])
            sums.index_add_(0, torch.tensor([labels[index] for index in part]), pooled(bert, ids, mask))
    return functional.normalize(sums, dim=1)


def _batches(
    pieces: WordPieces, tidy: Callable[[str], str], texts: Sequence[str], labels: Sequence[int], options: FineTuning
) -> Iterator[Batch]:
    """Questions of like length together (padding costs as much as text), batches in random order."""
    rng = random.Random(options.seed)  # noqa: S311 - repeatable, not secret
    remaining = round(options.epochs * len(texts))
    while remaining > 0:
        order = list(range(len(texts)))
        rng.shuffle(order)
        order = order[:remaining]
        remaining -= len(order)
        order.sort(key=lambda index: min(len(texts[index]), 600) + rng.uniform(0, 40))
        groups = [order[at : at + options.batch] for at in range(0, len(order), options.batch)]
        rng.shuffle(groups)
        yield from (_batch(group, pieces, tidy, texts, labels, options, rng) for group in groups)


def _batch(
    group: Sequence[int],
    pieces: WordPieces,
    tidy: Callable[[str], str],
    texts: Sequence[str],
    labels: Sequence[int],
    options: FineTuning,
    rng: random.Random,
) -> Batch:
    rows, targets, first, second = [], [], [], []
    for index in group:
        twins = rng.random() < options.twin_share
        alone_dressed = not twins and rng.random() < options.dressed_share
        text = dressed(texts[index], rng) if alone_dressed else texts[index]
        rows.append(pieces.encode(tidy(text)))
        targets.append(labels[index])
        if twins:
            first.append(len(rows) - 1)
            second.append(len(rows))
            rows.append(pieces.encode(tidy(dressed(texts[index], rng))))
            targets.append(labels[index])
    ids, mask = padded(rows)
    return Batch(
        ids, mask, torch.tensor(targets), torch.tensor(first, dtype=torch.long), torch.tensor(second, dtype=torch.long)
    )


def padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask), both (rows, longest row)."""
    longest = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = torch.tensor(row)
        mask[at, : len(row)] = 1
    return ids, mask


def _warm_then_linear(step: int, num_steps: int) -> float:
    warm = max(1, round(0.06 * num_steps))
    return min((step + 1) / warm, max(0.0, (num_steps - step) / (num_steps - warm)))
