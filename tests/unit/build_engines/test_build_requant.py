from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, RopeScalingType
from gguf.quants import dequantize

from build_engines.checkpoints.gguf_file import field, open_gguf
from build_engines.cpu.gguf_requant import requantize
from build_engines.cpu.openvino_ir import check_readable
from build_engines.cpu.recipe import estimated_bytes
from build_engines.errors import ConversionError

Weights = npt.NDArray[np.float32]


@pytest.fixture
def matrix() -> Weights:
    return np.random.default_rng(5).normal(0, 0.1, (64, 256)).astype(np.float32)


@pytest.fixture
def source(tmp_path: Path, matrix: Weights) -> GGUFReader:
    path = tmp_path / "source.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_file_type(0)
    writer.add_block_count(1)
    writer.add_tokenizer_model("llama")
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "中"])
    writer.add_array("tokenizer.ggml.scores", [0.5, -1.0, 2.0])
    writer.add_bool("tokenizer.ggml.add_bos_token", False)
    for name in ("token_embd.weight", "blk.0.attn_q.weight"):
        writer.add_tensor(name, matrix)
    writer.add_tensor("output_norm.weight", np.linspace(0, 1, 256, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return open_gguf(path)


def tensors(reader: GGUFReader) -> dict[str, tuple[GGMLQuantizationType, Weights]]:
    return {
        tensor.name: (tensor.tensor_type, dequantize(tensor.data, tensor.tensor_type))
        for tensor in reader.tensors
    }


def rewrite(source: GGUFReader, path: Path, quantization: str) -> GGUFReader:
    requantize(source, path, quantization, lambda done, total: None)
    return open_gguf(path)


@pytest.mark.parametrize(
    ("quantization", "steps"),
    # Q8_0: half of a block's 127 steps, plus what the scale lost as f16; Q4_0 has 8 steps on one
    # side and 7 on the other, so that the value opposite the largest can be a whole step off.
    [("f16", 2048.0), ("q8_0", 127 / 0.5625), ("q4_0", 8 / 1.01)],
)
def test_every_weight_stays_within_a_step_of_its_block(
    source: GGUFReader, matrix: Weights, tmp_path: Path, quantization: str, steps: float
) -> None:
    found = tensors(rewrite(source, tmp_path / "out.gguf", quantization))["blk.0.attn_q.weight"][1]
    largest = np.abs(matrix).reshape(-1, 32).max(axis=1, keepdims=True)
    error = np.abs(found - matrix).reshape(-1, 32)
    assert (error <= largest / steps).all()


def test_requantizing_what_is_q8_0_already_changes_nothing_much(
    source: GGUFReader, tmp_path: Path
) -> None:
    once = rewrite(source, tmp_path / "once.gguf", "q8_0")
    twice = rewrite(once, tmp_path / "twice.gguf", "q8_0")
    first, second = (tensors(reader)["blk.0.attn_q.weight"][1] for reader in (once, twice))
    assert np.abs(first - second).max() <= 1e-3 * np.abs(first).max()


def test_four_bits_spare_the_embedding_and_no_format_touches_vectors(
    source: GGUFReader, tmp_path: Path
) -> None:
    found = tensors(rewrite(source, tmp_path / "out.gguf", "q4_0"))
    assert {name: kind.name for name, (kind, _) in found.items()} == {
        "token_embd.weight": "Q8_0",
        "blk.0.attn_q.weight": "Q4_0",
        "output_norm.weight": "F32",
    }
    assert (found["output_norm.weight"][1] == np.linspace(0, 1, 256, dtype=np.float32)).all()


def test_a_tokenizer_that_openvino_cannot_read_does_not_stop_it(
    source: GGUFReader, tmp_path: Path
) -> None:
    """Its reader wants a byte-level one, which is not used: tokenizer.json is made elsewhere."""
    copy = rewrite(source, tmp_path / "out.gguf", "f16")
    assert field(source, "tokenizer.ggml.model") == "llama"
    assert field(copy, "tokenizer.ggml.model") == "gpt2"
    assert field(copy, "tokenizer.ggml.merges") == ["a b"]


@pytest.mark.parametrize(
    ("tensor", "missing"),
    [
        ("rope_freqs.weight", "the scaling of its rotary embedding"),
        ("blk.0.ffn_up_exps.weight", "its experts"),
    ],
)
def test_what_openvino_would_leave_out_is_refused(
    tmp_path: Path, tensor: str, missing: str
) -> None:
    path = tmp_path / "source.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_tensor(tensor, np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ConversionError, match=f"does not read {missing} .*--variant gguf"):
        check_readable(open_gguf(path))


def test_a_scaled_rotary_embedding_is_refused_by_its_key(
    source: GGUFReader, tmp_path: Path
) -> None:
    check_readable(source)
    path = tmp_path / "scaled.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_rope_scaling_type(RopeScalingType.YARN)
    writer.add_tensor("output_norm.weight", np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ConversionError, match="rotary"):
        check_readable(open_gguf(path))


def test_metadata_is_kept_and_the_file_type_told(source: GGUFReader, tmp_path: Path) -> None:
    found = rewrite(source, tmp_path / "out.gguf", "q8_0")
    assert field(found, "general.file_type") == 7
    assert field(found, "general.architecture") == "llama"
    for key in source.fields:
        if key.startswith(("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "llama.")):
            assert field(found, key) == field(source, key)
            assert found.fields[key].types == source.fields[key].types


def test_progress_ends_at_the_whole(source: GGUFReader, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    requantize(source, tmp_path / "x.gguf", "f16", lambda done, total: steps.append((done, total)))
    assert len(steps) == 3
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1]


def test_an_unknown_quantization_names_the_known(source: GGUFReader, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="q3_k: choose one of f16, q8_0, q4_0"):
        requantize(source, tmp_path / "x.gguf", "q3_k", lambda done, total: None)


def test_a_source_type_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "source.gguf", "llama")
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((4, 32), dtype=np.int8))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ConversionError, match=r"blk\.0\.attn_q\.weight: cannot read I8"):
        rewrite(open_gguf(tmp_path / "source.gguf"), tmp_path / "out.gguf", "q8_0")


def test_the_estimate_covers_the_default_models_weights() -> None:
    measured = {"f16": 270_885_952, "q8_0": 144_811_072, "q4_0": 91_726_912}
    for quantization, size in measured.items():
        assert size - 2_500_000 <= estimated_bytes(134_515_008, quantization) <= 1.2 * size


@pytest.mark.parametrize("kept", [0, 3, 30, 500])
def test_a_truncated_file_is_no_gguf_file(source: GGUFReader, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes((tmp_path / "source.gguf").read_bytes()[:kept])
    with pytest.raises(ConversionError, match="not a complete GGUF file"):
        open_gguf(path)


def test_a_missing_key_is_named(source: GGUFReader) -> None:
    with pytest.raises(ConversionError, match=r"has no general\.nothing"):
        field(source, "general.nothing")
