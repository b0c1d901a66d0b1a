"""All tables: every call of the two SDKs' clients that is answered here."""

from tests.gateway.sdk_types import ollama_models
from tests.gateway.sdk_types.ollama_fields import CHAT as OLLAMA_CHAT
from tests.gateway.sdk_types.ollama_fields import EMBED, GENERATE
from tests.gateway.sdk_types.ollama_fields import EMBEDDINGS as OLLAMA_EMBEDDINGS
from tests.gateway.sdk_types.openai_chat import CHAT
from tests.gateway.sdk_types.openai_completions import COMPLETIONS, EMBEDDINGS, MODEL, MODELS
from tests.gateway.sdk_types.openai_kept import RESPONSES

OPENAI = (CHAT, COMPLETIONS, *RESPONSES, EMBEDDINGS, MODELS, MODEL)
OLLAMA = (OLLAMA_CHAT, GENERATE, EMBED, OLLAMA_EMBEDDINGS, *ollama_models.MODELS)
CALLS = OPENAI + OLLAMA
