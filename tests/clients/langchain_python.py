"""LangChain's ChatOpenAI and ChatOllama against a running starter college: `python langchain_python.py URL`.

Runs in an environment that has langchain-openai and langchain-ollama, see `install`; imports nothing of this project.
"""

import asyncio
import sys

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_ollama import ChatOllama, OllamaEmbeddings
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai import NotFoundError
from pydantic import BaseModel, Field

MATH, ENCODER = "coe-smollm2-math:q4", "coe-supervisor-minilm"
TALK = [SystemMessage("Be brief."), HumanMessage("What is two plus two?")]


class Place(BaseModel):
    """A city and the river it lies on."""

    city: str = Field(max_length=30)
    river: str = Field(max_length=30)


def require(holds: bool, what: str) -> None:
    if not holds:
        raise SystemExit(f"FAILED: {what}")


def openai(url: str, **fields: object) -> ChatOpenAI:
    return ChatOpenAI(base_url=f"{url}/v1", api_key="none", timeout=120, **({"model": MATH, "max_tokens": 12} | fields))


def ollama(url: str, **fields: object) -> ChatOllama:
    return ChatOllama(base_url=url, **({"model": MATH, "num_predict": 12, "seed": 7} | fields))


def chat_openai_answers(url: str) -> None:
    answer = openai(url).invoke(TALK)
    require(isinstance(answer, AIMessage) and bool(answer.text), "a text")
    require(answer.usage_metadata["output_tokens"] <= 12, "max_tokens, which it sends as max_completion_tokens")


def chat_openai_streams(url: str) -> None:
    pieces = list(openai(url, stream_usage=True).stream(TALK))
    require(bool("".join(piece.text for piece in pieces)), "a streamed text")
    require(any(piece.usage_metadata for piece in pieces), "usage in the stream")


def chat_openai_streams_asynchronously(url: str) -> None:
    async def collect() -> str:
        return "".join([piece.text async for piece in openai(url).astream(TALK)])

    require(bool(asyncio.run(collect())), "a streamed text")


def chat_openai_keeps_to_a_schema(url: str) -> None:
    model = openai(url, max_tokens=80).with_structured_output(Place, method="json_schema")
    require(isinstance(model.invoke("Paris lies on the Seine. Give the city and the river."), Place), "a Place")


def chat_openai_answers_a_batch(url: str) -> None:
    answers = openai(url, model="auto").batch(["Name a river.", "Name a star.", "Name a law."])
    require(all(answer.text for answer in answers), "three answers")


def chat_openai_says_what_is_unknown(url: str) -> None:
    try:
        openai(url, model="no-such").invoke(TALK)
    except NotFoundError:
        return
    require(False, "a NotFoundError")


def openai_embeddings_are_vectors(url: str) -> None:
    model = OpenAIEmbeddings(model=ENCODER, base_url=f"{url}/v1", api_key="none", check_embedding_ctx_length=False)
    require([len(each) for each in model.embed_documents(["sort a list", "bake bread"])] == [384, 384], "two vectors")


def chat_ollama_answers(url: str) -> None:
    answer = ollama(url).invoke(TALK)
    require(bool(answer.text) and answer.response_metadata["done_reason"] in ("stop", "length"), "a text and an end")
    require(answer.usage_metadata["output_tokens"] <= 12, "counts")


def chat_ollama_streams_what_it_would_say_whole(url: str) -> None:
    whole = ollama(url).invoke(TALK).text
    require("".join(piece.text for piece in ollama(url).stream(TALK)) == whole, "streamed as whole")


def chat_ollama_keeps_to_a_format(url: str) -> None:
    model = ollama(url, num_predict=80).with_structured_output(Place, method="json_schema")
    require(isinstance(model.invoke("Paris lies on the Seine. Give the city and the river."), Place), "a Place")


def ollama_embeddings_are_vectors(url: str) -> None:
    require(len(OllamaEmbeddings(model=ENCODER, base_url=url).embed_query("bake bread")) == 384, "a vector")


CHECKS = (
    chat_openai_answers, chat_openai_streams, chat_openai_streams_asynchronously, chat_openai_keeps_to_a_schema,
    chat_openai_answers_a_batch, chat_openai_says_what_is_unknown, openai_embeddings_are_vectors, chat_ollama_answers,
    chat_ollama_streams_what_it_would_say_whole, chat_ollama_keeps_to_a_format, ollama_embeddings_are_vectors,
)  # fmt: skip

if __name__ == "__main__":
    for check in CHECKS:
        check(sys.argv[1])
        sys.stdout.write(f"ok: {check.__name__.replace('_', ' ')}\n")
