"""Opens a checkpoint, a Hugging Face folder or a GGUF file, and checks that it is whole.

Reads headers only: neither the weights nor any code of the model's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from build_engines.checkpoints.architecture import Architecture
from build_engines.checkpoints.gguf_header import check_gguf
from build_engines.checkpoints.safetensors_header import check_weights
from build_engines.checkpoints.shards import shard_paths
from build_engines.errors import SourceError

CONFIG_NAME = "config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model's weights as they were published.

    `path` is a folder with config.json, or a .gguf file (of several shards the first). `config` is
    what config.json says; of a GGUF file its metadata, arrays left out.
    """

    path: Path
    format: Literal["hf", "gguf"]
    config: Mapping[str, Any]
    architecture: Architecture


def open_checkpoint(path: Path) -> Checkpoint:
    """Reads and checks the headers of a checkpoint.

    Raises SourceError for what is not whole, UnknownArchitectureError.
    """
    if path.is_dir():
        return _open_folder(path)
    if path.suffix == ".gguf":
        return _open_gguf(path)
    raise SourceError(
        f"{path} is neither a folder with config.json nor a .gguf file: give one of these"
    )


def _open_folder(path: Path) -> Checkpoint:
    try:
        config = msgspec.json.decode((path / CONFIG_NAME).read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        raise SourceError(f"{path} has no {CONFIG_NAME}: is it a checkpoint's folder?") from None
    except msgspec.DecodeError as exc:
        raise SourceError(f"{path / CONFIG_NAME}: {exc}") from exc
    architecture = Architecture.from_config(config)
    check_weights(path)
    return Checkpoint(path=path, format="hf", config=config, architecture=architecture)


def _open_gguf(path: Path) -> Checkpoint:
    metadata, *_ = [check_gguf(shard) for shard in shard_paths(path)]
    from build_engines.checkpoints.gguf_file import (
        open_gguf,  # takes the numbers in the file as they are
    )

    architecture = Architecture.from_gguf(open_gguf(path))
    return Checkpoint(path=path, format="gguf", config=metadata, architecture=architecture)
