"""llama.cpp as we use it: a model, its vocabulary, one context, one batch, sampler chains.

The only package that imports `llama_cpp`. It turns C conventions into Python ones (errors for return codes, numpy
views for buffers, objects that free what they own) and decides nothing: which tokens are decoded and what the
cache may keep is settled in `engine`, `batch_scheduler` and `kv_cache`.
"""

from specialists.engine.llama.context import Batch, Context, ContextParams, DecodeFailed, NoCacheRoom
from specialists.engine.llama.model import LlamaLog, Model, computes_on_gpu
from specialists.engine.llama.sampler_chain import SamplerChain
from specialists.engine.llama.vocabulary import Vocabulary

__all__ = [
    "Batch",
    "Context",
    "ContextParams",
    "DecodeFailed",
    "LlamaLog",
    "Model",
    "NoCacheRoom",
    "SamplerChain",
    "Vocabulary",
    "computes_on_gpu",
]
