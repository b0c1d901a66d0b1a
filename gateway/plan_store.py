"""What is known of engines' memory from earlier runs, kept on disk: a file for each model, build and size.

Everything here can be worked out again, so a file that cannot be read counts as none, and with a folder that cannot be
written to all is forgotten when the process ends. What the numbers mean is known to `footprints`.
"""

import logging
import os
import tempfile
from pathlib import Path

import msgspec
from msgspec import Struct

from specialists.engine.messages import DryRun

logger = logging.getLogger("gateway")


class KnownPlan(Struct, frozen=True, kw_only=True):
    """What llama.cpp's dry run said, and what engines then took beside it: bytes, None before the first one.

    `idle_bytes` is what one took once it was loaded, `worked_bytes` the most that one took when it was ended. `model`
    is a name for whoever looks into the folder.
    """

    model: str
    dry_run: DryRun
    idle_bytes: int | None = None
    worked_bytes: int | None = None


class PlanStore:
    """Plans by key, in `folder` (None: nowhere). A key is a file name."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._written: dict[str, KnownPlan] = {}

    def read(self, key: str) -> KnownPlan | None:
        written = self._written.get(key)
        if self._folder is None:
            return written
        try:
            return msgspec.json.decode((self._folder / f"{key}.json").read_bytes(), type=KnownPlan)
        except (OSError, msgspec.DecodeError):
            return written

    def write(self, key: str, plan: KnownPlan) -> None:
        """Keep `plan`, all of it or none."""
        self._written[key] = plan
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".part", delete=False) as file:
                file.write(msgspec.json.encode(plan))
            os.replace(file.name, self._folder / f"{key}.json")
        except OSError as error:
            logger.warning("the plan of %s cannot be kept (%s); it will be made again", plan.model, error)
