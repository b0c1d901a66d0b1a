"""Records of ours as JSON text: dataclasses become objects, paths strings; NaN and infinities are refused."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def to_json(data: Any) -> str:
    """Indented, for people and programs. Raises ValueError for a number that JSON does not have."""
    return json.dumps(data, default=_plain, ensure_ascii=False, indent=2, allow_nan=False)


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in JSON")
