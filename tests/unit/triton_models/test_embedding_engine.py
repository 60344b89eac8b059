"""Rows in requests, and what is computed together."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray

from build_engines.cpu.bert_ir import build_graph
from tests.fakes.bert import TINY, random_weights, reference_embedding
from triton_models.embedding.batches import Batch, plan_batches
from triton_models.embedding.encoder import Row, SentenceEncoder
from triton_models.embedding.service import EmbeddingService, EmbeddingSettings, decode_rows
from triton_models.errors import EngineError, InvalidArgumentError

SETTINGS = EmbeddingSettings(artefact_dir=Path("/a"), max_input_len=8, vocab_size=50)


def test_rows_of_about_one_length_are_computed_together() -> None:
    assert plan_batches([3, 100, 5, 90, 7, 30], 1000) == [
        Batch((1, 3), 104),
        Batch((5,), 32),
        Batch((4, 2, 0), 8),
    ]


def test_no_batch_is_larger_than_it_may_be() -> None:
    assert plan_batches([8] * 5, 16) == [Batch((0, 1), 8), Batch((2, 3), 8), Batch((4,), 8)]
    assert plan_batches([100], 16) == [Batch((0,), 104)]


def test_nothing_is_no_batch() -> None:
    assert plan_batches([], 100) == []


def test_every_row_is_in_one_batch_and_little_is_padding() -> None:
    rng = random.Random(1)
    for _ in range(200):
        lengths = [rng.randint(1, 256) for _ in range(rng.randint(1, 64))]
        batches = plan_batches(lengths, 1024)
        assert sorted(i for batch in batches for i in batch.indices) == list(range(len(lengths)))
        for batch in batches:
            assert len(batch.indices) * batch.length <= 1024
            assert batch.length % 8 == 0
            for index in batch.indices:
                assert lengths[index] <= batch.length <= 2 * lengths[index] + 16


def row(*token_ids: int) -> Row:
    return np.array(token_ids, np.int32)


def tensors(rows: list[list[int]], lengths: list[int] | None = None) -> dict[str, NDArray[Any]]:
    found = {"input_ids": np.array(rows, np.int32)}
    if lengths is not None:
        found["input_lengths"] = np.array([[length] for length in lengths], np.int32)
    return found


def test_rows_are_cut_to_their_lengths() -> None:
    rows = decode_rows(tensors([[1, 2, 3], [4, 0, 0]], [3, 1]))
    assert [one.tolist() for one in rows] == [[1, 2, 3], [4]]


def test_rows_without_lengths_are_taken_whole() -> None:
    assert [one.tolist() for one in decode_rows(tensors([[1, 2], [3, 0]]))] == [[1, 2], [3, 0]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "input_ids: not"),
        ({"input_ids": np.zeros((1, 0), np.int32)}, "input_ids: not"),
        ({"input_ids": np.zeros(3, np.int32)}, "input_ids: not"),
        (tensors([[1, 2]], [1, 1]), "input_lengths: 2 lengths for 1 rows"),
        (tensors([[1, 2]], [0]), "input_lengths: lengths are 1 to 2"),
        (tensors([[1, 2]], [3]), "input_lengths: lengths are 1 to 2"),
    ],
)
def test_tensors_that_are_no_rows_are_refused(given: dict[str, NDArray[Any]], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        decode_rows(given)


class FakeEncoder:
    """A row's vector is its sum and its length."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.num_rows: list[int] = []

    def encode(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        if self.failure is not None:
            raise self.failure
        self.num_rows.append(len(rows))
        return np.array([[one.sum(), len(one)] for one in rows], np.float32).reshape(-1, 2)


def test_requests_are_computed_together_and_get_their_own_vectors() -> None:
    encoder = FakeEncoder()
    service = EmbeddingService(encoder, SETTINGS)
    answers = service.answer([tensors([[1, 2], [3, 0]], [2, 1]), tensors([[5]])])
    assert encoder.num_rows == [3]
    found = [one.tolist() for one in answers if not isinstance(one, EngineError)]
    assert found == [[[3, 2], [3, 1]], [[5, 1]]]


def test_a_bad_request_does_not_harm_the_others() -> None:
    answers = EmbeddingService(FakeEncoder(), SETTINGS).answer(
        [tensors([[50]]), tensors([[7]]), tensors([[-1]]), tensors([[1] * 9])]
    )
    good = answers.pop(1)
    assert not isinstance(good, EngineError)
    assert good.tolist() == [[7, 1]]
    assert [str(one) for one in answers] == [
        "Invalid argument: input_ids: token ids are 0 to 49",
        "Invalid argument: input_ids: token ids are 0 to 49",
        "Prompt length (9) exceeds maximum input length (8).",
    ]


def test_a_failure_of_the_engine_is_told_to_all() -> None:
    service = EmbeddingService(FakeEncoder(RuntimeError("out of memory")), SETTINGS)
    answers = service.answer([tensors([[1]]), tensors([[99]])])
    assert [str(one) for one in answers] == [
        "Engine error: out of memory",
        "Invalid argument: input_ids: token ids are 0 to 49",
    ]


def test_vectors_do_not_depend_on_what_they_are_computed_with(tmp_path: Path) -> None:
    weights = random_weights()
    ov.save_model(build_graph(weights, TINY), tmp_path / "m.xml", compress_to_fp16=False)
    encoder = SentenceEncoder(tmp_path / "m.xml", max_num_tokens=64, num_threads=1)
    rng = random.Random(2)
    rows = [row(*(rng.randrange(50) for _ in range(rng.randint(1, 40)))) for _ in range(40)]
    expected = np.array([reference_embedding(weights, TINY, one.tolist()) for one in rows])
    for size in (40, 1, 7):  # the same object, over and over, with ever other shapes
        found = np.concatenate(
            [encoder.encode(rows[start : start + size]) for start in range(0, len(rows), size)]
        )
        assert np.abs(found - expected).max() < 1e-5
    assert encoder.embedding_size == TINY.hidden_size
