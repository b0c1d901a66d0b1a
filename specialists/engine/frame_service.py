"""What an engine process does about its frame when it is asked: become another member, read ahead, be checked.

Errors become answers here. A morph that was refused before it began and one that broke off are answered alike, as
both mean that the frame is to be given up; in the second case it also serves nobody any more.
"""

import threading
from collections.abc import Callable

from specialists.engine.expert_files import SourceChanged
from specialists.engine.frame import Frame
from specialists.engine.messages import FrameChecked, Morphed, MorphRefused
from specialists.family import Family


class FrameService:
    """One frame and its family; `frame` None means an engine that cannot become anything else.

    `morph` and `check` belong to the engine's thread; `read_ahead` may be called from any.
    """

    def __init__(self, frame: Frame | None, family: Family | None, *, clock: Callable[[], float]) -> None:
        self._frame = frame
        self._family = family
        self._clock = clock

    def morph(self, name: str, *, on_write: Callable[[], None]) -> Morphed | MorphRefused:
        if self._frame is None or self._family is None or name not in self._family.members:
            return MorphRefused(name, "this engine has no frame that could become it")
        try:
            slots = self._family.members[name]
            return Morphed(name, self._frame.morph(name, slots, clock=self._clock, on_write=on_write))
        except SourceChanged as error:
            return MorphRefused(name, str(error))
        except Exception as error:  # noqa: BLE001 - whatever it was, the frame must not be served as it is
            return MorphRefused(name, f"the morph broke off ({type(error).__name__}: {error})")

    @property
    def serving(self) -> str | None:
        """The member whose experts all slots hold; None while there is none. Without a frame, nothing of note."""
        return self._frame.serving if self._frame is not None else ""

    def read_ahead(self, name: str) -> None:
        """Start reading what a morph to `name` would need, in a thread that nobody waits for."""
        if self._frame is not None and self._family is not None and name in self._family.members:
            slots = self._family.members[name]
            threading.Thread(target=self._frame.read_ahead, args=(slots,), daemon=True).start()

    def check(self, *, num_slots: int, seed: int) -> FrameChecked:
        return FrameChecked(self._frame.check(num_slots=num_slots, seed=seed) if self._frame is not None else None)
