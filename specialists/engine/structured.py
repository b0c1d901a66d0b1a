"""Answers that match a JSON schema: llguidance masks over the logits, and the tokens it forces.

llama.cpp's own grammars are not used: one that does not parse ends the process. The schema comes from a client, so
it is held to limits before it is compiled, and what cannot be enforced is refused, never relaxed.
The only module that imports `llguidance`.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import llguidance
import llguidance.llamacpp
import numpy as np
from numpy.typing import NDArray

from specialists.engine.llama import Vocabulary
from specialists.errors import InvalidSchema

MAX_SCHEMA_CHARS = 64 * 1024
MAX_NODES = 2_000
MAX_DEPTH = 32
MAX_ENUM = 500
MAX_REPEAT = 1_000
MAX_PATTERN_CHARS = 512
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_COMPILE_OPTIONS = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "lenient": False}


def check_schema(text: str) -> Any:
    """The parsed schema, if it is within the limits. Raises InvalidSchema naming what is not."""
    if len(text) > MAX_SCHEMA_CHARS:
        raise InvalidSchema(f"The JSON schema has {len(text)} characters; at most {MAX_SCHEMA_CHARS} are accepted.")
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidSchema(f"The JSON schema is not valid JSON: {error}") from error
    if not isinstance(schema, dict | bool):
        raise InvalidSchema("The JSON schema must be an object.")
    for num_nodes, (node, depth) in enumerate(_walk(schema), 1):
        if num_nodes > MAX_NODES:
            raise InvalidSchema(f"The JSON schema has more than {MAX_NODES} parts.")
        if depth > MAX_DEPTH:
            raise InvalidSchema(f"The JSON schema is nested more than {MAX_DEPTH} levels deep.")
        if isinstance(node, dict):
            _check_node(node)
    return schema


def _walk(root: Any) -> Iterator[tuple[Any, int]]:
    """Every part of a JSON value with its depth, without recursion."""
    pending = [(root, 0)]
    while pending:
        node, depth = pending.pop()
        yield node, depth
        if isinstance(node, dict):
            pending += [(child, depth + 1) for child in node.values()]
        elif isinstance(node, list):
            pending += [(child, depth + 1) for child in node]


def _check_node(node: dict[str, Any]) -> None:
    reference = node.get("$ref")
    if isinstance(reference, str) and not reference.startswith("#"):
        raise InvalidSchema(
            f"The JSON schema refers to {reference[:100]!r}; only references within it (#…) are followed."
        )
    choices = node.get("enum")
    if isinstance(choices, list) and len(choices) > MAX_ENUM:
        raise InvalidSchema(f"An enum in the JSON schema has {len(choices)} values; at most {MAX_ENUM} are accepted.")
    pattern = node.get("pattern")
    if isinstance(pattern, str) and len(pattern) > MAX_PATTERN_CHARS:
        raise InvalidSchema(f"A pattern in the JSON schema is longer than {MAX_PATTERN_CHARS} characters.")
    for name in _COUNTS:
        count = node.get(name)
        if isinstance(count, int | float) and count > MAX_REPEAT:
            raise InvalidSchema(f"{name} in the JSON schema is {count}; at most {MAX_REPEAT} is accepted.")


class SchemaCompiler:
    """Compiles schemas for one vocabulary. Building the token table takes 0.3–1.6 s, so it waits for the first."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._tokenizer: llguidance.LLTokenizer | None = None

    def compile(self, schema_text: str) -> "SchemaMatcher":
        """A fresh matcher. Raises InvalidSchema when the schema is beyond the limits or cannot be enforced."""
        schema = check_schema(schema_text)
        if self._tokenizer is None:
            self._tokenizer = llguidance.llamacpp.lltokenizer_from_vocab(
                self._vocabulary.handle, eos_token=sorted(self._vocabulary.end_tokens)
            )
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=_COMPILE_OPTIONS)
        except ValueError as error:
            raise InvalidSchema(f"The JSON schema cannot be used: {error}") from error
        matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise InvalidSchema(f"The JSON schema cannot be enforced: {matcher.get_error()[:500]}")
        return SchemaMatcher(matcher)


class SchemaMatcher:
    """Where one answer stands in its schema."""

    def __init__(self, matcher: "llguidance.LLMatcher") -> None:
        self._matcher = matcher

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Set the logits (vocabulary size,) of every token that the schema does not allow next to −∞, in place."""
        allowed = self._allowed()
        count = min(len(allowed), len(logits))
        logits[:count][allowed[:count] == 0] = -np.inf
        logits[count:] = -np.inf

    def accept(self, token: int) -> list[int]:
        """Take a drawn token; returns the tokens that must follow it, already taken."""
        self._matcher.consume_token(token)
        forced: list[int] = self._matcher.compute_ff_tokens()
        if forced:
            self._matcher.consume_tokens(forced)
        return forced

    def start(self) -> list[int]:
        """The tokens that every matching answer begins with, already taken."""
        forced: list[int] = self._matcher.compute_ff_tokens()
        if forced:
            self._matcher.consume_tokens(forced)
        return forced

    def rewind(self, tokens: Sequence[int]) -> None:
        """Go back to where the answer consisted of `tokens`."""
        self._matcher.reset()
        self._matcher.consume_tokens(list(tokens))

    def first_choice(self, tokens: Sequence[int], start: int) -> int | None:
        """The first place from `start` on where the schema allows another token than the answer `tokens` has there.

        None where it leaves no choice.
        """
        probe = SchemaMatcher(self._matcher.deep_copy())
        probe.rewind(tokens[:start])
        for place in range(start, len(tokens)):
            if probe._allowed().sum() > 1:
                return place
            probe._matcher.consume_token(tokens[place])
        return None

    def _allowed(self) -> NDArray[np.uint8]:
        """One 0 or 1 for each token of the vocabulary, perhaps with some padding."""
        return np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")

    @property
    def may_end(self) -> bool:
        """Whether the answer so far matches the schema as it is."""
        return bool(self._matcher.is_accepting())

    @property
    def is_finished(self) -> bool:
        """Whether nothing but the end of the answer can follow."""
        return bool(self._matcher.is_stopped())

    @property
    def error(self) -> str | None:
        """Why matching broke down, if it did (the schema proved too complex to follow)."""
        return str(self._matcher.get_error()) if self._matcher.is_error() else None
