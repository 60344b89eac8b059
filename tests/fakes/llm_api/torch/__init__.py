"""What `SamplingParams.embedding_bias` takes, and nothing else of torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Tensor:
    """Holds an array; only this package's own code looks into it."""

    def __init__(self, values: NDArray[Any]) -> None:
        self._values = values

    def numpy(self) -> NDArray[Any]:
        return self._values


def from_numpy(values: NDArray[Any]) -> Tensor:
    if not isinstance(values, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(values).__name__})")
    return Tensor(values)
