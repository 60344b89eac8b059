"""Which files of a checkpoint a build needs: no pickles beside safetensors, and no code.

But for what only the converters of NVIDIA's container read: some run the makers' own code, there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

Report = Callable[[int, int], None]  # so many bytes of so many are done

GGUF_SUFFIX = ".gguf"
# Tokenizers, templates and configurations, those of sentence-transformers' modules among them.
_TEXT_PATTERNS = ("*.json", "*.jinja", "*.model", "*.tiktoken", "vocab.txt", "merges.txt")
_CODE_PATTERN = "*.py"
_WEIGHTS_PATTERNS = ("*.safetensors", "pytorch_model*.bin")
# The same weights once more, in the form of the model's makers
_OTHER_FORMS = ("consolidated", "original/", "onnx/", "openvino/")


class Found(NamedTuple):
    """A file of a checkpoint on this machine, and its SHA-256 where it is known already."""

    path: Path
    sha256: str | None = None


def needed_names(names: Iterable[str], *, with_code: bool = False) -> list[str]:
    """Of the names (POSIX paths in the checkpoint) those that a build needs, sorted."""
    own = [name for name in names if not name.startswith(_OTHER_FORMS)]
    texts = {name for name in own if _matches(name, _TEXT_PATTERNS)}
    if with_code:
        texts |= {name for name in own if "/" not in name and _matches(name, (_CODE_PATTERN,))}
    for pattern in _WEIGHTS_PATTERNS:
        weights = {name for name in own if "/" not in name and _matches(name, (pattern,))}
        if weights:
            return sorted(texts | weights)
    return sorted(texts)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(PurePosixPath(name).match(pattern) for pattern in patterns)
