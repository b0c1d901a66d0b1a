"""Loaded weights, and the log that is llama.cpp's only word on why a load failed."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

import llama_cpp

from specialists.engine.llama.context import Context, ContextParams
from specialists.engine.llama.graph_hook import GraphHook
from specialists.engine.llama.offload import keep_experts_in_ram
from specialists.engine.llama.virtual_file import VirtualFile
from specialists.engine.llama.vocabulary import Vocabulary
from specialists.engine.protocol import CacheType, Pooling
from specialists.errors import ModelTooLarge, SpecialistUnavailable
from specialists.gguf_plan import GgufPlan

OnProgress = Callable[[float], None]
_POOLINGS = {
    Pooling.MEAN: llama_cpp.LLAMA_POOLING_TYPE_MEAN,
    Pooling.CLS: llama_cpp.LLAMA_POOLING_TYPE_CLS,
    Pooling.LAST: llama_cpp.LLAMA_POOLING_TYPE_LAST,
}
_CACHE_TYPES = {
    CacheType.F16: llama_cpp.GGML_TYPE_F16,
    CacheType.Q8_0: llama_cpp.GGML_TYPE_Q8_0,
    CacheType.Q4_0: llama_cpp.GGML_TYPE_Q4_0,
}
_OUT_OF_MEMORY_WORDS = ("failed to allocate", "unable to allocate", "out of memory", "cudaMalloc failed")


class LlamaLog:
    """Collects llama.cpp's warnings and errors, which are its only word on why something failed."""

    _in_use: ClassVar[Any] = None

    def __init__(self, forward: Callable[[str], None] | None = None) -> None:
        self.recent: list[str] = []
        self._forward = forward
        callback = llama_cpp.llama_log_callback(self._receive)
        llama_cpp.llama_log_set(callback, ctypes.c_void_p())
        LlamaLog._in_use = callback  # the library has one sink for all models, which may outlive this log's own

    def _receive(self, level: int, text: bytes, _user_data: object) -> None:
        if level not in (3, 4):  # GGML_LOG_LEVEL_WARN, GGML_LOG_LEVEL_ERROR
            return
        line = text.decode("utf-8", "replace").strip()
        self.recent = [*self.recent[-19:], line]
        if self._forward is not None and line:
            self._forward(line)


class Model:
    """Loaded weights, and a LoRA adapter if one was asked for. Free with `close`."""

    def __init__(self, handle: Any, adapter: Any | None, log: LlamaLog) -> None:
        self.handle = handle
        self._adapter = adapter
        self._log = log  # llama.cpp calls it as long as the model lives
        self.vocabulary = Vocabulary(handle)
        self.trained_context_tokens: int = llama_cpp.llama_model_n_ctx_train(handle)
        self.vector_width: int = llama_cpp.llama_model_n_embd_out(handle)
        self.window_tokens: int = llama_cpp.llama_model_n_swa(handle)
        self.is_recurrent: bool = llama_cpp.llama_model_is_recurrent(handle) or llama_cpp.llama_model_is_hybrid(handle)

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        gpu_layers: int,
        cpu_expert_layers: int = 0,
        adapter_path: Path | None = None,
        is_writable: bool = False,
        is_dry: bool = False,
        on_progress: OnProgress = lambda _share: None,
        log: LlamaLog,
    ) -> Self:
        """Load a GGUF. Raises SpecialistUnavailable or ModelTooLarge with llama.cpp's own reason.

        With `is_writable` the weights are read into memory of their own, not mapped, so that parts can be rewritten.
        With `is_dry` there is no memory for them at all: such a model, and its contexts, can only say their sizes.
        """
        params = load_params(gpu_layers, on_progress, cpu_expert_layers=cpu_expert_layers, is_dry=is_dry)
        if is_writable:
            params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
        handle = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not handle:
            raise _load_error(path, log)
        adapter = None
        if adapter_path is not None:
            adapter = llama_cpp.llama_adapter_lora_init(handle, str(adapter_path).encode())
            if not adapter:
                llama_cpp.llama_model_free(handle)
                raise _load_error(adapter_path, log)
        return cls(handle, adapter, log)

    @classmethod
    def load_plan(
        cls,
        plan: GgufPlan,
        *,
        name: str,
        gpu_layers: int,
        cpu_expert_layers: int = 0,
        is_dry: bool = False,
        on_progress: OnProgress = lambda _share: None,
        log: LlamaLog,
    ) -> Self:
        """Load a GGUF that is only planned, where `virtual_file.can_open`; its weights are writable.

        `name` stands for it in errors, which are those of `load`, as is `is_dry`.
        """
        params = load_params(gpu_layers, on_progress, cpu_expert_layers=cpu_expert_layers, is_dry=is_dry)
        params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
        try:
            with VirtualFile(plan) as file:
                handle = llama_cpp.llama_model_load_from_file_ptr(file.pointer, params)
                if not handle and file.error is not None:
                    raise file.error
        except OSError as error:
            raise SpecialistUnavailable(f"{name} could not be read: {error}") from error
        if not handle:
            raise _load_error(Path(name), log)
        return cls(handle, None, log)

    def new_context(self, params: ContextParams, *, hook: GraphHook | None = None) -> Context:
        """A context over these weights, seen by `hook`. Raises ModelTooLarge when its cache cannot be allocated."""
        native = llama_cpp.llama_context_default_params()
        native.n_ctx = params.num_cells
        native.n_batch = params.batch_tokens
        native.n_ubatch = params.batch_tokens
        native.n_seq_max = params.max_sequences
        native.n_outputs_max = params.max_outputs
        native.n_threads = native.n_threads_batch = params.threads
        native.kv_unified = params.unified
        native.swa_full = False
        native.no_perf = True
        native.type_k = native.type_v = _CACHE_TYPES[params.cache_type]
        if params.cache_type is not CacheType.F16:  # which by itself llama.cpp reads with or without, as it can
            native.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        if params.pooling is not None:
            native.embeddings = True
            native.pooling_type = _POOLINGS[params.pooling]
        if hook is not None:
            native.cb_eval = hook.native
        handle = llama_cpp.llama_init_from_model(self.handle, native)
        if not handle:
            raise self._no_context(params)
        if self._adapter is not None:
            adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(self._adapter)
            scales = (ctypes.c_float * 1)(1.0)
            llama_cpp.llama_set_adapters_lora(handle, adapters, 1, scales)
        return Context(handle, self, self.vocabulary.size, params, hook=hook)

    def _no_context(self, params: ContextParams) -> SpecialistUnavailable:
        reason = self._log.recent[-1] if self._log.recent else "no reason given"
        is_memory = any(word in line for line in self._log.recent for word in _OUT_OF_MEMORY_WORDS)
        if params.cache_type is not CacheType.F16 and not is_memory:
            return SpecialistUnavailable(
                f'cache_type = "{params.cache_type}" cannot be used with this model (it takes flash attention and '
                f'heads that its blocks divide; llama.cpp says: {reason}); set cache_type = "{CacheType.F16}"'
            )
        return ModelTooLarge(f"the context of {params.num_cells} tokens could not be allocated: {reason}")

    def chat_template(self) -> str | None:
        template = llama_cpp.llama_model_chat_template(self.handle, None)
        return template.decode("utf-8", "replace") if template else None

    def describe(self) -> str:
        buffer = ctypes.create_string_buffer(256)
        llama_cpp.llama_model_desc(self.handle, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    def close(self) -> None:
        if self.handle:
            llama_cpp.llama_model_free(self.handle)  # frees its adapters too
            self.handle = None


def computes_on_gpu(gpu_layers: int) -> bool:
    """Whether any layer goes to a GPU: one was asked for, and this build of llama.cpp can use one."""
    return gpu_layers != 0 and bool(llama_cpp.llama_supports_gpu_offload())


def load_params(
    gpu_layers: int, on_progress: OnProgress, *, cpu_expert_layers: int = 0, is_dry: bool = False
) -> llama_cpp.llama_model_params:
    """llama.cpp's own structure of what `Model.load` is told; it keeps alive all that it points to."""

    def report(share: float, _user_data: object) -> bool:
        on_progress(share)
        return True

    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = gpu_layers
    # Repacked CPU weights cannot be rewritten in parts, and the AMX path crashes on some shapes (SmolLM2 Q4_1).
    params.use_extra_bufts = False
    params.progress_callback = llama_cpp.llama_progress_callback(report)
    if cpu_expert_layers > 0:
        keep_experts_in_ram(params, cpu_expert_layers)
    if is_dry:
        params.no_alloc = True
        params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE  # a dry run that would map the file ends the process
    return params


def _load_error(path: Path, log: LlamaLog) -> SpecialistUnavailable:
    reason = "; ".join(line for line in log.recent[-3:] if line) or "llama.cpp gave no reason"
    if any(word in line for line in log.recent for word in _OUT_OF_MEMORY_WORDS):
        return ModelTooLarge(f"{path.name} does not fit into memory: {reason}")
    return SpecialistUnavailable(f"{path.name} could not be loaded: {reason}")
