"""`inflight build` of what cannot be built: one line that says why, and nothing is published."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.hub import FakeHub, running_hub
from tests.unit.build_engines.build_fakes import CONFIG, write_checkpoint
from tests.unit.build_engines.test_build_checkpoint import write_gguf


@dataclass(frozen=True, kw_only=True)
class Tried:
    """The checkpoint that is given, and what the hub is to the command."""

    checkpoint: str
    hub_url: str = "http://127.0.0.1:9"
    token: str = ""


def truncated_safetensors(folder: Path) -> Tried:
    checkpoint = write_checkpoint(folder / "model")
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    return Tried(checkpoint=str(checkpoint))


def gguf_with_a_lying_header(folder: Path) -> Tried:
    path = write_gguf(folder / "model.gguf")
    content = bytearray(path.read_bytes())
    content[8:16] = struct.pack("<Q", 1 << 40)  # how many tensors there are
    path.write_bytes(content)
    return Tried(checkpoint=str(path))


def unknown_architecture(folder: Path) -> Tried:
    checkpoint = write_checkpoint(folder / "model")
    config = CONFIG | {"architectures": ["WarpForCausalLM"]}
    (checkpoint / "config.json").write_text(json.dumps(config))
    return Tried(checkpoint=str(checkpoint))


def no_checkpoint(folder: Path) -> Tried:
    return Tried(checkpoint=str(folder / "nothing"))


def no_network(folder: Path) -> Tried:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    return Tried(checkpoint="lab/model", hub_url=f"http://127.0.0.1:{port}")


def wrong_token(folder: Path) -> Tried:
    return Tried(checkpoint="lab/model", hub_url="hub", token="wrong")


def another_models_tokens(folder: Path) -> Tried:
    """Of a model with a spec, whose ids are beyond this vocabulary."""
    return Tried(checkpoint=str(write_checkpoint(folder / "llama-3.1-8b-instruct")))


CASES: tuple[tuple[Callable[[Path], Tried], str], ...] = (
    (truncated_safetensors, "/model.safetensors is not a whole safetensors file ("),
    (gguf_with_a_lying_header, "/model.gguf is not a whole GGUF file (its header counts 1099511"),
    (unknown_architecture, "WarpForCausalLM"),
    (no_checkpoint, "error: there is no checkpoint "),
    (no_network, "error: cannot download lab/model from http://127.0.0.1:"),
    (wrong_token, "error: the hub does not take the token"),
    (another_models_tokens, "has the token id 128000, "),
)


@pytest.mark.parametrize(("prepare", "said"), CASES, ids=lambda case: getattr(case, "__name__", ""))
def test_what_cannot_be_built_ends_in_one_line_and_publishes_nothing(
    tmp_path: Path, prepare: Callable[[Path], Tried], said: str
) -> None:
    tried, home = prepare(tmp_path), tmp_path / "home"
    with running_hub(FakeHub({"lab/model": {"config.json": b"{}"}}, token="right")) as hub:
        finished = subprocess.run(
            [
                *(sys.executable, "-m", "frontend", "build", "--home", str(home)),
                *("--checkpoint", tried.checkpoint),
            ],
            env={
                **os.environ,
                "HF_ENDPOINT": hub.url if tried.hub_url == "hub" else tried.hub_url,
                "HF_HOME": str(tmp_path / "hf"),
                "HF_TOKEN": tried.token,
            },
            capture_output=True,
            text=True,
            check=False,
        )
    assert (finished.returncode in (1, 2), finished.stdout) == (True, ""), finished.stderr
    assert finished.stderr.startswith("error: ")
    assert said in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert not [path for path in home.rglob("models/*") if path.exists()]
