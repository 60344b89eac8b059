"""What quantizing calls of torch."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

float16, bfloat16 = "float16", "bfloat16"
no_grad = inference_mode = nullcontext


class cuda:
    @staticmethod
    def is_available() -> bool:
        return False


def tensor(values: list[Any], device: str | None = None) -> list[Any]:
    return values
