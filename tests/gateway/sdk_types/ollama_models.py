"""What becomes of each field of Ollama's calls that list, describe and change what is served."""

from typing import Any

from ollama import AsyncClient
from ollama import _types as types

from tests.gateway.college import GENERAL, MATH
from tests.gateway.sdk_types.table import KEPT, Call, Row, Seen, accepted, honoured, refused

HUB = "hf.co/owner/repo"
MADE, OTHER = "made:latest", "other:latest"


async def served(client: AsyncClient, answer: Any) -> dict[str, str]:
    """Modelfile and licence of everything that is served now, by name."""
    shown = {str(model.model): await client.show(str(model.model)) for model in (await client.list()).models}
    return {name: f"{each.modelfile}\n{each.license}" for name, each in shown.items()}


async def two_personas(client: AsyncClient) -> str:
    for name in (MADE, OTHER):
        await client.create(name, from_=MATH)
    return MADE


def says(text: str) -> Any:
    return lambda seen: text in seen.after[MADE]


def creating() -> list[Row]:
    turns = [{"role": "user", "content": "Ahoy."}, {"role": "assistant", "content": "Heed this."}]
    return [
        honoured("model", "third", lambda seen: "third:latest" in seen.after),
        honoured("stream", True, lambda seen: isinstance(seen.answer, list)),
        honoured("from_", GENERAL, says(f"FROM {GENERAL}"), "a model that is served here"),
        honoured("system", "Heed this.", says("Heed this.")),
        honoured("messages", turns, says("Heed this."), is_whole=True),
        honoured("parameters", {"top_k": 7}, says("PARAMETER top_k 7"), "as in a Modelfile", is_whole=True),
        accepted("template", "{{ .Prompt }}", "kept, but the weights' own chat template is used"),
        honoured("license", ["MIT", "BSD"], says("MIT\nBSD"), "shown"),
        refused("files", {"a.gguf": "sha256:0"}, "pull instead"),
        refused("adapters", {"a.gguf": "sha256:0"}, "no adapters are loaded"),
        refused("quantize", "q4_0", "pull weights that are"),
    ]


CREATE = Call(
    name="create",
    route="POST /api/create",
    method=AsyncClient.create,
    body=types.CreateRequest,
    base={"model": MADE, "from_": MATH},
    after=served,
    rows=creating(),
)

COPY = Call(
    name="copy",
    route="POST /api/copy",
    method=AsyncClient.copy,
    body=types.CopyRequest,
    base={"source": MATH, "destination": MADE},
    after=served,
    rows=[
        honoured("source", GENERAL, says(f"FROM {GENERAL}")),
        honoured("destination", "third", lambda seen: "third:latest" in seen.after),
    ],
)

DELETE = Call(
    name="delete",
    route="DELETE /api/delete",
    method=AsyncClient.delete,
    body=types.DeleteRequest,
    base={"model": KEPT},
    before=two_personas,
    after=served,
    rows=[honoured("model", OTHER, lambda seen: OTHER not in seen.after and MADE in seen.after)],
)


def fetched(seen: Seen) -> bool:
    return f"{HUB}:Q8_0" in seen.after


PULL = Call(
    name="pull",
    route="POST /api/pull",
    method=AsyncClient.pull,
    body=types.PullRequest,
    base={"model": HUB},
    after=served,
    rows=[
        honoured("model", f"{HUB}:Q8_0", fetched, "of Hugging Face, or a specialist whose weights are missing"),
        honoured("stream", True, lambda seen: isinstance(seen.answer, list)),
        accepted("insecure", True, "the hub is always asked over TLS"),
    ],
)

SHOW = Call(
    name="show",
    route="POST /api/show",
    method=AsyncClient.show,
    body=types.ShowRequest,
    base={"model": MATH},
    rows=[honoured("model", GENERAL, lambda seen: f"FROM {GENERAL}" in seen.answer.modelfile)],
)
LIST = Call(name="list", route="GET /api/tags", method=AsyncClient.list)
PS = Call(name="ps", route="GET /api/ps", method=AsyncClient.ps)

MODELS = (CREATE, COPY, DELETE, PULL, SHOW, LIST, PS)
