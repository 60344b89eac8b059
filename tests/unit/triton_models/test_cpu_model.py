"""What a second graph of a model costs, whose weights are of one type or another."""

from __future__ import annotations

import numpy as np
import openvino as ov
import openvino.opset13 as opset
import pytest

from triton_models.cpu.model import _copied_bytes


@pytest.mark.parametrize(
    ("dtype", "copied_bytes"), [(np.int8, 1000), (np.float16, 8000), (np.float32, 8000)]
)
def test_weights_that_are_kept_as_f32_twice_cost_eight_bytes(
    dtype: type[np.generic], copied_bytes: int
) -> None:
    weights = opset.constant(np.zeros((10, 100), dtype))
    found = opset.parameter([1, 10], dtype)
    graph = ov.Model([opset.matmul(found, weights, False, False)], [found], "m")
    assert _copied_bytes(graph) == copied_bytes
