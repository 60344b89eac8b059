"""Checks safetensors files, and the index over several, against their sizes; reads no weights.

The format: eight bytes with the length of a JSON object, the object (tensor -> dtype, shape,
data_offsets), the data (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Annotated

import msgspec

from build_engines.errors import SourceError

INDEX_NAME = "model.safetensors.index.json"
_LENGTH = struct.Struct("<Q")
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_METADATA_KEY = "__metadata__"

Offset = Annotated[int, msgspec.Meta(ge=0)]


class _Tensor(msgspec.Struct, frozen=True):
    data_offsets: tuple[Offset, Offset]


class _Index(msgspec.Struct, frozen=True):
    weight_map: dict[str, str]


def check_weights(folder: Path) -> None:
    """Raises SourceError unless the folder's weights are all there, in full length."""
    if (folder / INDEX_NAME).is_file():
        for name in _shards(folder):
            check_safetensors(folder / name)
        return
    files = sorted(folder.glob("*.safetensors"))
    for path in files:
        check_safetensors(path)
    if not files and not any(folder.glob("pytorch_model*.bin")):
        raise SourceError(f"{folder} has no weights (*.safetensors): download the whole checkpoint")


def check_safetensors(path: Path) -> None:
    """Raises SourceError for a file that is cut off or whose header is not true of it."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length_bytes = file.read(_LENGTH.size)
            length = _LENGTH.unpack(length_bytes)[0] if len(length_bytes) == _LENGTH.size else size
            if length > min(size - _LENGTH.size, _MAX_HEADER_BYTES):
                raise _broken(path, "it ends within its header")
            header = msgspec.json.decode(file.read(length), type=dict[str, msgspec.Raw])
            header.pop(_METADATA_KEY, None)
            ends = [msgspec.json.decode(raw, type=_Tensor).data_offsets for raw in header.values()]
    except msgspec.DecodeError as exc:
        raise _broken(path, f"its header is wrong: {exc}") from exc
    needed = _LENGTH.size + length + max((end for _, end in ends), default=0)
    if any(begin > end for begin, end in ends):
        raise _broken(path, "a tensor in its header ends before it begins")
    if size != needed:
        raise _broken(path, f"it has {size} bytes, its header says {needed}")


def _shards(folder: Path) -> list[str]:
    try:
        index = msgspec.json.decode((folder / INDEX_NAME).read_bytes(), type=_Index)
    except msgspec.DecodeError as exc:
        raise SourceError(f"{folder / INDEX_NAME}: {exc}: download it again") from exc
    names = sorted(set(index.weight_map.values()))
    outside = [name for name in names if Path(name).name != name]
    missing = [name for name in names if not (folder / name).is_file()]
    if outside or missing:
        wrong = (outside or missing)[0]
        reason = "is outside of the folder" if outside else "is missing"
        raise SourceError(
            f"{folder / INDEX_NAME} names {wrong}, which {reason}: download the whole checkpoint"
        )
    return names


def _broken(path: Path, why: str) -> SourceError:
    return SourceError(f"{path} is not a whole safetensors file ({why}): download it again")
