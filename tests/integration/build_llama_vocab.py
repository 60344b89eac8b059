"""The tokenizer of llama.cpp, by ctypes on the `xllamacpp` wheel: the reference for ours."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xllamacpp.xllamacpp

from triton_models.llama_cpp.abi import load_library


class ModelParams(ctypes.Structure):
    """llama_model_params of the pinned xllamacpp 2026.10.11549 (llama.cpp b11549)."""

    _fields_ = (
        ("devices", ctypes.c_void_p),
        ("tensor_buft_overrides", ctypes.c_void_p),
        ("n_gpu_layers", ctypes.c_int32),
        ("split_mode", ctypes.c_int32),
        ("load_mode", ctypes.c_int32),
        ("lazy_mode", ctypes.c_int32),
        ("main_gpu", ctypes.c_int32),
        ("tensor_split", ctypes.c_void_p),
        ("progress_callback", ctypes.c_void_p),
        ("progress_callback_user_data", ctypes.c_void_p),
        ("kv_overrides", ctypes.c_void_p),
        ("vocab_only", ctypes.c_bool),
        ("check_tensors", ctypes.c_bool),
        ("use_extra_bufts", ctypes.c_bool),
        ("no_host", ctypes.c_bool),
        ("no_alloc", ctypes.c_bool),
        ("load_mtp", ctypes.c_bool),
    )


class LlamaVocab:
    """The vocabulary of a GGUF file, loaded without its weights."""

    def __init__(self, path: Path) -> None:
        self._lib = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
        load_library()  # the same library: its log has one hearer, which must outlive all of us
        load = self._function("llama_model_load_from_file", ctypes.c_void_p)
        vocab_of = self._function("llama_model_get_vocab", ctypes.c_void_p)
        params = self._function("llama_model_default_params", ModelParams)()
        params.vocab_only = True
        self._model = ctypes.c_void_p(load(str(path).encode(), params))
        assert self._model, f"llama.cpp cannot load {path}"
        self._vocab = ctypes.c_void_p(vocab_of(self._model))

    def encode(self, text: str, *, add_special: bool = False) -> list[int]:
        """Token ids, special tokens in the text read as such."""
        raw = text.encode()
        room = len(raw) + 8
        ids = (ctypes.c_int32 * room)()
        flags = ctypes.c_bool(add_special), ctypes.c_bool(True)
        count = self._lib.llama_tokenize(self._vocab, raw, len(raw), ids, room, *flags)
        assert count >= 0
        return list(ids[:count])

    def ends_generation(self, token_id: int) -> bool:
        """Whether llama.cpp stops at this token."""
        return bool(self._function("llama_vocab_is_eog", ctypes.c_bool)(self._vocab, token_id))

    def _function(self, name: str, result: type) -> Callable[..., Any]:
        function = self._lib[name]  # a new object each time, so that its type is ours alone
        function.restype = result
        return function
