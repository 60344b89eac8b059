"""Models verified in a real Triton, as before they are published and as `models verify` does."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from build_engines.artefacts.artefact import Artefact, EngineFacts
from build_engines.cpu.openvino_ir import MODEL_XML
from build_engines.errors import VerificationError
from build_engines.spec import load_spec
from build_engines.verify.oracle import Oracle, OracleFormat
from build_engines.verify.record import RECORD_NAME
from build_engines.verify.report import FIRST_RECORD
from build_engines.verify.run import verify
from frontend.triton.installation import find_installation, make_backend_directory
from tests.conftest import DEFAULT_MODEL
from tests.fakes import trtllm_backend
from tests.fakes.gpu_artefacts import engine_config, publish_tensorrt

WEIGHTS = "openvino_model.bin"
GOLDEN = load_spec(DEFAULT_MODEL).verify


def copied(artefact: Artefact, folder: Path) -> Artefact:
    """The artefact in another place, by links, without what was recorded of it."""
    for path in artefact.path.rglob("*"):
        target = folder / path.relative_to(artefact.path)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif path.name != RECORD_NAME:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    return replace(artefact, path=folder)


def triton_processes() -> set[int]:
    children = psutil.Process(os.getpid()).children(recursive=True)
    return {child.pid for child in children if "triton" in child.name()}


def test_a_published_model_is_verified_again_by_what_was_recorded(
    artefact: Artefact, tmp_path: Path
) -> None:
    log, others = io.StringIO(), triton_processes()
    verified = verify(artefact, home=tmp_path, log=log, record_to=tmp_path / "new")
    before = artefact.manifest.verification
    assert before is not None
    assert before.difference is not None
    assert verified.result.reference == before.reference
    assert verified.result.difference == pytest.approx(before.difference, abs=0.05)
    assert verified.result.tolerance == before.tolerance
    assert verified.memory_bytes is not None
    assert (tmp_path / "new").read_bytes() == (artefact.path / RECORD_NAME).read_bytes()
    assert 'verify: golden answer: {"token_ids":[504,' in log.getvalue()
    assert "triton: " in log.getvalue()
    assert triton_processes() <= others


def test_damaged_weights_are_refused(artefact: Artefact, tmp_path: Path) -> None:
    damaged = copied(artefact, tmp_path / "damaged")
    weights = bytearray((artefact.path / WEIGHTS).read_bytes())
    # quantized values of a layer in other places: still numbers, no longer the model
    part = np.frombuffer(weights, np.uint8)[60_000_000:80_000_000].copy()
    weights[60_000_000:80_000_000] = np.roll(part, 3_000_001).tobytes()
    (damaged.path / WEIGHTS).unlink()
    (damaged.path / WEIGHTS).write_bytes(weights)
    log = io.StringIO()
    with pytest.raises(VerificationError) as caught:
        verify(damaged, home=tmp_path, log=log, golden=GOLDEN, tolerance=0.1)
    assert "\n" not in str(caught.value)
    assert f'verify: refused: "{caught.value}"' in log.getvalue().replace('\\"', '"')


def test_a_model_that_triton_cannot_load_is_refused_in_one_line(
    artefact: Artefact, tmp_path: Path
) -> None:
    broken = copied(artefact, tmp_path / "broken")
    (broken.path / MODEL_XML).unlink()
    (broken.path / MODEL_XML).write_text("no model")
    with pytest.raises(
        VerificationError, match=r"does not work in Triton: .*could not be loaded"
    ) as e:
        verify(broken, home=tmp_path, log=io.StringIO())
    assert "\n" not in str(e.value)


def test_the_unquantized_model_in_openvino_says_about_the_same(
    artefact: Artefact, tmp_path: Path
) -> None:
    """The same weights, by OpenVINO without our batcher: what a Hugging Face checkpoint gets."""
    bare = copied(artefact, tmp_path / "bare")
    oracle = Oracle(
        format=OracleFormat.OPENVINO,
        path=artefact.path,
        description="the same weights in float32",
        has_same_weights=True,
    )
    verified = verify(bare, home=tmp_path, log=io.StringIO(), oracle=oracle)
    assert verified.result.difference is not None
    assert 0 < verified.result.difference < 0.05


def test_an_oracle_that_cannot_be_read_is_named_in_one_line(tmp_path: Path) -> None:
    oracle = Oracle(format=OracleFormat.OPENVINO, path=tmp_path, description="nothing")
    with (
        oracle.start() as process,
        pytest.raises(VerificationError, match=r"unquantized model failed \(exit 1\): .") as caught,
    ):
        process.score([])
    assert "\n" not in str(caught.value)


@pytest.fixture
def nvidia_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Triton as NVIDIA's image has it: bin/ beside backends/, with a stand-in for theirs."""
    wheel = find_installation()
    home = tmp_path / "nvidia"
    root = home / "state"
    make_backend_directory(wheel, root / "triton_backends")
    trtllm_backend.install(home)
    (root / "triton_backends").rename(root / "backends")
    (root / "bin").mkdir()
    (root / "bin" / "tritonserver").symlink_to(wheel.binary)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(wheel.libraries))
    monkeypatch.setenv("INFLIGHT_TRITON_BINARY", str(root / "bin" / "tritonserver"))
    return root


@pytest.mark.usefixtures("nvidia_layout")
def test_an_engine_is_held_to_what_the_unquantized_one_said(tmp_path: Path) -> None:
    """The C++ backend tells nothing of prompts: answers are asked token by token."""
    home = tmp_path / "home"
    fp16 = publish_tensorrt(home, "engine", config=engine_config(), variant="fp16")
    first = verify(fp16, home=home, log=io.StringIO(), record_to=fp16.path / RECORD_NAME)
    assert first.result.reference == FIRST_RECORD
    int8 = publish_tensorrt(home, "engine", config=engine_config(), variant="int8_wo")
    second = verify(int8, home=home, log=io.StringIO())
    assert second.result.reference == "engine/fp16"
    assert second.result.difference == pytest.approx(0, abs=0.01)
    assert second.result.tolerance == 0.15


def test_an_engine_without_nvidias_triton_is_not_published(tmp_path: Path) -> None:
    engine = publish_tensorrt(tmp_path, "engine", config=engine_config())
    with pytest.raises(VerificationError, match=r"verified by NVIDIA's Triton, which is not here"):
        verify(engine, home=tmp_path, log=io.StringIO())


def test_an_engine_of_several_gpus_is_orchestrated(
    nvidia_layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without mpirun here, a stand-in for it says how it was called and runs what it was given."""
    starter = tmp_path / "bin" / "mpirun"
    starter.parent.mkdir()
    called = tmp_path / "called"
    starter.write_text(
        f'#!/bin/sh\necho "$TRTLLM_ORCHESTRATOR $@" > {called}\nshift 3\nexec "$@"\n'
    )
    starter.chmod(0o755)
    monkeypatch.setenv("PATH", f"{starter.parent}:{os.environ['PATH']}")
    engine = publish_tensorrt(tmp_path / "home", "engine", config=engine_config())
    wide = replace(
        engine, manifest=replace(engine.manifest, engine=EngineFacts(tp_size=2, pp_size=1))
    )
    verify(wide, home=tmp_path / "home", log=io.StringIO())
    line = called.read_text()
    assert line.startswith(f"1 --allow-run-as-root -n 1 {nvidia_layout}/bin/tritonserver ")
    assert line.rstrip().endswith("--cuda-memory-pool-byte-size=1:0")
