"""What is looked up for a chat, off the event loop: the index, the encoder, the search, and how long it took.

A chat never fails because of it: what cannot be looked up is left out, and a warning says why and how to mend it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from gateway.calculator.calls import EXAMPLE, INSTRUCTIONS
from gateway.knowledge.context_block import conversation_tokens, fitting, last_user_turn, with_context
from gateway.knowledge.encoders import open_encoder
from gateway.knowledge.errors import EncoderMismatch, KnowledgeError, NoIndex
from gateway.knowledge.searching import Hit, search
from gateway.knowledge.store import KnowledgeStore, Vector, open_store
from gateway.request import ChatRequest
from specialists.college_file import without_latest
from specialists.manifest import KnowledgeRules, SpecialistManifest
from specialists.request import Message
from supervisor.embedder import Embedder

logger = logging.getLogger("gateway")

MAX_QUESTION_CHARACTERS = 2000
SHORT_QUESTION_CHARACTERS = 60  # a shorter one leans on what was asked before
LEAST_ANSWER_SHARE = 4  # of the context, one part is kept for the answer


@dataclass(slots=True)
class LookUp:
    """What was looked up for one request. `seconds` are those of the search; `warning` None when nothing is amiss."""

    hits: tuple[Hit, ...] = ()
    warning: str | None = None
    seconds: float = 0.0

    def drop(self, warning: str) -> None:
        self.hits, self.warning = (), warning


class LookUpObserver(Protocol):
    """Who keeps the metrics."""

    def looked_up(self, specialist: str, *, seconds: float, outcome: str) -> None:
        """`outcome` is found, nothing or warning."""


@dataclass(frozen=True, kw_only=True)
class Librarian:
    """Looks things up in the indexes of a folder. `clock` is monotonic seconds."""

    folder: Path
    observer: LookUpObserver
    clock: Callable[[], float] = time.perf_counter
    open_encoder: Callable[[str], Embedder] = open_encoder
    _encoders: dict[str, Embedder] = field(default_factory=dict)

    async def look_up(self, request: ChatRequest, manifest: SpecialistManifest) -> tuple[ChatRequest, LookUp]:
        """The request with a context block, and what is in it. Never raises."""
        rules = manifest.knowledge
        assert rules is not None
        budget = min(rules.tokens, room_for_context(request, manifest))
        found = await asyncio.get_running_loop().run_in_executor(self._thread, self._found, request, rules, budget)
        outcome = "warning" if found.warning else "found" if found.hits else "nothing"
        self.observer.looked_up(manifest.tag, seconds=found.seconds, outcome=outcome)
        return with_context(request, found.hits), found

    def _found(self, request: ChatRequest, rules: KnowledgeRules, budget: int) -> LookUp:
        begun = self.clock()
        try:
            found = self._search(request, rules, budget)
        except KnowledgeError as error:
            found = LookUp(warning=f"Nothing was looked up: {error}.")
        except Exception as error:  # the boundary to a part that requests must outlive
            logger.error("looking up for %s failed", rules.index, exc_info=error)
            found = LookUp(warning="Nothing was looked up: the index failed; the gateway's log says how.")
        found.seconds = self.clock() - begun
        return found

    def _search(self, request: ChatRequest, rules: KnowledgeRules, budget: int) -> LookUp:
        question = question_of(request.messages)
        if not question:
            return LookUp()
        try:
            with open_store(index_path(self.folder, rules.index)) as store:
                vector, warning = self._vector(store, question, rules.index)
                hits = search(store, question, vector, limit=rules.passages)
        except NoIndex:
            raise NoIndex(
                f"there is no index for {rules.index}; make one with: coe knowledge add DIR --specialist {rules.index}"
            ) from None
        kept = tuple(fitting(hits, budget))
        if hits and not kept:
            warning = "What was found has no room beside the conversation; raise context, or shorten it."
        return LookUp(kept, warning)

    def _vector(self, store: KnowledgeStore, question: str, index: str) -> tuple[Vector | None, str | None]:
        """None with a warning where the index's encoder is not here; then words must do."""
        try:
            if store.encoder not in self._encoders:
                self._encoders[store.encoder] = self.open_encoder(store.encoder)
        except EncoderMismatch as error:
            return None, (
                f"Only words were compared: {error}. Mend it with: coe knowledge add DIR --specialist {index} --rebuild"
            )
        return self._encoders[store.encoder].embed(question), None

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=1, thread_name_prefix="knowledge")


def index_path(folder: Path, tag: str) -> Path:
    """Where a specialist's index lies below `folder`, whatever its tag holds."""
    return folder / f"{quote(without_latest(tag), safe='')}.sqlite"


def knowledge_folder(home: Path) -> Path:
    return home.expanduser() / "knowledge"


def question_of(messages: Sequence[Message]) -> str:
    """What the user asked last; a short question with the one before it, on which it may lean."""
    index = last_user_turn(messages)
    if index is None:
        return ""
    question = messages[index].content.strip()
    before = last_user_turn(messages[:index]) if len(question) < SHORT_QUESTION_CHARACTERS else None
    if before is not None:
        question = f"{messages[before].content.strip()[:MAX_QUESTION_CHARACTERS]}\n{question}"
    return question[-MAX_QUESTION_CHARACTERS:]


def room_for_context(request: ChatRequest, manifest: SpecialistManifest) -> int:
    """How many tokens are left beside the conversation and a fair answer; 0 or less means none."""
    answer = min(request.max_tokens or manifest.max_tokens, manifest.context_tokens // LEAST_ANSWER_SHARE)
    told = (Message("system", INSTRUCTIONS), *EXAMPLE) if manifest.calculator else ()
    own = conversation_tokens((Message("system", manifest.system or ""), *told, *manifest.examples))
    return manifest.context_tokens - conversation_tokens(request.messages) - own - answer
