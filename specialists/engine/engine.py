"""The engine: many Sequences, one context, one step at a time.

A step admits what has arrived, schedules a batch, decodes it, draws the next token of each Sequence that is due and
emits what became certain. Nothing here waits: `host` calls `step` in a loop and carries messages in and out.

One request's misfortune stays its own. When the cache is full, prefixes nobody runs go first, then the youngest
Sequence gives up its cells and computes them again later. When a decode fails outright the cells are worthless, so
everybody starts over from their tokens, one at a time, until the one that cannot be computed has been found.
"""

from collections import deque
from collections.abc import Callable

from specialists.engine.batch_scheduler import Chunk, PrefillBudget, schedule
from specialists.engine.kv_cache import KVCache
from specialists.engine.llama import Batch, Context, DecodeFailed, NoCacheRoom, Vocabulary
from specialists.engine.messages import Event, Failed, FromEngine
from specialists.engine.prefix_cache import Reuse, Slot, common_prefix_len, plan_reuse
from specialists.engine.sampler import token_logprob
from specialists.engine.sequence import Sequence
from specialists.errors import ContextOverflow, GenerationFailed, InvalidSchema
from specialists.request import Finished, FinishReason, GenerationEvent, Started, TokenLogprob, Tokens

WORTH_WAITING_TOKENS = 64  # a prefix this long, being computed by somebody else, is waited for and shared
MAX_CHECKPOINTS = 3  # per slot: the system prompt's and the last two turns'


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
    ) -> None:
        self._context = context
        self._vocabulary = vocabulary
        self._cache = cache
        self._emit = emit
        self._clock = clock
        self._visible_markup = visible_markup
        self._batch = Batch(context.params.batch_tokens)
        self._budget = PrefillBudget(batch_tokens=context.params.batch_tokens)
        self._slots = [Slot(id) for id in range(context.params.max_sequences)]
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._suspects: list[Sequence] = []
        self._steps = 0

    # ── what the host may ask ────────────────────────────────────────────────

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def add(self, sequence: Sequence) -> None:
        self._waiting.append(sequence)

    def abort(self, id: str) -> None:
        """Forget a request; its cells are free for the next step. Unknown ids are ignored."""
        for sequence in self._find(id):
            self._release(sequence)
            sequence.sampler.close()

    def set_paused(self, id: str, is_paused: bool) -> None:
        for sequence in self._find(id):
            sequence.is_paused = is_paused

    def step(self) -> bool:
        """Advance everything by one batch; False when there was nothing to do."""
        self._steps += 1
        self._admit()
        chunks = schedule(
            self._trial() or self._running,
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

    def _trial(self) -> list[Sequence]:
        """After a failed decode: the one suspect that is computed next; empty when there are none."""
        return [sequence for sequence in self._suspects if sequence.slot is not None][:1]

    # ── admission ────────────────────────────────────────────────────────────

    def _admit(self) -> None:
        """Give idle slots to waiting Sequences, oldest first."""
        for _ in range(min(len(self._waiting), sum(not slot.is_busy for slot in self._slots))):
            sequence = next((waiting for waiting in self._waiting if not self._should_wait_to_share(waiting)), None)
            reuse = plan_reuse(sequence.tokens, self._slots, self._cache) if sequence is not None else None
            if sequence is None or reuse is None:
                return
            self._waiting.remove(sequence)
            self._start(sequence, reuse)

    def _should_wait_to_share(self, sequence: Sequence) -> bool:
        """Whether somebody is just computing a prefix that this Sequence needs too."""
        if not self._cache.can_share() or sequence.request.echo_logprobs:
            return False
        for other in self._running:
            if other.is_prefilling and not other.is_paused:
                common = common_prefix_len(sequence.tokens, other.prompt.tokens)
                if min(common, len(other.prompt.tokens) - 1) - other.num_computed >= WORTH_WAITING_TOKENS:
                    return True
        return False

    def _start(self, sequence: Sequence, reuse: Reuse) -> None:
        slot = reuse.target
        keep = 0 if sequence.request.echo_logprobs else self._apply_reuse(reuse)
        if keep == 0:
            self._cache.drop(slot.id)
            slot.forget()
        slot.is_busy = True
        slot.last_used = self._steps
        sequence.slot = slot
        sequence.num_computed = keep
        self._running.append(sequence)
        if not sequence.is_started and not sequence.request.echo_logprobs:
            sequence.num_cached = keep
            self._emit_started(sequence)

    def _apply_reuse(self, reuse: Reuse) -> int:
        """Put the reusable tokens into the target slot; returns how many there are (0 if it did not work out)."""
        target, source, checkpoint = reuse.target, reuse.source, reuse.checkpoint
        if source is None:
            return 0
        if reuse.in_place:
            if checkpoint is None:
                self._cache.truncate(target.id, reuse.keep)
            elif not self._cache.restore(target.id, checkpoint):
                return 0
            target.truncate(reuse.keep)
            return reuse.keep
        self._cache.drop(target.id)
        if not self._cache.share(source.id, target.id, reuse.keep, checkpoint):
            return 0
        target.tokens = source.tokens[: reuse.keep]
        target.checkpoints = [kept for kept in source.checkpoints if kept.num_tokens <= reuse.keep]
        return reuse.keep

    def _emit_started(self, sequence: Sequence) -> None:
        sequence.is_started = True
        self._emit_event(
            sequence,
            Started(
                prompt_tokens=len(sequence.prompt.tokens),
                cached_tokens=sequence.num_cached,
                queue_seconds=self._clock() - sequence.arrived,
                prompt_logprobs=tuple(sequence.prompt_logprobs),
            ),
        )
        if sequence.matcher is not None:
            self._append_forced(sequence, sequence.matcher.start())

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
            if sequence.request.echo_logprobs and sequence.is_prefilling:
                logits = "all"
            else:
                logits = "last" if count == sequence.num_pending else "none"
            placed.append((chunk, len(self._batch)))
            tokens = sequence.tokens[start : start + count]
            self._batch.add(tokens, position=start, sequence_id=sequence.slot_id, logits=logits)
        return placed

    def _make_room(self, chunks: list[Chunk]) -> list[Chunk]:
        """After a full cache: drop an idle prefix, else preempt the youngest; returns the chunks still to compute."""
        idle = [slot for slot in self._slots if not slot.is_busy and slot.tokens]
        if idle:
            oldest = min(idle, key=lambda slot: slot.last_used)
            self._cache.drop(oldest.id)
            oldest.forget()
            return chunks
        youngest = max(self._running, key=lambda sequence: sequence.arrived)
        if len(self._running) == 1:
            self._fail(youngest, ContextOverflow.code, "The cache cannot hold this conversation.", "messages")
            return []
        self._preempt(youngest)
        return [chunk for chunk in chunks if chunk.sequence is not youngest]

    def _preempt(self, sequence: Sequence) -> None:
        """Take a Sequence's cells away; it keeps its tokens and sampler and goes on when there is room again."""
        slot = sequence.slot
        self._release(sequence)
        if slot is not None:
            self._cache.drop(slot.id)
            slot.forget()
        sequence.num_computed = 0
        sequence.prompt_logprobs.clear()
        self._waiting.appendleft(sequence)

    def _start_over(self, chunks: list[Chunk], error: DecodeFailed) -> None:
        """After a failed decode: nothing in the cache can be trusted."""
        if len(chunks) == 1 and chunks[0].sequence in self._suspects:
            self._fail(chunks[0].sequence, GenerationFailed.code, f"This request cannot be computed: {error}.", None)
        for sequence in reversed(list(self._running)):
            self._preempt(sequence)
            if sequence not in self._suspects:
                self._suspects.append(sequence)
        for slot in self._slots:
            self._cache.drop(slot.id)
            slot.forget()

    # ── after a decode ───────────────────────────────────────────────────────

    def _advance(self, chunk: Chunk, first_index: int) -> None:
        sequence, count = chunk
        slot = sequence.slot
        assert slot is not None
        start = sequence.num_computed
        if sequence.request.echo_logprobs and sequence.is_prefilling:
            self._collect_prompt_logprobs(sequence, first_index, count)
        sequence.num_computed = start + count
        slot.tokens += sequence.tokens[start : start + count]
        if self._cache.needs_checkpoints and sequence.num_computed in sequence.prompt.boundaries:
            kept = slot.checkpoints[:1] + slot.checkpoints[1:][-(MAX_CHECKPOINTS - 2) :]
            slot.checkpoints = [*kept, self._cache.checkpoint(slot.id)]
        if sequence.num_pending > 0:
            return
        if sequence in self._suspects:
            self._suspects.remove(sequence)
        if not sequence.is_started:
            self._emit_started(sequence)
        if sequence.num_pending == 0:
            self._draw(sequence, first_index + count - 1)

    def _draw(self, sequence: Sequence, index: int) -> None:
        """Draw the next token from the logits at a batch index."""
        wanted = sequence.request.logprobs
        raw = self._context.logits(index).copy() if wanted is not None else None
        if sequence.matcher is not None:
            sequence.matcher.mask(self._context.logits(index))
        token = sequence.sampler.sample(self._context, index)
        logprob = token_logprob(raw, token, wanted or 0, self._vocabulary) if raw is not None else None
        forced = sequence.matcher.accept(token) if sequence.matcher is not None else []
        if self._append(sequence, token, logprob):
            self._append_forced(sequence, forced)

    def _append(self, sequence: Sequence, token: int, logprob: TokenLogprob | None) -> bool:
        """Add a token to the answer and emit the text that became certain; False if the answer ends with it."""
        sequence.tokens.append(token)
        if self._vocabulary.ends_generation(token):
            return self._finish(sequence, FinishReason.STOP)
        piece = self._vocabulary.piece(token, show_markup=token in self._visible_markup)
        text = sequence.text.push(piece, logprob)
        if sequence.text.is_stopped:
            return self._finish(sequence, FinishReason.STOP, text)
        if sequence.num_generated >= sequence.max_tokens:
            return self._finish(sequence, FinishReason.LENGTH, text)
        self._emit_text(sequence, text)
        return True

    def _append_forced(self, sequence: Sequence, tokens: list[int]) -> None:
        """Add what the schema leaves no choice about, and end the answer where the schema does."""
        wants_logprobs = sequence.request.logprobs is not None
        for token in tokens:
            sequence.sampler.accept(token)
            certain = TokenLogprob(token, self._vocabulary.piece(token), 0.0) if wants_logprobs else None
            if not self._append(sequence, token, certain):
                return
        matcher = sequence.matcher
        if matcher is not None and matcher.error is not None:
            message = f"The answer could not be kept to the JSON schema: {matcher.error[:300]}"
            self._fail(sequence, InvalidSchema.code, message, "response_format")
        elif matcher is not None and matcher.is_finished:
            self._finish(sequence, FinishReason.STOP)

    def _emit_text(self, sequence: Sequence, text: str) -> None:
        logprobs = sequence.text.take_logprobs()
        if text or logprobs:
            self._emit_event(sequence, Tokens(text, logprobs))

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

    # ── endings ──────────────────────────────────────────────────────────────

    def _finish(self, sequence: Sequence, reason: FinishReason, text: str = "") -> bool:
        self._emit_text(sequence, text + sequence.text.flush())
        self._emit_event(sequence, Finished(reason, sequence.usage))
        self._release(sequence)
        sequence.sampler.close()
        return False

    def _fail(self, sequence: Sequence, code: str, message: str, param: str | None) -> None:
        self._emit(Failed(sequence.id, code, message, param))
        self._release(sequence)
        sequence.sampler.close()

    def _release(self, sequence: Sequence) -> None:
        """Take a Sequence out; what its cells hold stays for the next request with the same beginning."""
        if sequence.slot is not None:
            sequence.slot.is_busy = False
            sequence.slot.last_used = self._steps
            sequence.slot = None
        if sequence in self._running:
            self._running.remove(sequence)
        if sequence in self._waiting:
            self._waiting.remove(sequence)
        if sequence in self._suspects:
            self._suspects.remove(sequence)

    def _find(self, id: str) -> list[Sequence]:
        return [sequence for sequence in (*self._running, *self._waiting) if sequence.id == id]

    def _emit_event(self, sequence: Sequence, event: GenerationEvent) -> None:
        self._emit(Event(sequence.id, event))
