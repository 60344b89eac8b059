"""A wheel that is not laid out as we call it is refused before anything is done with it."""

from __future__ import annotations

import ctypes
import tomllib
from pathlib import Path
from typing import Any

import pytest

from triton_models.llama_cpp.abi import (
    BUILT_FOR,
    ContextParams,
    Llama,
    LlamaAbiError,
    ModelParams,
    load_library,
)


class Function:
    """A function of a library, which ctypes lets be typed."""

    def __init__(self, result: Any) -> None:
        self.restype: Any = None
        self.argtypes: Any = None
        self._result = result

    def __call__(self, *_: object) -> Any:
        return self._result


class Library:
    """All functions there are, with the true wheel's defaults but for what is given."""

    def __init__(self, missing: str = "", **results: Any) -> None:
        real = load_library()
        self._missing = missing
        self._results = {
            "llama_model_default_params": real.model_default_params(),
            "llama_context_default_params": real.context_default_params(),
        } | results

    def __getattr__(self, name: str) -> Function:
        if name == self._missing:
            raise AttributeError(name)
        return Function(self._results.get(name))


def shifted(struct: ctypes.Structure, after: str) -> ctypes.Structure:
    """What the defaults read as when four bytes were put in behind a field."""
    kind = type(struct)
    field = getattr(kind, after)
    cut = field.offset + field.size
    data = bytes(struct)
    return kind.from_buffer_copy((data[:cut] + b"\x07\0\0\0" + data[cut:])[: len(data)])


def test_the_installed_wheel_is_accepted_and_no_other_is_asked_for() -> None:
    Llama(Library())
    project = Path(__file__).parents[3] / "pyproject.toml"
    wanted = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    assert f"xllamacpp=={BUILT_FOR}" in wanted


CONTEXT_FIELDS = [name for name, *_ in ContextParams._fields_]
MODEL_FIELDS = [name for name, *_ in ModelParams._fields_]


@pytest.mark.parametrize("after", CONTEXT_FIELDS[: CONTEXT_FIELDS.index("op_offload")])
def test_a_context_with_one_field_more_is_refused(after: str) -> None:
    moved = shifted(load_library().context_default_params(), after)
    with pytest.raises(LlamaAbiError, match="lays out llama_context_params otherwise") as caught:
        Llama(Library(llama_context_default_params=moved))
    assert f"pip install xllamacpp=={BUILT_FOR}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("after", MODEL_FIELDS[: MODEL_FIELDS.index("vocab_only")])
def test_a_model_with_one_field_more_is_refused(after: str) -> None:
    moved = shifted(load_library().model_default_params(), after)
    with pytest.raises(LlamaAbiError, match="lays out llama_model_params otherwise"):
        Llama(Library(llama_model_default_params=moved))


def test_a_wheel_without_a_function_is_refused() -> None:
    with pytest.raises(LlamaAbiError, match="has no llama_memory_seq_cp: pip install"):
        Llama(Library(missing="llama_memory_seq_cp"))
