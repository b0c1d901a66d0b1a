"""From a record to the windows of tokens that are computed: template, beginning-of-sequence token, cuts.

Conversations take the form in which they will be served: the model's own template with thinking off, then the closed
think block, then the answer. The text of a record is untrusted, so a control token spelled out in it stays text.
"""

from typing import Final

from specialists.builder.corpus import Chat, Record
from specialists.builder.packing import cut_windows
from specialists.engine.chat_template import ChatTemplate, tokenize_prompt
from specialists.engine.llama import Model
from specialists.errors import SpecialistUnavailable
from specialists.request import ChatPrompt

CLOSED_THINK_BLOCK: Final = "<think></think>\n"  # what the gateway puts before every answer


class Prompter:
    """Tokenises records for one model."""

    def __init__(self, model: Model, *, context_tokens: int, prefill: str = CLOSED_THINK_BLOCK) -> None:
        self._vocabulary = model.vocabulary
        source = model.chat_template()
        self._template = ChatTemplate(source, model.vocabulary) if source else None
        self._prefill = prefill
        self._context_tokens = context_tokens

    def tokens(self, record: Record) -> list[int]:
        """All tokens of a record. Raises SpecialistUnavailable for a conversation if the model has no template, and
        RequestRejected if its template refuses this one."""
        if not isinstance(record, Chat):
            return self._vocabulary.tokenize(record.text)
        if self._template is None:
            raise SpecialistUnavailable("the model has no chat template; give the corpus as plain text")
        prompt = ChatPrompt(record.messages, self._prefill, record.answer)
        return list(tokenize_prompt(prompt, self._template, self._vocabulary).tokens)

    def windows(self, tokens: list[int]) -> list[list[int]]:
        """Runs that fit the context, each with the beginning-of-sequence token if the model wants one."""
        vocabulary = self._vocabulary
        bos = vocabulary.bos if vocabulary.adds_bos else None
        return cut_windows(tokens, self._context_tokens, bos=bos)
