"""What specialists and their parent scored, record by record: the table that `coe transfer` reads.

A CSV file with one row for each specialist, target and record:

    specialist,target,record,num,right,loss
    parent,math,0,512,171,2310.5
    law,math,0,512,140,2904.1

`specialist` is a name given to a mask, or "parent". `target` is the domain that the record is of. `num` counts what
was asked (tokens, or questions), `right` what was got right, `loss` is the sum of negative log likelihoods in nats
and may be empty. Ratios to the parent are only sound on the same questions, so for each target all specialists must
have the parent's records with its `num`. How answers are judged is not known here.
"""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from specialists.builder.transfer import TransferError

PARENT: Final = "parent"
COLUMNS: Final = ("specialist", "target", "record", "num", "right", "loss")
_MOST_BYTES: Final = 1 << 28
_MOST_NAME: Final = 200


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """One specialist on one target: arrays over the records, in the parent's order. `loss` is None where not given."""

    num: NDArray[np.float64]
    right: NDArray[np.float64]
    loss: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class Measurements:
    """`scores` by (specialist, target); the parent is there for every target."""

    scores: Mapping[tuple[str, str], Scores]

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(target for name, target in self.scores if name == PARENT)

    @property
    def specialists(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for name, _ in self.scores if name != PARENT))


@dataclass(frozen=True, slots=True)
class _Row:
    num: float
    right: float
    loss: float | None


def read_measurements(path: Path) -> Measurements:
    """Raises TransferError, naming the file, the line and the column."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise TransferError(f"{path.name}: is over {_MOST_BYTES >> 20} MiB; measure fewer or longer records.")
        with path.open(encoding="utf-8", newline="") as file:
            return parse_measurements(file, path.name)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TransferError(f"{path.name}: cannot be read ({error}).") from error


def parse_measurements(lines: Iterable[str], name: str = "measurements") -> Measurements:
    """As `read_measurements`, from the file's lines."""
    found: dict[tuple[str, str], dict[str, _Row]] = {}
    for place, row in _rows(lines, name):
        rows = found.setdefault((row["specialist"], row["target"]), {})
        if row["record"] in rows:
            raise TransferError(f"{place}: {row['specialist']} on {row['target']} has record {row['record']} twice.")
        rows[row["record"]] = _parsed(place, row)
    if not found:
        raise TransferError(f"{name}: has no rows.")
    return Measurements({key: _aligned(key, rows, found, name) for key, rows in found.items()})


def _rows(lines: Iterable[str], name: str) -> Iterator[tuple[str, dict[str, str]]]:
    reader = csv.reader(lines)
    header = [column.strip() for column in next(reader, [])]
    if sorted(header) != sorted(COLUMNS):
        raise TransferError(f"{name}: line 1: the columns {','.join(COLUMNS)} are expected.")
    for row in reader:
        place = f"{name}: line {reader.line_num}"
        if len(row) != len(header):
            raise TransferError(f"{place}: has {len(row)} columns; {len(header)} are expected.")
        if any(len(cell) > _MOST_NAME or not cell.isprintable() for cell in row):
            raise TransferError(f"{place}: a cell is longer than {_MOST_NAME} characters, or holds odd ones.")
        yield place, dict(zip(header, (cell.strip() for cell in row), strict=True))


def _parsed(place: str, row: Mapping[str, str]) -> _Row:
    num, right = (_number(place, column, row[column]) for column in ("num", "right"))
    if not 0 <= right <= num or num == 0:
        raise TransferError(f"{place}: right = {row['right']} must be from 0 to num = {row['num']}, and num above 0.")
    return _Row(num, right, _number(place, "loss", row["loss"]) if row["loss"] else None)


def _number(place: str, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise TransferError(f"{place}: {column} = {text[:40]!r} must be a number from 0 on.")
    return value


def _aligned(
    key: tuple[str, str], rows: Mapping[str, _Row], found: Mapping[tuple[str, str], Mapping[str, _Row]], name: str
) -> Scores:
    specialist, target = key
    base = found.get((PARENT, target))
    if base is None:
        raise TransferError(f"{name}: target {target!r} has no rows of {PARENT!r}; measure the parent on it as well.")
    if rows.keys() != base.keys() or any(rows[record].num != base[record].num for record in base):
        raise TransferError(f"{name}: {specialist} on {target} was not asked the parent's records; measure both alike.")
    ordered = [rows[record] for record in base]
    losses = [row.loss for row in ordered if row.loss is not None]
    return Scores(
        num=np.array([row.num for row in ordered]),
        right=np.array([row.right for row in ordered]),
        loss=np.array(losses) if len(losses) == len(ordered) else None,
    )
