"""The training run: batches of many domains, one step, a checkpoint now and then, a line of log each time it matters.

Every batch is a function of seed and step, so a run that was stopped goes on as if it had not been. The learning rate
is flat and falls to zero over the last steps; so the end can be put off while the fall has not begun.
"""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pocket.losses import SoftcappedLoss, balance_loss, spread_loss
from pocket.network import GateTrace, PocketModel
from pocket.optimizer import optimizers
from pocket.shape import PocketShape

Streams = dict[str, NDArray[np.uint16]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Lengths in steps or tokens. `spread_most` experts are what one text may use without being asked for fewer.

    The gates first learn what helps: up to step `asked_from` only `asked_early` of `balance` and `spread` counts.
    `balance` must outweigh `spread`, or all texts take to the same few experts.
    """

    seed: int = 1
    steps: int = 4200
    fall_steps: int = 1100
    warm_steps: int = 100
    batch_tokens: int = 4096
    length_tokens: int = 256
    long_every: int = 6
    matrix_lr: float = 0.02
    other_lr: float = 3e-3
    balance: float = 1.0
    spread: float = 0.25
    spread_most: float = 9.0
    asked_early: float = 0.2
    asked_from: int = 1000


def batch_of(streams: Streams, recipe: Recipe, step: int) -> Tensor:
    """Windows [sequences, length + 1], each of a domain of its own as far as there are enough."""
    rng = np.random.default_rng([recipe.seed, step])
    length = recipe.length_tokens * (2 if step % recipe.long_every == recipe.long_every - 1 else 1)
    sequences = recipe.batch_tokens // length
    names = sorted(streams)
    order = [names[place] for _ in range(-(-sequences // len(names))) for place in rng.permutation(len(names))]
    rows = []
    for name in order[:sequences]:
        start = int(rng.integers(0, len(streams[name]) - length - 1))
        rows.append(streams[name][start : start + length + 1].astype(np.int64))
    return torch.from_numpy(np.stack(rows))


def rate_at(recipe: Recipe, step: int) -> float:
    """Share of the full learning rate: up over the warm steps, flat, down to zero over the fall."""
    return min((step + 1) / recipe.warm_steps, 1.0, (recipe.steps - step) / recipe.fall_steps)


def asked_of_gates(recipe: Recipe, step: int) -> tuple[float, float]:
    """Weights of balance and spread: a share of both at first, spread from nothing, then in full."""
    share = min(1.0, recipe.asked_early + max(0, step - recipe.asked_from) / 200)
    return recipe.balance * share, recipe.spread * share * min(1.0, step / 300)


def gate_losses(traces: list[GateTrace], sequences: int, most: float) -> tuple[Tensor, Tensor]:
    """Balance and spread, each a mean over the layers."""
    balance = torch.stack([balance_loss(trace.probabilities, trace.chosen) for trace in traces]).mean()
    spread = torch.stack([spread_loss(trace.probabilities, sequences, most) for trace in traces]).mean()
    return balance, spread


class Run:
    """A training run in `folder`: checkpoint.pt and log.jsonl. Goes on from the checkpoint that lies there."""

    def __init__(self, folder: Path, streams: Streams, shape: PocketShape, recipe: Recipe) -> None:
        self.folder, self.streams, self.recipe = folder, streams, recipe
        torch.manual_seed(recipe.seed)
        self.model = PocketModel(shape)
        self.optimizers = optimizers(self.model, matrix_lr=recipe.matrix_lr, other_lr=recipe.other_lr)
        self._full = [[group["lr"] for group in each.param_groups] for each in self.optimizers]
        self.step, self.cpu_seconds = 0, 0.0
        if (folder / "checkpoint.pt").exists():
            self._resume(torch.load(folder / "checkpoint.pt", weights_only=True))

    def _resume(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step, self.cpu_seconds = saved["step"], saved["cpu_seconds"]

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "cpu_seconds": self.cpu_seconds,
            "shape": json.dumps(self.model.shape.as_json()),
            "recipe": json.dumps(asdict(self.recipe)),
        }
        partial = self.folder / "checkpoint.partial"
        torch.save(state, partial)
        os.replace(partial, self.folder / "checkpoint.pt")

    def train_step(self) -> dict[str, float]:
        rows = batch_of(self.streams, self.recipe, self.step)
        rate = rate_at(self.recipe, self.step)
        for optimizer, full in zip(self.optimizers, self._full, strict=True):
            for group, lr in zip(optimizer.param_groups, full, strict=True):
                group["lr"] = lr * rate
        hidden, traces = self.model(rows[:, :-1])
        compute = torch.bfloat16
        flat, table = hidden.reshape(-1, hidden.shape[-1]).to(compute), self.model.embed_tokens.weight.to(compute)
        loss = SoftcappedLoss.apply(flat, table, rows[:, 1:].reshape(-1), self.model.shape.softcap)  # type: ignore[no-untyped-call]
        balance, spread = gate_losses(traces, len(rows), self.recipe.spread_most)
        balance_weight, spread_weight = asked_of_gates(self.recipe, self.step)
        (loss + balance_weight * balance + spread_weight * spread).backward()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return {"loss": loss.item(), "balance": balance.item(), "spread": spread.item(), "rate": rate}

    def run(self, held: Streams, *, log_every: int = 20, save_every: int = 100, look_every: int = 250) -> None:
        recent: list[dict[str, float]] = []
        began, before = time.time(), time.process_time()
        while self.step < self.recipe.steps:
            recent.append(self.train_step())
            if self.step % log_every == 0:
                means = {key: float(np.mean([each[key] for each in recent])) for key in recent[0]}
                self.cpu_seconds += time.process_time() - before
                before, recent = time.process_time(), []
                self._log({**means, "cpu_s": self.cpu_seconds, "wall_s": time.time() - began})
            if self.step % look_every == 0 or self.step == self.recipe.steps:
                self._log({"held_out": held_out_accuracy(self.model, held)})
            if self.step % save_every == 0 or self.step == self.recipe.steps:
                self.save()

    def _log(self, fields: dict[str, Any]) -> None:
        tokens = self.step * self.recipe.batch_tokens
        line = json.dumps({"step": self.step, "tokens": tokens, **rounded(fields)})
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(f"{line}\n")
        print(line, flush=True)  # noqa: T201 - a script's progress


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return round(value, 4) if isinstance(value, float) else value


@torch.no_grad()
def held_out_accuracy(model: PocketModel, held: Streams, windows: int = 4, length: int = 256) -> dict[str, float]:
    """Share of next tokens guessed right, by domain, on a few evenly spaced windows, and their mean loss in nats."""
    found: dict[str, float] = {}
    losses = []
    for domain, stream in sorted(held.items()):
        starts = np.linspace(0, len(stream) - length - 1, windows).astype(int)
        rows = torch.from_numpy(np.stack([stream[s : s + length + 1] for s in starts]).astype(np.int64))
        logits = model.logits(model(rows[:, :-1])[0])
        found[domain] = (logits.argmax(-1) == rows[:, 1:]).float().mean().item()
        losses.append(torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].reshape(-1)).item())
    return {**found, "mean": float(np.mean(list(found.values()))), "loss": float(np.mean(losses))}
