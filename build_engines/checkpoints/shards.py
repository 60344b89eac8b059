"""The names of a GGUF file's shards (llama.cpp's gguf-split): NAME-00001-of-00003.gguf."""

from __future__ import annotations

import re
from pathlib import Path

from build_engines.errors import SourceError

_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf")


def shard_names(name: str) -> list[str]:
    """All shards of the file that `name` is a shard of, first to last; of a whole file itself."""
    found = _SHARD.fullmatch(name)
    if found is None:
        return [name]
    count = int(found["count"])
    return [f"{found['stem']}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)]


def shard_paths(path: Path) -> list[Path]:
    """The shards beside a GGUF file. Raises SourceError when one is missing."""
    paths = [path.with_name(name) for name in shard_names(path.name)]
    for shard in paths:
        if not shard.is_file():
            raise SourceError(f"{shard} is missing: the shards of a GGUF file belong in one folder")
    return paths
