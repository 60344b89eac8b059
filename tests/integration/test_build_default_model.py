"""The default model, really built."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import openvino
import pytest
from gguf import GGUFWriter

from build_engines.artefacts.artefact import Artefact, list_artefacts, verify_hashes
from build_engines.cpu import openvino_ir
from build_engines.errors import ConversionError
from build_engines.pipeline import build

MODEL = "smollm2-135m-instruct"
# bytes of weights and tokenizer, as measured
SIZES = {"f16": 275e6, "q8_0": 150e6, "q4_0": 97e6}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module", params=SIZES)
def built(home: Path, request: pytest.FixtureRequest) -> Artefact:
    return build(MODEL, request.param, home)


def test_every_variant_is_built_verified_and_described(built: Artefact) -> None:
    manifest = built.manifest
    assert manifest.size_bytes == pytest.approx(SIZES[manifest.variant], rel=0.02)
    assert sorted(manifest.files) == [
        "openvino_model.bin",
        "openvino_model.xml",
        "tokenizer/chat_template.jinja",
        "tokenizer/generation_config.json",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
        "verification.json",
    ]
    assert manifest.limits.vocab_size == 49152
    assert manifest.limits.max_seq_len == 8192
    assert manifest.tokens.eos_ids[0] == 2
    assert manifest.memory_bytes is not None
    # of the whole process: Python and the KV cache, and what OpenVINO makes of the weights
    assert manifest.size_bytes < manifest.memory_bytes < 1e9 + 12 * manifest.size_bytes
    found = manifest.verification
    assert found is not None
    assert found.reference == "llama.cpp on SmolLM2-135M-Instruct.Q4_1.gguf"
    assert found.difference is not None
    assert found.tolerance is not None
    assert 0 < found.difference < found.tolerance
    assert found.tokens_per_s["8"] > found.tokens_per_s["1"] > 0
    verify_hashes(built)


def test_a_build_that_is_killed_goes_on_and_makes_the_same_artefact(
    home: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "build_engines", MODEL, "--home", str(tmp_path)]
    killed = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("builds/*/q8_0/convert-*.partial/scratch/openvino_model.xml")):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert list_artefacts(tmp_path) == []

    resumed = subprocess.run(command, capture_output=True, text=True, check=True)
    stages = [line.split()[1] for line in resumed.stderr.splitlines()]
    assert stages == ["convert", "verify", "publish"]
    (found,) = list_artefacts(tmp_path)
    undisturbed = build(MODEL, "q8_0", home)
    assert found.manifest.files == undisturbed.manifest.files
    assert found.content_hash == undisturbed.content_hash


def test_what_is_built_is_found_in_less_than_a_tenth_of_a_second(home: Path) -> None:
    build(MODEL, "q8_0", home)
    started = time.monotonic()
    build(MODEL, "q8_0", home)
    assert time.monotonic() - started < 0.1


def test_the_command_prints_where_the_model_is(home: Path) -> None:
    artefact = build(MODEL, "q8_0", home)
    finished = subprocess.run(
        [sys.executable, "-m", "build_engines", MODEL],
        env=os.environ | {"INFLIGHT_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (finished.returncode, finished.stdout.strip()) == (0, str(artefact.path))
    assert artefact in list_artefacts(home)


def save_stateless(directory: Path, input_names: list[str]) -> None:
    """An IR that sums its inputs into three logits."""
    inputs = [openvino.opset13.parameter([1, 1, 3], np.float32, name=name) for name in input_names]
    for parameter, name in zip(inputs, input_names, strict=True):
        parameter.output(0).set_names({name})
    total = inputs[0]
    for parameter in inputs[1:]:
        total = openvino.opset13.add(total, parameter)
    total.output(0).set_names({"logits"})
    openvino.save_model(openvino.Model([total], inputs, "sum"), directory / openvino_ir.MODEL_XML)


def test_an_ir_with_other_inputs_is_refused(tmp_path: Path) -> None:
    save_stateless(tmp_path, ["x", "y"])
    with pytest.raises(ConversionError, match=r"unexpected OpenVINO model: inputs \['x', 'y'\]"):
        openvino_ir.check(tmp_path)


def test_an_ir_without_state_is_refused(tmp_path: Path) -> None:
    save_stateless(tmp_path, ["input_ids", "attention_mask", "position_ids", "beam_idx"])
    with pytest.raises(ConversionError, match="it has no KV cache state"):
        openvino_ir.check(tmp_path)


def test_an_ir_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    (tmp_path / openvino_ir.MODEL_XML).write_text("<net")
    with pytest.raises(ConversionError, match="wrote a model that is not whole"):
        openvino_ir.check(tmp_path)


def test_an_architecture_that_openvino_does_not_read_is_refused_by_name() -> None:
    with pytest.raises(ConversionError, match="does not read gemma3 models from GGUF, only llama"):
        openvino_ir.check_architecture("gemma3")


def test_a_gguf_file_that_openvino_cannot_read_is_an_error_of_the_conversion(
    tmp_path: Path,
) -> None:
    path = tmp_path / "model.gguf"
    writer = GGUFWriter(path, "gemma3")
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ConversionError, match=r"OpenVINO cannot convert model\.gguf: \S"):
        openvino_ir.convert(path, tmp_path / "out")
