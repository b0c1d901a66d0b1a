"""What was made while serving and outlives a restart: personas and pulled models, in one small JSON file.

The file is replaced as a whole, under a lock, so that a crash leaves the old or the new one and two gateways with one
folder do not lose each other's changes. What the entries mean is `gateway.library`.
"""

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gateway.errors import StorageFailed
from gateway.personas import Persona
from modelfiles.errors import ModelfileError
from specialists.errors import CatalogueError, RequestRejected

logger = logging.getLogger("gateway")

MAX_FILE_BYTES = 16 * 1024**2
FILE_NAME = "models.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledModel:
    """Weights fetched from the hub by their address. `name` is complete, `created` is unix seconds."""

    name: str
    source: str
    created: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    personas: tuple[Persona, ...] = ()
    pulled: tuple[PulledModel, ...] = ()


class ShelfStore:
    """The file in `folder`. All calls block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE_NAME

    def read(self) -> Shelf:
        """What is kept; nothing yet counts as an empty shelf. Raises CatalogueError for a file that is not ours."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Shelf)
        except FileNotFoundError:
            return Shelf()
        except (OSError, msgspec.MsgspecError, ModelfileError) as error:
            raise CatalogueError(
                f"{self._path}: the personas and pulled models in it cannot be read ({error}); mend it, or move it away"
            ) from None

    def change(self, changed: Callable[[Shelf], Shelf]) -> Shelf:
        """Replace what is kept by what `changed` makes of it. Raises StorageFailed, and what `changed` raises."""
        try:
            with self._locked():
                shelf = changed(self.read())
                self._write(msgspec.json.format(msgspec.json.encode(shelf)))
        except OSError as error:
            logger.error("%s cannot be written: %s", self._path, error)
            raise StorageFailed(
                "This cannot be kept: the folder that COE_HOME names cannot be written "
                f"({error.strerror or type(error).__name__})."
            ) from None
        return shelf

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"{FILE_NAME}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, data: bytes) -> None:
        if len(data) > MAX_FILE_BYTES:
            raise RequestRejected(f"All personas may take {MAX_FILE_BYTES} bytes; delete some first.", param="model")
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
