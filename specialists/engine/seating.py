"""Who waits, who runs, and in which slot: the one owner of slots and queues.

A Sequence that runs sits in a slot; one that waits has none. What a slot holds outlives the Sequence that sat there
and gives the next one with the same beginning a start. Decides nothing about batches, and computes nothing.

One specialist is served at a time. Sequences of others keep their slots, suspended, until somebody who is served has
none; what then has to leave the cache is parked, and comes back when its conversation does.
"""

from collections import deque

from specialists.engine.kv_cache import KVCache
from specialists.engine.parking import Parked, ParkingLot
from specialists.engine.prefix_cache import Reuse, Slot, common_prefix_len, least_recently_used, plan_reuse
from specialists.engine.sequence import Sequence

WORTH_WAITING_TOKENS = 64  # a prefix this long, being computed by somebody else, is waited for and shared
HEAD_START_SECONDS = 5.0  # one step of priority counts as if the request had come this much earlier
WORTH_PARKING_TOKENS = 32  # fewer are computed again sooner than they are copied


class Seating:
    """`running` and `waiting` are for reading; `num_rounds` counts admissions, as a clock for what was used last.

    `serving` is whose Sequences are computed; None: nobody's. Without a `lot` nothing is parked.
    """

    def __init__(
        self, cache: KVCache, num_slots: int, *, serving: str | None = "", lot: ParkingLot | None = None
    ) -> None:
        self._cache = cache
        self._lot = lot
        self.serving = serving
        self._slots = [Slot(id) for id in range(num_slots)]
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._num_rounds = 0

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    @property
    def served(self) -> list[Sequence]:
        """Those that run and are of the specialist that is served; the others that run are suspended."""
        return [sequence for sequence in self.running if sequence.owner == self.serving]

    def find(self, id: str) -> list[Sequence]:
        return [sequence for sequence in (*self.running, *self.waiting) if sequence.id == id]

    def admit(self) -> list[Sequence]:
        """Give idle slots to waiting Sequences as `_turn` has it; returns those that now run."""
        self._num_rounds += 1
        admitted: list[Sequence] = []
        while (sequence := self._next_to_seat()) is not None and (self._has_idle_slot() or self.preempt_suspended()):
            self._unpark(sequence)
            reuse = plan_reuse(sequence.tokens, self._slots, self._cache, owner=sequence.owner)
            assert reuse is not None, "there is an idle slot"
            self.waiting.remove(sequence)
            self._seat(sequence, reuse)
            admitted.append(sequence)
        return admitted

    def _next_to_seat(self) -> Sequence | None:
        served = sorted((waiting for waiting in self.waiting if waiting.owner == self.serving), key=_turn)
        return next((waiting for waiting in served if not self._should_wait_to_share(waiting)), None)

    def _has_idle_slot(self) -> bool:
        return any(not slot.is_busy for slot in self._slots)

    def _should_wait_to_share(self, sequence: Sequence) -> bool:
        """Whether somebody is just computing a prefix that this Sequence needs too."""
        if not self._cache.can_share() or sequence.request.echo_logprobs:
            return False
        for other in self.served:
            if other.is_prefilling and not other.is_paused:
                common = common_prefix_len(sequence.tokens, other.prompt.tokens)
                if min(common, len(other.prompt.tokens) - 1) - other.num_computed >= WORTH_WAITING_TOKENS:
                    return True
        return False

    def _seat(self, sequence: Sequence, reuse: Reuse) -> None:
        slot = reuse.target
        keep = self._apply_reuse(reuse) if not sequence.request.echo_logprobs else 0
        if keep == 0:
            self._vacate(slot)
        slot.is_busy = True
        slot.owner = sequence.owner
        slot.last_used = self._num_rounds
        sequence.slot = slot
        sequence.num_computed = keep
        self.running.append(sequence)

    def _apply_reuse(self, reuse: Reuse) -> int:
        """Put the reusable tokens into the target slot; returns how many there are (0 if it did not work out)."""
        target, source, checkpoint = reuse.target, reuse.source, reuse.checkpoint
        if reuse.refuge is not None and self._move(target, reuse.refuge) and not reuse.in_place:
            self._empty(target)
        if source is None:
            return 0
        if reuse.in_place:
            if checkpoint is None:
                self._cache.truncate(target.id, reuse.keep)
            elif not self._cache.restore(target.id, checkpoint):
                target.forget()
                return 0
            target.truncate(reuse.keep)
            return reuse.keep
        self._vacate(target)
        if not self._cache.share(source.id, target.id, reuse.keep, checkpoint):
            return 0
        target.owner = source.owner
        target.tokens = source.tokens[: reuse.keep]
        target.checkpoints = [kept for kept in source.checkpoints if kept.num_tokens <= reuse.keep]
        return reuse.keep

    def _move(self, source: Slot, refuge: Slot) -> bool:
        """Copy all that an idle slot holds to another; the slot itself is overwritten next. False: no room for it."""
        self._vacate(refuge)
        if not self._cache.share(source.id, refuge.id, len(source.tokens)):
            return False
        refuge.owner = source.owner
        refuge.tokens = list(source.tokens)
        refuge.checkpoints = list(source.checkpoints)
        refuge.last_used = source.last_used
        return True

    def release(self, sequence: Sequence) -> None:
        """Take a Sequence out; what its cells hold stays for the next request with the same beginning."""
        if sequence.slot is not None:
            sequence.slot.is_busy = False
            sequence.slot.last_used = self._num_rounds
            sequence.slot.rewind_points = []
            sequence.slot = None
        if sequence in self.running:
            self.running.remove(sequence)
        if sequence in self.waiting:
            self.waiting.remove(sequence)

    def preempt(self, sequence: Sequence) -> None:
        """Take a Sequence's cells away; it keeps its tokens and sampler and goes on when there is room again."""
        slot = sequence.slot
        self.release(sequence)
        if slot is not None:
            self._vacate(slot)
        sequence.num_computed = 0
        sequence.prompt_logprobs.clear()
        self.waiting.appendleft(sequence)

    def preempt_suspended(self) -> bool:
        """Take the slot of whoever of another specialist was computed longest ago; False when there is nobody."""
        suspended = [(each.slot.last_used, each) for each in self.running if each.owner != self.serving and each.slot]
        if suspended:
            self.preempt(min(suspended, key=lambda pair: pair[0])[1])
        return bool(suspended)

    def drop_oldest_prefix(self) -> bool:
        """Give up the prefix that nobody runs on and that was used longest ago; False when there is none."""
        idle = [slot for slot in self._slots if not slot.is_busy and slot.tokens]
        if idle:
            self._vacate(min(idle, key=lambda slot: slot.last_used))
        return bool(idle)

    def preempt_all(self) -> list[Sequence]:
        """Take everybody's cells away and forget all prefixes; returns who ran, the latest first."""
        ran = list(reversed(self.running))
        for slot in self._slots:
            self._empty(slot)
        for sequence in ran:
            self.preempt(sequence)
        return ran

    def _unpark(self, sequence: Sequence) -> None:
        """Bring a conversation back that this Sequence continues, if no slot has as much of it."""
        parked = self._best_parked(sequence)
        if parked is None or self._lot is None:
            return
        slot = least_recently_used(slot for slot in self._slots if not slot.is_busy)
        self._vacate(slot)
        if self._cache.load(slot.id, parked.state):
            self._lot.remove(parked)
            slot.owner = parked.owner
            slot.tokens = list(parked.tokens)
            slot.checkpoints = list(parked.checkpoints)

    def _best_parked(self, sequence: Sequence) -> Parked | None:
        if self._lot is None or sequence.request.echo_logprobs:
            return None
        here = [common_prefix_len(sequence.tokens, slot.tokens) for slot in self._slots if slot.owner == sequence.owner]
        least = max(here, default=0) + WORTH_PARKING_TOKENS
        return self._lot.best(sequence.owner, sequence.tokens, least=least, divisible=self._cache.is_divisible)

    def _vacate(self, slot: Slot) -> None:
        """Empty a slot for somebody else; what it held is parked if it is worth it."""
        is_long = len(slot.tokens) >= WORTH_PARKING_TOKENS
        if self._lot is not None and is_long and self._cache.num_tokens(slot.id) == len(slot.tokens):
            state = self._cache.save(slot.id)
            self._lot.park(Parked(slot.owner, tuple(slot.tokens), state, tuple(slot.checkpoints)))
        self._empty(slot)

    def _empty(self, slot: Slot) -> None:
        self._cache.drop(slot.id)
        slot.forget()


def _turn(sequence: Sequence) -> tuple[bool, float]:
    """Who has begun to answer and had to leave comes first, then whoever came first; priority is a head start.

    So nobody waits for ever: a request of lower priority goes before all that come later than the difference.
    """
    return not sequence.is_started, sequence.arrived - HEAD_START_SECONDS * sequence.request.priority
