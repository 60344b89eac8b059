"""Every family on a tiny checkpoint of its true architecture: built, served, held to transformers.

Where a family has only remote code (Qwen-1, ChatGLM3), the same weights run as the family of
transformers that computes the same (Qwen2, GLM).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from build_engines.spec import load_spec
from tests.e2e.answers import CHAT
from tests.e2e.conftest import CLIENTS, OFFLINE, ROOT, ClientPython, load
from tests.e2e.stack import Stack

GGUF = (
    *("qwen-7b-chat", "qwen-14b-chat", "gemma-2b", "gemma-7b", "llama-2-7b-chat", "chatglm3-6b"),
    *("llama-3.1-8b-instruct", "mistral-7b-instruct-v0.3", "mixtral-8x7b-instruct-v0.1"),
    *("qwen2.5-7b-instruct", "qwen3-8b", "qwen3-30b-a3b", "gemma-2-9b-it", "gemma-3-1b-it"),
    *("phi-3.5-mini-instruct", "phi-4", "glm-4-9b-chat", "glm-4-9b-0414", "gpt-oss-20b"),
    "deepseek-v3",
)
# What OpenVINO reads from GGUF; and of what PyTorch exports a dense model, one with windows and
# one with experts.
OPENVINO_GGUF = ("llama-2-7b-chat", "qwen2.5-7b-instruct", "qwen3-8b")
OPTIMUM = ("gemma-2b", "gemma-3-1b-it", "qwen3-30b-a3b")
BUILDS = (
    *((spec, "gguf") for spec in GGUF),
    *((spec, "f16") for spec in OPENVINO_GGUF),
    *((spec, "openvino") for spec in OPTIMUM),
)
# Their tiny checkpoints have the token ids that the specs name: they are built by the specs as they
# are. The ids of the others are beyond a tiny vocabulary.
AS_SHIPPED = (
    *("qwen-7b-chat", "qwen-14b-chat", "gemma-2b", "gemma-7b", "llama-2-7b-chat", "chatglm3-6b"),
    *("gemma-2-9b-it", "gemma-3-1b-it", "mistral-7b-instruct-v0.3", "mixtral-8x7b-instruct-v0.1"),
)
BUILD_TIMEOUT_S = 240.0
Finished = subprocess.CompletedProcess[str]
Builds = dict[tuple[str, str], Future[Finished]]
FROM_SPEC = ("name", "family", "chat_template", "tool_parser", "reasoning_parser")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """Where they are, and by the spec's name what transformers makes of each one's prompt."""

    folder: Path
    answers: dict[str, Any]

    def path(self, spec: str, variant: str) -> Path:
        return self.folder / (spec if variant == "openvino" else f"{spec}.gguf")


@pytest.fixture(scope="module")
def checkpoints(
    client_python: ClientPython, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoints:
    folder = tmp_path_factory.mktemp("checkpoints")
    made = subprocess.run(
        [
            client_python("reference"),
            str(CLIENTS / "reference/make.py"),
            str(folder),
            str(ROOT / "build_engines/chat_templates"),
        ],
        env={**os.environ, **OFFLINE},
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return Checkpoints(folder=folder, answers=json.loads(made.stdout))


@pytest.fixture(scope="module")
def builds(checkpoints: Checkpoints, client_python: ClientPython, home: Path) -> Iterator[Builds]:
    """All of them, by the command that a person runs; those to come while the first are served."""
    python = client_python("reference")

    def build(spec: str, variant: str) -> Finished:
        arguments = [spec, "--variant", variant]
        if spec not in AS_SHIPPED:
            spec_file = checkpoints.folder / f"{spec}.toml"
            spec_file.write_text(tiny_spec(spec))
            arguments += ["--spec", str(spec_file)]
        checkpoint = checkpoints.path(spec, variant)
        return run_build(home, *arguments, checkpoint=checkpoint, export_python=python)

    with ThreadPoolExecutor(2) as pool:
        yield {each: pool.submit(build, *each) for each in BUILDS}
        pool.shutdown(cancel_futures=True)
    for spec in GGUF:
        shutil.rmtree(home / "models" / spec, ignore_errors=True)


def run_build(
    home: Path, *arguments: str, checkpoint: Path, export_python: str | None = None
) -> Finished:
    """`inflight build`, as a person types it."""
    environment = {"INFLIGHT_EXPORT_PYTHON": export_python} if export_python else {}
    return subprocess.run(
        [
            *(sys.executable, "-m", "frontend", "build", *arguments, "--home", str(home)),
            *("--checkpoint", str(checkpoint)),
        ],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )


def tiny_spec(name: str) -> str:
    """The model's own spec, without what only its own checkpoint has: lengths and token ids."""
    spec = load_spec(name)
    values = {key: getattr(spec, key) for key in FROM_SPEC}
    return "".join(f'{key} = "{value}"\n' for key, value in values.items() if value is not None)


@pytest.mark.parametrize(("spec", "variant"), BUILDS)
def test_a_family_answers_in_its_own_template_as_transformers_does(
    spec: str,
    variant: str,
    checkpoints: Checkpoints,
    builds: Builds,
    stack: Stack,
    http: httpx.Client,
) -> None:
    built = builds[spec, variant].result()
    assert built.returncode == 0, built.stderr
    expected = checkpoints.answers[spec]
    load(stack, spec, quantization=variant)
    body = {
        "model": spec,
        "messages": [{"role": "user", "content": expected["question"]}],
        "max_tokens": len(expected["token_ids"]),
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
    }
    answer = http.post(CHAT, json=body)
    assert http.post(f"/api/v1/models/{spec}/unload").status_code == 200
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == spec
    assert answer.json()["prompt_token_ids"] == expected["prompt_token_ids"]
    (choice,) = answer.json()["choices"]
    assert choice["token_ids"] == expected["token_ids"]
    assert choice["finish_reason"] == "length"


def test_a_quantized_file_that_a_user_downloaded_is_served_by_the_models_name(
    checkpoints: Checkpoints, builds: Builds, stack: Stack, http: httpx.Client, home: Path
) -> None:
    model = "llama-2-7b-chat"
    builds[model, "gguf"].result()
    file = checkpoints.folder / "llama-2-7b-chat.Q4_0.gguf"
    built = run_build(home, model, checkpoint=file)
    assert built.returncode == 0, built.stderr
    body = {"quantization": "q4_0", "prefer_gpu": False}
    loaded = http.post(f"/api/v1/models/{model}/load", json=body)
    assert loaded.status_code == 200, loaded.text
    messages = [{"role": "user", "content": checkpoints.answers[model]["question"]}]
    answer = http.post(CHAT, json={"model": model, "messages": messages, "max_tokens": 8})
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] > 0
    listed = http.get("/api/v1/models").json()["models"]
    found = next(one for one in listed if one["name"] == model)
    assert (found["loaded"], found["format"], found["quantization"]) == (True, "gguf", "q4_0")
    assert http.post(f"/api/v1/models/{model}/unload").status_code == 200


def test_every_promised_family_is_among_them() -> None:
    families = {load_spec(spec).family for spec in GGUF}
    assert families >= {"qwen", "gemma", "llama", "chatglm3", "mistral", "mixtral", "qwen2"}
    assert families >= {"qwen3", "qwen3_moe", "gemma2", "gemma3", "phi3", "glm4", "gpt_oss"}
    assert families >= {"glm4_hf", "deepseek"}
