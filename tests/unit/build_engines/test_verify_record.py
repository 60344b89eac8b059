"""The record beside a model's weights, whose it is, and how far a model may be from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from build_engines.artefacts.artefact import artefact_dir, find_artefact
from build_engines.errors import VerificationError
from build_engines.verify.record import RECORD_NAME, Record, find_record, read_record
from build_engines.verify.rules import ScoredText
from build_engines.verify.texts import Question
from build_engines.verify.thresholds import tolerance_of
from tests.fakes.artefacts import publish_model

TEXTS = [ScoredText([1, 2, 3], [-0.123456789, -2.0])]


def test_a_record_is_read_as_it_was_written_but_for_the_noise(tmp_path: Path) -> None:
    question = Question(prompt_token_ids=[1], answer="a", answer_token_ids=[2], log_probs=[-1.0])
    record = Record("llama.cpp", 0.1, 0.6, TEXTS, question)
    record.write(tmp_path / RECORD_NAME)
    found = read_record(tmp_path)
    assert found is not None
    assert found.texts == [ScoredText([1, 2, 3], [-0.123, -2.0])]
    assert (found.reference, found.noise, found.question) == ("llama.cpp", 0.1, question)
    assert found.tolerance == 0.6


def test_records_of_one_thing_are_equal_to_the_byte(tmp_path: Path) -> None:
    for name, noise in (("a", 0.0), ("b", 1e-6)):
        texts = [ScoredText([1, 2], [-0.5 + noise])]
        Record("x", texts=texts).write(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / RECORD_NAME).write_text("{")
    with pytest.raises(VerificationError, match=rf"{RECORD_NAME} cannot be read .* delete it"):
        read_record(tmp_path)


def test_a_model_is_held_to_its_own_record_before_that_of_an_unquantized_variant(
    tmp_path: Path,
) -> None:
    for variant in ("q8_0", "f16", "q4_0"):
        publish_model(tmp_path, "tiny", variant)
    publish_model(tmp_path, "other", "f16")
    q8_0 = find_artefact(tmp_path, "tiny", "q8_0")
    assert q8_0 is not None
    assert find_record(tmp_path, q8_0) is None

    def write(name: str, variant: str) -> None:
        folder = artefact_dir(tmp_path, name, variant) / "current"
        Record(f"{name}/{variant}", tolerance=0.3, texts=TEXTS).write(folder / RECORD_NAME)

    write("other", "f16")
    write("tiny", "q4_0")
    assert find_record(tmp_path, q8_0) is None  # another model, and a quantized one
    write("tiny", "f16")
    found = find_record(tmp_path, q8_0)
    assert found is not None
    assert (found.reference, found.tolerance) == ("tiny/f16", None)  # each its own tolerance
    write("tiny", "q8_0")
    found = find_record(tmp_path, q8_0)
    assert found is not None
    assert (found.reference, found.tolerance) == ("tiny/q8_0", 0.3)


def test_less_bits_may_differ_more() -> None:
    order = ("fp16", "int8_wo", "fp8", "int4_awq", "nvfp4", "a quantization of tomorrow")
    tolerances = [tolerance_of(one) for one in order]
    assert tolerances == sorted(set(tolerances))
    assert tolerance_of("Q8_0") == tolerance_of("q8_0")
    assert tolerance_of("f32", is_embedding=True) < tolerance_of("f16", is_embedding=True) < 0.01
