"""The engine: many Sequences, one context, one step at a time.

A step admits what has arrived, schedules a batch, decodes it and draws the next token of each Sequence that is due;
`answering` says what comes of it. Nothing here waits: `host` calls `step` in a loop and carries messages in and out.

One request's misfortune stays its own. When the cache is full, prefixes nobody runs go first, then the youngest
Sequence gives up its cells and computes them again later. When a decode fails outright the cells are worthless, so
everybody starts over from their tokens, one at a time, until the one that cannot be computed has been found.
"""

from collections.abc import Callable

from specialists.engine.answering import Answering
from specialists.engine.batch_scheduler import Chunk, PrefillBudget, schedule
from specialists.engine.kv_cache import KVCache
from specialists.engine.llama import Batch, Context, DecodeFailed, NoCacheRoom, Vocabulary
from specialists.engine.messages import FromEngine
from specialists.engine.parking import ParkingLot
from specialists.engine.prefix_cache import Slot
from specialists.engine.rewind import Rewinder
from specialists.engine.sampler import token_logprob
from specialists.engine.seating import Seating
from specialists.engine.sequence import Sequence
from specialists.errors import ContextOverflow, GenerationFailed
from specialists.request import TokenLogprob

REWIND_POINT_TOKENS = 1024  # a window is some 200 MB at its largest, so few are kept and they are taken rarely


class Engine:
    """Owns every Sequence and slot of one context. Not thread-safe: one thread calls everything."""

    def __init__(
        self,
        context: Context,
        vocabulary: Vocabulary,
        cache: KVCache,
        *,
        emit: Callable[[FromEngine], None],
        clock: Callable[[], float],
        visible_markup: frozenset[int] = frozenset(),
        serving: str | None = "",
        lot: ParkingLot | None = None,
    ) -> None:
        self._context = context
        self._vocabulary = vocabulary
        self._cache = cache
        self._clock = clock
        self._visible_markup = visible_markup
        self._batch = Batch(context.params.batch_tokens)
        self._budget = PrefillBudget(batch_tokens=context.params.batch_tokens)
        self._seating = Seating(cache, context.params.max_sequences, serving=serving, lot=lot)
        self._rewinder = Rewinder(cache, vocabulary, self._piece)
        self._answering = Answering(
            vocabulary, self._rewinder, piece=self._piece, emit=emit, release=self._release, clock=clock
        )
        self._suspects: list[Sequence] = []

    # ── what the host may ask ────────────────────────────────────────────────

    @property
    def num_running(self) -> int:
        return len(self._seating.running)

    @property
    def num_waiting(self) -> int:
        return len(self._seating.waiting)

    def serve(self, owner: str | None) -> None:
        """From the next step on compute the Sequences of that specialist alone; None: nobody's.

        On return nothing is being computed any more, so that the weights may be written.
        """
        self._context.synchronize()
        self._seating.serving = owner

    def add(self, sequence: Sequence) -> None:
        self._seating.add(sequence)

    def abort(self, id: str) -> None:
        """Forget a request; its cells are free for the next step. Unknown ids are ignored."""
        for sequence in self._seating.find(id):
            self._release(sequence)
            sequence.sampler.close()

    def set_paused(self, id: str, is_paused: bool) -> None:
        for sequence in self._seating.find(id):
            sequence.is_paused = is_paused

    def step(self) -> bool:
        """Advance everything by one batch; False when there was nothing to do."""
        self._admit()
        chunks = schedule(
            self._trial() or self._seating.served,
            batch_tokens=self._context.params.batch_tokens,
            budget=self._budget,
            stop_at_boundaries=self._cache.needs_checkpoints,
        )
        if not chunks:
            return False
        started = self._clock()
        for chunk, first_index in self._decode(chunks):
            self._advance(chunk, first_index)
        prefilled = sum(chunk.num_tokens for chunk in chunks if chunk.num_tokens > 1)
        self._budget.observe(prefilled, self._clock() - started)
        return True

    def _admit(self) -> None:
        for sequence in self._seating.admit():
            if not sequence.is_started and not sequence.request.echo_logprobs:
                sequence.num_cached = sequence.num_computed
                self._answering.start(sequence)

    def _trial(self) -> list[Sequence]:
        """After a failed decode: the one suspect that is computed next; empty when there are none."""
        return [sequence for sequence in self._suspects if sequence in self._seating.served][:1]

    def _release(self, sequence: Sequence) -> None:
        self._seating.release(sequence)
        if sequence in self._suspects:
            self._suspects.remove(sequence)

    def _piece(self, token: int) -> bytes:
        return self._vocabulary.piece(token, show_markup=token in self._visible_markup)

    # ── decoding ─────────────────────────────────────────────────────────────

    def _decode(self, chunks: list[Chunk]) -> list[tuple[Chunk, int]]:
        """Compute chunks; returns those that were, each with its first index in the batch."""
        while chunks:
            placed = self._fill_batch(chunks)
            try:
                self._context.decode(self._batch)
            except NoCacheRoom:
                chunks = self._make_room(chunks)
            except DecodeFailed as error:
                self._start_over(chunks, error)
                return []
            else:
                return placed
        return []

    def _fill_batch(self, chunks: list[Chunk]) -> list[tuple[Chunk, int]]:
        self._batch.clear()
        placed = []
        # llama.cpp computes neighbouring Sequences together only where their ids follow each other.
        for chunk in sorted(chunks, key=lambda chunk: chunk.sequence.slot_id):
            sequence, count = chunk
            start = sequence.num_computed
            wanted = "last" if count == sequence.num_pending else "none"
            logits = "all" if sequence.scores_prompt else wanted
            placed.append((chunk, len(self._batch)))
            tokens = sequence.tokens[start : start + count]
            self._batch.add(tokens, position=start, sequence_id=sequence.slot_id, logits=logits)
        return placed

    def _make_room(self, chunks: list[Chunk]) -> list[Chunk]:
        """After a full cache: drop an idle prefix, else preempt the youngest; returns the chunks still to compute."""
        if self._seating.drop_oldest_prefix() or self._seating.preempt_suspended():
            return chunks
        youngest = max(self._seating.running, key=lambda sequence: sequence.arrived)
        if self.num_running == 1:
            message = "The cache cannot hold this conversation."
            self._answering.fail(youngest, ContextOverflow.code, message, "messages")
            return []
        self._preempt(youngest)
        return [chunk for chunk in chunks if chunk.sequence is not youngest]

    def _preempt(self, sequence: Sequence) -> None:
        self._seating.preempt(sequence)
        if sequence in self._suspects:
            self._suspects.remove(sequence)

    def _start_over(self, chunks: list[Chunk], error: DecodeFailed) -> None:
        """After a failed decode: nothing in the cache can be trusted."""
        if len(chunks) == 1 and chunks[0].sequence in self._suspects:
            message = f"This request cannot be computed: {error}."
            self._answering.fail(chunks[0].sequence, GenerationFailed.code, message, None)
        preempted = self._seating.preempt_all()
        self._suspects = [each for each in self._suspects if each not in preempted] + preempted

    # ── after a decode ───────────────────────────────────────────────────────

    def _advance(self, chunk: Chunk, first_index: int) -> None:
        sequence, count = chunk
        slot = sequence.slot
        assert slot is not None
        start = sequence.num_computed
        if sequence.scores_prompt:
            self._collect_prompt_logprobs(sequence, first_index, count)
        sequence.num_computed = start + count
        slot.tokens += sequence.tokens[start : start + count]
        if self._cache.needs_checkpoints:
            self._take_checkpoint(sequence, slot)
        if sequence.num_pending > 0:
            return
        if sequence in self._suspects:
            self._suspects.remove(sequence)
        if not sequence.is_started:
            self._answering.start(sequence)
        if sequence.num_pending == 0:
            self._draw(sequence, first_index + count - 1)

    def _take_checkpoint(self, sequence: Sequence, slot: Slot) -> None:
        """Remember the window where other requests, or a rewind of this one, may want to go back to."""
        num_tokens = sequence.num_computed
        if num_tokens in sequence.prompt.boundaries:
            slot.add_checkpoint(self._cache.checkpoint(slot.id))
        elif sequence.may_rewind and num_tokens - slot.last_rewind_point(sequence.num_prompt) >= REWIND_POINT_TOKENS:
            slot.add_rewind_point(self._cache.checkpoint(slot.id))

    def _draw(self, sequence: Sequence, index: int) -> None:
        """Draw the next token from the logits at a batch index."""
        wanted = sequence.request.logprobs
        raw = self._context.logits(index).copy() if wanted is not None else None
        if sequence.matcher is not None:
            sequence.matcher.mask(self._context.logits(index))
        watch = sequence.watch
        if watch is not None and watch.is_rescuing:
            self._rewinder.before_draw(sequence, self._context.logits(index))
        token = sequence.sampler.sample(self._context, index)
        if watch is not None and watch.may_redraw_first:
            token = self._rewinder.redraw_first(sequence, self._context, index, token)
        logprob = token_logprob(raw, token, wanted or 0, self._vocabulary) if raw is not None else None
        forced = sequence.matcher.accept(token) if sequence.matcher is not None else []
        if self._answering.append(sequence, token, logprob):
            self._answering.append_forced(sequence, forced)

    def _collect_prompt_logprobs(self, sequence: Sequence, first_index: int, count: int) -> None:
        """Log-probabilities of the prompt tokens that follow each token of this chunk; the first one has none."""
        if not sequence.prompt_logprobs:
            first = sequence.tokens[0]
            sequence.prompt_logprobs.append(TokenLogprob(first, self._vocabulary.piece(first, show_markup=True), None))
        start = sequence.num_computed
        for offset in range(count):
            following = start + offset + 1
            if following < len(sequence.prompt.tokens):
                logits = self._context.logits(first_index + offset)
                token, num_top = sequence.tokens[following], sequence.request.logprobs or 0
                sequence.prompt_logprobs.append(token_logprob(logits, token, num_top, self._vocabulary))
