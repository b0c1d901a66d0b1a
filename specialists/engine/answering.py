"""What becomes of a token once it is drawn: text that leaves, the end of the answer, or a loop that is taken back.

Owns what is said to the other side. It neither computes nor draws: `engine` does, and `rewind` takes tokens back.
"""

from collections.abc import Callable

from specialists.engine.llama import Vocabulary
from specialists.engine.loop_rescue import Hit, Rung
from specialists.engine.messages import Event, Failed, FromEngine
from specialists.engine.rewind import Rewinder
from specialists.engine.sequence import Sequence
from specialists.errors import InvalidSchema
from specialists.request import Finished, FinishReason, GenerationEvent, Started, TokenLogprob, Tokens


class Answering:
    """`piece` gives a token's bytes as they appear in the text; `release` is called with a Sequence that has ended."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        rewinder: Rewinder,
        *,
        piece: Callable[[int], bytes],
        emit: Callable[[FromEngine], None],
        release: Callable[[Sequence], None],
        clock: Callable[[], float],
    ) -> None:
        self._vocabulary = vocabulary
        self._rewinder = rewinder
        self._piece = piece
        self._emit = emit
        self._release = release
        self._clock = clock

    def start(self, sequence: Sequence) -> None:
        """Say that the prompt was accepted, and add what a schema makes every answer begin with."""
        sequence.is_started = True
        self._emit_event(
            sequence,
            Started(
                prompt_tokens=len(sequence.prompt.tokens),
                cached_tokens=sequence.num_cached,
                queue_seconds=self._clock() - sequence.arrived,
                prompt_logprobs=tuple(sequence.prompt_logprobs),
                tool_format=sequence.tool_format,
            ),
        )
        if sequence.matcher is not None:
            self.append_forced(sequence, sequence.matcher.start())

    def append(self, sequence: Sequence, token: int, logprob: TokenLogprob | None) -> bool:
        """Add a token to the answer and emit the text that became certain; False if another one cannot follow it now:
        the answer has ended, or has become shorter."""
        sequence.tokens.append(token)
        if self._vocabulary.ends_generation(token):
            return self.finish(sequence, FinishReason.STOP)
        fresh = sequence.text.decode(self._piece(token))
        watch = sequence.watch
        hit = watch.sees_loop(token, fresh, sequence.text) if watch is not None else None
        text = sequence.text.add(fresh, logprob)
        if sequence.text.is_stopped:
            return self.finish(sequence, FinishReason.STOP, text)
        if hit is not None and self._leave_loop(sequence, hit):
            return False
        if sequence.num_generated >= sequence.max_tokens:
            return self.finish(sequence, FinishReason.LENGTH, text)
        self._emit_text(sequence, text)
        return True

    def append_forced(self, sequence: Sequence, tokens: list[int]) -> None:
        """Add what the schema leaves no choice about, and end the answer where the schema does."""
        wants_logprobs = sequence.request.logprobs is not None
        for token in tokens:
            sequence.sampler.accept(token)
            certain = TokenLogprob(token, self._vocabulary.piece(token), 0.0) if wants_logprobs else None
            if not self.append(sequence, token, certain):
                return
        matcher = sequence.matcher
        if matcher is not None and matcher.error is not None:
            message = f"The answer could not be kept to the JSON schema: {matcher.error[:300]}"
            self.fail(sequence, InvalidSchema.code, message, "tools" if sequence.tool_format else "response_format")
        elif matcher is not None and matcher.is_finished:
            self.finish(sequence, FinishReason.STOP)

    def _leave_loop(self, sequence: Sequence, hit: Hit) -> bool:
        """Take the loop back and go on differently, or end; False where the schema leaves no other way."""
        watch = sequence.watch
        assert watch is not None
        if sequence.matcher is not None:
            place = sequence.matcher.first_choice(sequence.answer, max(hit.onset, hit.num_shown))
            if place is None:
                return False
            hit = hit._replace(onset=place)
        step = watch.next_step(hit)
        if step.rung is not Rung.END:
            self._rewinder.rewind(sequence, step)
            return True
        self._rewinder.cut(sequence, step)
        # Half an object is what clients know from answers that hit their limit; it must not pass for a whole one.
        is_whole = sequence.matcher is None or sequence.matcher.may_end
        self.finish(sequence, FinishReason.STOP if is_whole else FinishReason.LENGTH)
        return True

    def finish(self, sequence: Sequence, reason: FinishReason, text: str = "") -> bool:
        """End the answer; returns False, as nothing follows."""
        self._emit_text(sequence, text + sequence.text.flush())
        report = sequence.watch.report(sequence.num_generated) if sequence.watch is not None else None
        self._emit_event(sequence, Finished(reason, sequence.usage, report, sequence.text.stopped_by))
        self._end(sequence)
        return False

    def fail(self, sequence: Sequence, code: str, message: str, param: str | None) -> None:
        self._emit(Failed(sequence.id, code, message, param))
        self._end(sequence)

    def _end(self, sequence: Sequence) -> None:
        self._release(sequence)
        sequence.sampler.close()

    def _emit_text(self, sequence: Sequence, text: str) -> None:
        logprobs = sequence.text.take_logprobs()
        is_sign_of_life = sequence.num_told == 0 and sequence.watch is not None and sequence.watch.is_whole
        if text or logprobs or is_sign_of_life:
            num_draws = max(1, sequence.num_generated - sequence.num_told)
            self._emit_event(sequence, Tokens(text, logprobs, num_draws))
            sequence.num_told = sequence.num_generated

    def _emit_event(self, sequence: Sequence, event: GenerationEvent) -> None:
        self._emit(Event(sequence.id, event))
