from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as op
import pytest
from numpy.typing import NDArray

from build_engines.cpu.ir_fusion import fuse

WIDTH, GROUP = 64, 32
RANDOM = np.random.default_rng(7)


def weights(rows: int, zero: int = 128) -> Any:
    """Weights as the GGUF reader writes them."""
    shape = (rows, WIDTH // GROUP, GROUP)
    codes = op.constant(RANDOM.integers(0, 256, shape, dtype=np.uint8))
    zeros = op.constant(np.full((*shape[:2], 1), zero, np.uint8))
    scales = op.constant(RANDOM.random((*shape[:2], 1)).astype(np.float16))
    groups = op.multiply(op.subtract(op.convert(codes, "f16"), op.convert(zeros, "f16")), scales)
    matrix = op.reshape(groups, op.constant(np.array([rows, WIDTH], np.int64)), False)
    return op.convert(matrix, "f32")


def product(source: Any, matrix: Any) -> Any:
    return op.matmul(source, matrix, False, True)


def model_of(source: Any, *outputs: Any) -> ov.Model:
    return ov.Model(list(outputs), [source], "test")


def results(model: ov.Model) -> list[NDArray[np.float32]]:
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    x = np.random.default_rng(1).random((5, WIDTH), dtype=np.float32)
    return [np.array(value) for value in compiled([x]).values()]


def num_products(model: ov.Model) -> int:
    return sum(node.get_type_name() == "MatMul" for node in model.get_ordered_ops())


@pytest.fixture
def source() -> Any:
    return op.parameter([-1, WIDTH], np.float32, name="x")


def test_products_of_one_input_become_one_and_give_the_same(source: Any) -> None:
    model = model_of(source, *(product(source, weights(rows)) for rows in (96, 32, 32)))
    before = results(model)
    assert fuse(model) == 1
    assert num_products(model) == 1
    for old, new in zip(before, results(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_products_of_different_inputs_stay_apart(source: Any) -> None:
    other = op.relu(source)
    model = model_of(source, product(source, weights(32)), product(other, weights(32)))
    before = results(model)
    assert fuse(model) == 2
    assert num_products(model) == 2
    for old, new in zip(before, results(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_weights_that_are_used_elsewhere_are_left_alone(source: Any) -> None:
    shared = weights(32)
    model = model_of(source, product(source, shared), op.relu(shared))
    assert fuse(model) == 0


def test_another_zero_point_is_left_alone(source: Any) -> None:
    model = model_of(source, product(source, weights(32, zero=127)))
    assert fuse(model) == 0


def test_plain_weights_are_left_alone(source: Any) -> None:
    model = model_of(source, product(source, op.constant(np.ones((32, WIDTH), np.float32))))
    assert fuse(model) == 0
