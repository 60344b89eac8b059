"""Checks the header of a GGUF file against the file before anybody trusts its numbers.

The format is in ggml's docs/gguf.md. Reads no weights and keeps nothing but the scalar metadata.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import NoReturn

from build_engines.checkpoints.shards import shard_names
from build_engines.errors import SourceError

Scalar = int | float | bool | str

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_DIMS = 4
_DEFAULT_ALIGNMENT = 32
_STRING, _ARRAY = 8, 9
_FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q",
            11: "<q", 12: "<d"}  # fmt: skip
# The least that one can take: a key's length and type and one byte; a name's length, the number
# of dimensions, the type and the offset.
_MIN_FIELD_BYTES, _MIN_TENSOR_BYTES = 13, 24


def check_gguf(path: Path) -> dict[str, Scalar]:
    """The scalar metadata of a file whose header is true of it.

    Raises SourceError for a file that is not GGUF, of another version, cut off, a shard under
    another name, or whose header promises what is not there.
    """
    with path.open("rb") as file:
        if path.stat().st_size < len(_MAGIC) + 20:
            raise SourceError(f"{path} is not a complete GGUF file: download it again")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Header(path, content).check()


class _Header:
    """A place in the file that moves on as the header is read."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self._path = path
        self._content = content
        self._size = len(content)
        self._at = 0

    def check(self) -> dict[str, Scalar]:
        if self._take(len(_MAGIC)) != _MAGIC:
            self._fail("it does not begin with GGUF")
        version = self._number("<I")
        if version not in _VERSIONS:
            is_swapped = version & 0xFFFF == 0
            known = " and ".join(map(str, _VERSIONS))
            self._fail(
                "it is for big-endian machines"
                if is_swapped
                else f"it is of version {version}, versions {known} are read"
            )
        num_tensors, num_fields = self._count(_MIN_TENSOR_BYTES), self._count(_MIN_FIELD_BYTES)
        fields = dict(self._field() for _ in range(num_fields))
        tensors = [self._tensor() for _ in range(num_tensors)]
        metadata = {key: value for key, value in fields.items() if value is not None}
        self._check_shards(metadata)
        self._check_data(tensors, metadata)
        return metadata

    def _check_shards(self, metadata: dict[str, Scalar]) -> None:
        """The others are found by their names alone."""
        count = metadata.get("split.count") or 1
        if count != len(shard_names(self._path.name)):
            raise SourceError(
                f"{self._path} is one of {count} shards, and is not called so: give them the names "
                "that they were published under, or join them with `llama-gguf-split --merge`"
            )

    def _check_data(
        self, tensors: list[tuple[str, list[int], int, int]], metadata: dict[str, Scalar]
    ) -> None:
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
            self._fail(f"its alignment is {alignment}")
        start = -(-self._at // alignment) * alignment
        for name, dims, kind, offset in tensors:
            try:
                block_size, type_size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
            except (ValueError, KeyError):
                self._fail(f"tensor {name} is of the unknown type {kind}")
            num_values = 1
            for dim in dims:
                num_values *= dim
            if start + offset + num_values * type_size // block_size > self._size:
                self._fail(f"tensor {name} lies beyond its end")

    def _field(self) -> tuple[str, Scalar | None]:
        key = self._string()
        return key, self._value(self._number("<I"), key)

    def _value(self, kind: int, key: str) -> Scalar | None:
        """None for an array, which is passed over."""
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            self._skip_array(key)
            return None
        if kind not in _FORMATS:
            self._fail(f"{key} is of the unknown type {kind}")
        value: Scalar = self._number(_FORMATS[kind])
        return value

    def _skip_array(self, key: str) -> None:
        kind = self._number("<I")
        if kind == _STRING:
            for _ in range(self._count(8)):
                self._skip(self._number("<Q"))
        elif kind in _FORMATS:
            size = struct.calcsize(_FORMATS[kind])
            self._skip(self._count(size) * size)
        else:
            self._fail(f"{key} is an array of the unknown type {kind}")

    def _tensor(self) -> tuple[str, list[int], int, int]:
        name = self._string()
        if not name:
            self._fail("it has a tensor without a name")
        num_dims = self._number("<I")
        if num_dims > _MAX_DIMS:
            self._fail(f"tensor {name} has {num_dims} dimensions")
        dims = [self._number("<Q") for _ in range(num_dims)]
        return name, dims, self._number("<I"), self._number("<Q")

    def _count(self, min_bytes: int) -> int:
        """How many of something come, each of at least `min_bytes`."""
        count = self._number("<Q")
        if count * min_bytes > self._size - self._at:
            self._fail(f"its header counts {count} entries, more than the file can hold")
        return count

    def _string(self) -> str:
        try:
            return self._take(self._number("<Q")).decode()
        except UnicodeDecodeError:
            self._fail("its header has text that is not UTF-8")

    def _number(self, form: str) -> int:
        self._need(size := struct.calcsize(form))
        value: int = struct.unpack_from(form, self._content, self._at)[0]
        self._at += size
        return value

    def _take(self, size: int) -> bytes:
        self._need(size)
        taken = self._content[self._at : self._at + size]
        self._at += size
        return taken

    def _skip(self, size: int) -> None:
        self._need(size)
        self._at += size

    def _need(self, size: int) -> None:
        if size > self._size - self._at:
            self._fail("it ends within its header")

    def _fail(self, why: str) -> NoReturn:
        raise SourceError(f"{self._path} is not a whole GGUF file ({why}): download it again")
