"""What becomes of each field of OpenAI's older and smaller calls: completions, embeddings and models."""

from openai.resources.completions import AsyncCompletions
from openai.resources.embeddings import AsyncEmbeddings
from openai.resources.models import AsyncModels
from openai.types.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.embedding_create_params import EmbeddingCreateParams

from gateway.embeddings import ENCODER_TAG
from specialists.request import TextPrompt
from tests.gateway.college import GENERAL, MATH
from tests.gateway.sdk_types.openai_chat import LIKELY, OPENAIS_OWN, sampling
from tests.gateway.sdk_types.table import VECTORS, Call, accepted, honoured, refused

COMPLETIONS = Call(
    name="completions.create",
    route="POST /v1/completions",
    method=AsyncCompletions.create,
    body=CompletionCreateParamsNonStreaming,
    base={"model": MATH, "prompt": "Once"},
    rows=[
        *sampling(),
        honoured(
            "prompt",
            ["One", "Two"],
            lambda seen: (
                [request.prompt for request in seen.requests] == [TextPrompt(text="One"), TextPrompt(text="Two")]
            ),
            "a text, token ids, or several of either; never null",
        ),
        honoured("echo", True, lambda seen: seen.answer.choices[0].text.startswith("Once")),
        honoured("logprobs", 2, lambda seen: bool(seen.answer.choices[0].logprobs), script=LIKELY),
        refused("best_of", 2, "other than 1"),
        refused("suffix", "end", "nothing is filled in"),
        accepted("user", "ada", "raw prompts have no conversation to keep"),
    ],
)

EMBEDDINGS = Call(
    name="embeddings.create",
    route="POST /v1/embeddings",
    method=AsyncEmbeddings.create,
    body=EmbeddingCreateParams,
    base={"model": ENCODER_TAG, "input": "A text."},
    rows=[
        honoured("model", VECTORS, lambda seen: len(seen.answer.data[0].embedding) == 2),
        honoured("input", ["One", "Two"], lambda seen: len(seen.answer.data) == 2, "texts; token ids are refused"),
        honoured("dimensions", 3, lambda seen: len(seen.answer.data[0].embedding) == 3),
        honoured("encoding_format", "float", lambda seen: '"embedding":[' in seen.raw, "`float` or `base64`"),
        accepted("user", "ada", OPENAIS_OWN),
    ],
)

MODELS = Call(name="models.list", route="GET /v1/models", method=AsyncModels.list)

MODEL = Call(
    name="models.retrieve",
    route="GET /v1/models/{model}",
    method=AsyncModels.retrieve,
    base={"model": MATH},
    rows=[honoured("model", GENERAL, lambda seen: seen.answer.id == GENERAL)],
)
