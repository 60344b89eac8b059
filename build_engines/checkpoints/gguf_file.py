"""Reads GGUF files (the format of llama.cpp) by the `gguf` package, with the errors of a build."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, LlamaFileType

from build_engines.errors import ConversionError


def open_gguf(path: Path) -> GGUFReader:
    """A reader over the mapped file. Raises ConversionError if it is not a whole GGUF file.

    The stages of a build share it: reading a header takes seconds.
    """
    found = path.stat()
    return _open(path.resolve(), found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _open(path: Path, size: int, mtime_ns: int) -> GGUFReader:
    try:
        return _Reader(path)
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError) as exc:
        raise ConversionError(f"{path} is not a complete GGUF file: {exc}") from exc


class _Reader(GGUFReader):  # type: ignore[misc]
    """gguf's, three times as fast: a slice of a plain array costs less than one of a memmap.

    For files of this machine's byte order, which check_gguf sees to.
    """

    data: Any

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
        if type(self.data) is not np.ndarray:
            self.data = self.data.view(np.ndarray)
        kind = np.dtype(dtype)
        size = kind.itemsize * int(count)
        return self.data[offset : offset + size].view(kind)[: int(count)]


def field(reader: GGUFReader, key: str) -> Any:
    """Value of a metadata key. Raises ConversionError if the file lacks it."""
    value = optional_field(reader, key)
    if value is None:
        raise ConversionError(f"the GGUF file has no {key}")
    return value


def optional_field(reader: GGUFReader, key: str) -> Any | None:
    """Value of a metadata key, None if the file lacks it."""
    found = reader.get_field(key)
    return None if found is None else found.contents()


def quantization(reader: GGUFReader) -> str:
    """How most of the weights are stored, as llama.cpp names it: q4_0, q4_k_m, f16; of files that
    do not say, the type of most tensors of more than one dimension."""
    number = optional_field(reader, "general.file_type")
    if number in {known.value for known in LlamaFileType}:
        name = LlamaFileType(number).name
        return str(name).removeprefix("MOSTLY_").removeprefix("ALL_").lower()
    types = Counter(t.tensor_type.name for t in reader.tensors if len(t.shape) > 1)
    return str(types.most_common(1)[0][0]).lower() if types else "gguf"
