"""What a specialist is really asked, given what the client wished: a pure function, and an account of changes.

Rules, in the order in which they are applied:

1. Messages: the specialist's own system text comes first. A client's leading system text follows it in the same
   turn, after a blank line; it can add to the specialist's instructions, not replace them. The Modelfile's
   example turns come next, then the conversation. `developer` is another name for `system`.
2. A conversation that ends with the assistant is continued: an empty closed think block at the start of that
   last turn is dropped (the policy adds its own), what remains is the text to continue.
3. The closed think block begins every answer to a conversation. Raw completions have no turns and get none.
4. Temperature: `enforce` takes the specialist's, `clamp` moves the client's into 0 to 0.7 (specialists are
   tuned for 0.6 and drift above), `allow` takes the client's.
5. Everything else is the client's where it asked and the specialist's where it did not; repeat_penalty
   stays within 1 to 1.5, max_tokens below the specialist's own limit.
6. Loop guard: the mode that the client names, unless the specialist's rules keep it from choosing.
7. A specialist with a calculator is told how to use it after its own system text, and shown it in an example turn,
   unless the client declines, or the answer has to follow a schema or may call the client's own tools: neither leaves
   room for calls of ours.

It knows no HTTP and no engine. Randomness is not drawn here: a request without a seed stays without one.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from msgspec.structs import replace as replace_struct

from gateway.calculator.calls import CALL_MARKS, EXAMPLE, INSTRUCTIONS
from gateway.request import ChatRequest, CompletionRequest, SamplingWishes
from gateway.settings import TemperaturePolicy
from specialists.errors import RequestRejected
from specialists.manifest import LoopGuardRules, SpecialistManifest
from specialists.request import (
    ChatPrompt,
    GenerationRequest,
    LoopGuardMode,
    LoopGuardParams,
    Message,
    Prompt,
    SamplingParams,
    TextPrompt,
    TokenPrompt,
)

CLOSED_THINK_BLOCK = "<think></think>\n"
CLAMP_TEMPERATURE = (0.0, 0.7)
CLAMP_REPEAT_PENALTY = (1.0, 1.5)
MAX_CHOICES_IN_ALL = 16
CALCULATOR_ON = "on"
NUM_SEEDS = 2**32 - 1  # the engine takes 32 bits, of which all ones mean "draw one"

T = TypeVar("T")

_LEADING_CLOSED_BLOCK = re.compile(r"\A\s*<think>\s*</think>\s*")


@dataclass(frozen=True, slots=True)
class Change:
    """One parameter that is not what the client asked for, and why."""

    name: str
    value: float
    asked: float
    rule: str

    def __str__(self) -> str:
        return f"{self.name}={self.value:g} (asked {self.asked:g}; {self.rule})"


@dataclass(frozen=True, slots=True)
class PolicyReport:
    """What the client is told of the policy's work. `think` is closed for conversations, none for raw text.

    `calculator` is "on", or why it is not; None where the specialist has none.
    """

    temperature: float
    think: str
    changes: tuple[Change, ...] = ()
    loop_guard: LoopGuardMode = LoopGuardMode.OFF
    calculator: str | None = None

    def as_header(self) -> str:
        """One ASCII line, such as `temperature=0.6 (asked 1.2; enforce), think=closed`."""
        said = [str(change) for change in self.changes]
        if not any(change.name == "temperature" for change in self.changes):
            said.insert(0, f"temperature={self.temperature:g}")
        return ", ".join([*said, f"think={self.think}"])

    def as_object(self) -> dict[str, object]:
        """The same for the response's `coe` object."""
        changed = {change.name: {"asked": change.asked, "rule": change.rule} for change in self.changes}
        return {"temperature": self.temperature, "think": self.think, "changed": changed}


@dataclass(frozen=True, slots=True)
class Plan:
    """The generations that answer one request, in the order of their choice index, and the report on them."""

    generations: tuple[GenerationRequest, ...]
    report: PolicyReport


@dataclass(frozen=True, slots=True)
class RequestPolicy:
    """The operator's rules; `apply` has no effects and the same answer every time."""

    temperature: TemperaturePolicy = TemperaturePolicy.ENFORCE
    max_choices: int = 8

    def apply(
        self,
        request: ChatRequest | CompletionRequest,
        manifest: SpecialistManifest,
        *,
        request_id: str,
        priority: int = 0,
    ) -> Plan:
        """Plan the generations for `request`. Raises RequestRejected when more choices are asked than allowed."""
        calculator = _calculator(request, manifest)
        prompts = list(_prompts(request, manifest, has_calculator=calculator == CALCULATOR_ON))
        self._refuse_too_many(request.n, len(prompts))
        sampling, changes = self.sampling(request.wishes, manifest.sampling, manifest.context_tokens)
        max_tokens, shortened = _max_tokens(request.max_tokens, manifest.max_tokens)
        template = GenerationRequest(
            id=request_id,
            prompt=prompts[0],
            sampling=sampling,
            max_tokens=max_tokens,
            context_tokens=manifest.context_tokens,
            stop=(*manifest.stop, *request.stop),
            logprobs=request.logprobs,
            json_schema=request.json_schema,
            echo_logprobs=_wants_prompt_logprobs(request),
            loop_guard=_loop_guard(request.loop_guard, manifest.loop_guard),
            is_streamed=request.is_streamed,
            specialist=manifest.tag,
            priority=priority,
            call_marks=CALL_MARKS if calculator == CALCULATOR_ON else None,
        )
        report = PolicyReport(
            temperature=sampling.temperature,
            think="closed" if isinstance(request, ChatRequest) else "none",
            changes=(*changes, *shortened),
            loop_guard=template.loop_guard.mode,
            calculator=calculator,
        )
        return Plan(tuple(_choices(template, prompts, request.n)), report)

    def _refuse_too_many(self, n: int, num_prompts: int) -> None:
        if n > self.max_choices:
            raise RequestRejected(f"n is {n}; ask for at most {self.max_choices} answers.", param="n")
        if n * num_prompts > MAX_CHOICES_IN_ALL:
            raise RequestRejected(
                f"{num_prompts} prompts times {n} answers are too many; ask for at most {MAX_CHOICES_IN_ALL} in all.",
                param="n",
            )

    def sampling(
        self, wishes: SamplingWishes, own: SamplingParams, context_tokens: int
    ) -> tuple[SamplingParams, tuple[Change, ...]]:
        """Rules 4 and 5 for what a client wishes of a specialist, whose own parameters are `own`."""
        temperature = self._temperature(wishes.temperature, own.temperature)
        repeat_penalty = _within(_or(wishes.repeat_penalty, own.repeat_penalty), CLAMP_REPEAT_PENALTY)
        sampling = replace_struct(
            own,
            temperature=temperature,
            repeat_penalty=own.repeat_penalty if wishes.repeat_penalty is None else repeat_penalty,
            repeat_last_n=_window(_or(wishes.repeat_last_n, own.repeat_last_n), context_tokens),
            top_k=_or(wishes.top_k, own.top_k),
            top_p=_or(wishes.top_p, own.top_p),
            min_p=_or(wishes.min_p, own.min_p),
            frequency_penalty=_or(wishes.frequency_penalty, own.frequency_penalty),
            presence_penalty=_or(wishes.presence_penalty, own.presence_penalty),
            seed=own.seed if wishes.seed is None else wishes.seed % NUM_SEEDS,
            logit_bias=wishes.logit_bias or own.logit_bias,
        )
        changes = (
            *_changed("temperature", temperature, wishes.temperature, self.temperature.value),
            *_changed("repeat_penalty", sampling.repeat_penalty, wishes.repeat_penalty, "clamp"),
        )
        return sampling, changes

    def _temperature(self, asked: float | None, own: float) -> float:
        if asked is None or self.temperature is TemperaturePolicy.ENFORCE:
            return own
        if self.temperature is TemperaturePolicy.CLAMP:
            return _within(asked, CLAMP_TEMPERATURE)
        return asked


def _wants_prompt_logprobs(request: ChatRequest | CompletionRequest) -> bool:
    """Whether the prompt's own log-probabilities are part of the answer."""
    if isinstance(request, ChatRequest) or not request.echo:
        return False
    if request.logprobs is None and not all(isinstance(prompt, str) for prompt in request.prompts):
        raise RequestRejected(
            "Echoing token ids needs logprobs; set logprobs or send the prompt as text.", param="echo"
        )
    return request.logprobs is not None


def _or(asked: T | None, own: T) -> T:
    return own if asked is None else asked


def _loop_guard(asked: LoopGuardMode | None, rules: LoopGuardRules) -> LoopGuardParams:
    if asked is None or not rules.clients_may_choose:
        return rules.params
    return replace_struct(rules.params, mode=asked)


def _window(asked: int, context_tokens: int) -> int:
    """The penalties' window, which is never longer than the context; −1 means all of it."""
    return context_tokens if asked < 0 else min(asked, context_tokens)


def _within(value: float, bounds: tuple[float, float]) -> float:
    return min(max(value, bounds[0]), bounds[1])


def _changed(name: str, value: float, asked: float | None, rule: str) -> tuple[Change, ...]:
    return () if asked is None or asked == value else (Change(name, value, asked, rule),)


def _max_tokens(asked: int | None, own: int) -> tuple[int, tuple[Change, ...]]:
    value = own if asked is None else min(asked, own)
    return value, _changed("max_tokens", value, asked, "limit")


def _calculator(request: ChatRequest | CompletionRequest, manifest: SpecialistManifest) -> str | None:
    """ "on", or why a specialist that has a calculator does not use it now."""
    if not manifest.calculator:
        return None
    if not isinstance(request, ChatRequest):
        return "off: raw completion"
    if not request.calculator:
        return "off: declined"
    if request.json_schema is not None:
        return "off: response_format"
    if request.tool_use is not None:
        return "off: tools"
    return CALCULATOR_ON


def _prompts(
    request: ChatRequest | CompletionRequest, manifest: SpecialistManifest, *, has_calculator: bool
) -> Iterable[Prompt]:
    if isinstance(request, ChatRequest):
        conversation = chat_prompt(request.messages, manifest, has_calculator=has_calculator)
        yield replace_struct(conversation, tool_use=request.tool_use)
        return
    for prompt in request.prompts:
        yield TextPrompt(text=prompt) if isinstance(prompt, str) else TokenPrompt(tokens=prompt)


def chat_prompt(
    messages: tuple[Message, ...], manifest: SpecialistManifest, *, has_calculator: bool = False
) -> ChatPrompt:
    """Rules 1 to 3 and 7: the conversation as the specialist sees it, ending in the closed think block."""
    turns = [Message(role="system", content=m.content) if m.role == "developer" else m for m in messages]
    continuation = ""
    if len(turns) > 1 and turns[-1].role == "assistant":
        continuation = _LEADING_CLOSED_BLOCK.sub("", turns.pop().content)
    system = [manifest.system] if manifest.system else []
    if has_calculator:
        system.append(INSTRUCTIONS)
    if turns and turns[0].role == "system":
        system.append(turns.pop(0).content)
    opening = [Message(role="system", content="\n\n".join(system))] if system else []
    return ChatPrompt(
        messages=(*opening, *(EXAMPLE if has_calculator else ()), *manifest.examples, *turns),
        assistant_prefill=CLOSED_THINK_BLOCK,
        continuation=continuation,
    )


def _choices(template: GenerationRequest, prompts: list[Prompt], n: int) -> Iterable[GenerationRequest]:
    """`n` generations for each prompt; with a seed, choice i of a prompt is drawn with seed + i."""
    for number, prompt in enumerate(prompts):
        for choice in range(n):
            seed = template.sampling.seed
            sampling = template.sampling
            if seed is not None and choice:
                sampling = replace_struct(sampling, seed=(seed + choice) % NUM_SEEDS)
            yield replace_struct(template, id=f"{template.id}-{number * n + choice}", prompt=prompt, sampling=sampling)
