"""A typed view of llama.cpp's C API as the `xllamacpp` wheel exports it; of what we call, no more.

The API has no stable binary layout: structs are passed by value and grow from month to month. The
layout here is that of include/llama.h in release b11549, and `Llama` refuses any other.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
from collections import deque
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int32, c_size_t, c_uint32, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = "xllamacpp"
BUILT_FOR = "2026.10.11549"

GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_Q8_0, GGML_TYPE_BF16 = 0, 1, 8, 30
LOAD_MODE_MMAP = 1
LOG_LEVEL_ERROR = 4
MAX_SEQUENCES = 256  # LLAMA_MAX_SEQ of src/llama-cparams.h
NUM_LAST_ERRORS = 5

ProgressCallback = ctypes.CFUNCTYPE(c_bool, c_float, c_void_p)
_LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, c_char_p, c_void_p)


class LlamaAbiError(RuntimeError):
    """The installed wheel is not one that we know how to call."""


class ModelParams(ctypes.Structure):
    """struct llama_model_params."""

    _fields_ = [
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int32),
        ("load_mode", c_int32),
        ("lazy_mode", c_int32),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", ProgressCallback),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
    ]


class ContextParams(ctypes.Structure):
    """struct llama_context_params."""

    _fields_ = [
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32),
        ("n_outputs_max_per_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", c_int32),
        ("rope_scaling_type", c_int32),
        ("pooling_type", c_int32),
        ("attention_type", c_int32),
        ("flash_attn_type", c_int32),
        ("rope_freq_base", c_float),
        ("rope_freq_scale", c_float),
        ("yarn_ext_factor", c_float),
        ("yarn_attn_factor", c_float),
        ("yarn_beta_fast", c_float),
        ("yarn_beta_slow", c_float),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int32),
        ("type_v", c_int32),
        ("moe_cache_size", c_size_t),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        ("embeddings", c_bool),
        ("offload_kqv", c_bool),
        ("no_perf", c_bool),
        ("op_offload", c_bool),
        ("swa_full", c_bool),
        ("kv_unified", c_bool),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
    ]


class Batch(ctypes.Structure):
    """struct llama_batch; the pointers are addresses of arrays of n_tokens entries."""

    _fields_ = [
        ("n_tokens", c_int32),
        ("token", c_void_p),  # int32
        ("embd", c_void_p),
        ("pos", c_void_p),  # int32
        ("n_seq_id", c_void_p),  # int32
        ("seq_id", c_void_p),  # int32**
        ("logits", c_void_p),  # int8
    ]


# What the wheel's own defaults must read as through the structs above. Neighbours differ, so a
# field that was added or taken out moves some of them.
_MODEL_DEFAULTS = {
    "n_gpu_layers": -1,
    "split_mode": 1,
    "load_mode": -1,
    "lazy_mode": 1,
    "main_gpu": 0,
    "kv_overrides": None,
    "vocab_only": False,
    "use_extra_bufts": True,
    "no_host": False,
    "load_mtp": False,
}
_CONTEXT_DEFAULTS = {
    "n_ctx": 512,
    "n_batch": 2048,
    "n_ubatch": 512,
    "n_seq_max": 1,
    "n_outputs_max_per_seq": 1,
    "rope_scaling_type": -1,
    "flash_attn_type": -1,
    "rope_freq_base": 0.0,
    "yarn_ext_factor": -1.0,
    "yarn_orig_ctx": 0,
    "defrag_thold": -1.0,
    "type_k": 1,
    "type_v": 1,
    "moe_cache_size": 0,
    "embeddings": False,
    "offload_kqv": True,
    "no_perf": True,
    "op_offload": True,
    "swa_full": True,
    "kv_unified": False,
    "n_samplers": 0,
}

_MODEL, _CONTEXT, _MEMORY, _VOCAB = c_void_p, c_void_p, c_void_p, c_void_p
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "llama_backend_init": (None, ()),
    "llama_log_set": (None, (_LogCallback, c_void_p)),
    "llama_model_default_params": (ModelParams, ()),
    "llama_context_default_params": (ContextParams, ()),
    "llama_model_load_from_file": (_MODEL, (c_char_p, ModelParams)),
    "llama_model_free": (None, (_MODEL,)),
    "llama_model_get_vocab": (_VOCAB, (_MODEL,)),
    "llama_model_has_encoder": (c_bool, (_MODEL,)),
    "llama_model_has_decoder": (c_bool, (_MODEL,)),
    "llama_model_is_recurrent": (c_bool, (_MODEL,)),
    "llama_model_is_hybrid": (c_bool, (_MODEL,)),
    "llama_model_is_diffusion": (c_bool, (_MODEL,)),
    "llama_model_n_swa": (c_int32, (_MODEL,)),
    "llama_vocab_n_tokens": (c_int32, (_VOCAB,)),
    "llama_init_from_model": (_CONTEXT, (_MODEL, ContextParams)),
    "llama_free": (None, (_CONTEXT,)),
    "llama_n_ctx": (c_uint32, (_CONTEXT,)),
    "llama_get_memory": (_MEMORY, (_CONTEXT,)),
    "llama_memory_clear": (None, (_MEMORY, c_bool)),
    "llama_memory_seq_rm": (c_bool, (_MEMORY, c_int32, c_int32, c_int32)),
    "llama_memory_seq_cp": (None, (_MEMORY, c_int32, c_int32, c_int32, c_int32)),
    "llama_memory_seq_pos_min": (c_int32, (_MEMORY, c_int32)),
    "llama_state_seq_get_size": (c_size_t, (_CONTEXT, c_int32)),
    "llama_decode": (c_int32, (_CONTEXT, Batch)),
    "llama_get_logits": (POINTER(c_float), (_CONTEXT,)),
}


class Llama:
    """The library: each function of `_FUNCTIONS` under its name without `llama_`.

    Calls release the GIL. Raises LlamaAbiError when the wheel is missing or of another layout.
    """

    def __init__(self, library: Any) -> None:
        for name, (result, arguments) in _FUNCTIONS.items():
            try:
                function = getattr(library, name)
            except AttributeError:
                raise _moved(f"has no {name}") from None
            function.restype, function.argtypes = result, arguments
            setattr(self, name.removeprefix("llama_"), function)
        _check("llama_model_params", self.model_default_params(), _MODEL_DEFAULTS)
        _check("llama_context_params", self.context_default_params(), _CONTEXT_DEFAULTS)
        self.last_errors: deque[str] = deque(maxlen=NUM_LAST_ERRORS)
        self._log_callback = _LogCallback(self._log)  # the library does not keep it alive
        self.log_set(self._log_callback, None)
        self.backend_init()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"llama_{name} is not declared in {__name__}")

    def why(self) -> str:
        """What the library has said last about what went wrong; forgets it."""
        said = " ".join(self.last_errors) or "llama.cpp gave no reason"
        self.last_errors.clear()
        return said

    def _log(self, level: int, text: bytes, _: Any) -> None:
        if level == LOG_LEVEL_ERROR:
            self.last_errors.append(text.decode(errors="replace").strip())


@cache
def load_library() -> Llama:
    """The installed wheel's library, the same for the whole process. Raises LlamaAbiError.

    Its threads wait for each other hundreds of times a token, in libgomp: asleep, as that is told
    before it is loaded. Spinning, they take the processor from those they wait for, and from all
    else that runs here.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        for path in sorted(Path(folder).glob(f"{PACKAGE}*.so")):
            return Llama(ctypes.CDLL(str(path)))
    raise LlamaAbiError(f"{PACKAGE} is not installed: pip install {PACKAGE}=={BUILT_FOR}")


def _check(struct: str, defaults: ctypes.Structure, expected: dict[str, Any]) -> None:
    for field, value in expected.items():
        found = getattr(defaults, field)
        if found != value:
            raise _moved(f"lays out {struct} otherwise ({field} reads {found}, not {value})")


def _moved(how: str) -> LlamaAbiError:
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        version = "of unknown version"
    return LlamaAbiError(f"{PACKAGE} {version} {how}: pip install {PACKAGE}=={BUILT_FOR}")
