"""A TensorRT engine from checkpoint to answer: built, verified in a real Triton, and served.

The tools and the C++ backend are stand-ins, each strict about what it is given; between them is
nothing but our own pipeline, tokenizer and config.pbtxt.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from build_engines.gpu.gpus import GPUS
from build_engines.pipeline import build
from build_engines.spec import TokenOptions
from build_engines.tensorrt.recipe import TensorRtRecipe
from build_engines.verify import scratch
from frontend.triton.server import EmbeddedTriton
from tests.fakes import trtllm_backend
from tests.fakes.tokenizers import END_OF_TURN, byte_level_tokenizer, id_of, write_tokenizer
from tests.fakes.trtllm.install import install_tools
from tests.integration.stand_ins import StandIns
from tests.unit.build_engines.tensorrt_fakes import ROOMY, tiny_spec, write_checkpoint

PROMPT = [40, 41, 42, 43]


class TritonWithBackend(EmbeddedTriton):
    """Triton as it is in the pinned image, but for the backend being a stand-in."""

    def start(self) -> None:
        super().start()
        trtllm_backend.install(self._home)


def test_an_engine_is_built_verified_and_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "backends" / "tensorrtllm").mkdir(parents=True)
    image = SimpleNamespace(backends=tmp_path / "backends")
    monkeypatch.setattr(scratch, "find_installation", lambda binary: image)
    monkeypatch.setattr(scratch, "EmbeddedTriton", TritonWithBackend)
    tokenizer = byte_level_tokenizer()
    end_id = id_of(tokenizer, END_OF_TURN)
    sizes = {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 512}
    config = {**sizes, "bos_token_id": None, "eos_token_id": end_id}
    checkpoint = write_checkpoint(tmp_path / "checkpoint", config)
    write_tokenizer(checkpoint, tokenizer)
    tools = install_tools(tmp_path / "tools")
    with monkeypatch.context() as patch:
        for name, value in tools.environment.items():
            patch.setenv(name, value)
        patch.setenv("INFLIGHT_TRTLLM_EXAMPLES", str(tools.examples))
        recipes = {"tensorrt_llm": TensorRtRecipe(gpus=lambda: [GPUS["L4"]])}
        spec = tiny_spec(checkpoint, tokens=TokenOptions())  # the checkpoint's own
        home = tmp_path / "home"
        built = build(spec, "lookahead", home, recipes=recipes, machine=ROOMY)
    manifest = built.manifest
    assert manifest.verification is not None
    assert manifest.tokens.eos_ids == [end_id]
    assert {"tokenizer/chat_template.jinja", "xgrammar_tokenizer_info.json"} < set(manifest.files)
    with StandIns(home) as triton:
        loaded = triton.load(built)
        room = 512 - 83  # a step's guesses take the rest
        assert (loaded.limits.max_seq_len, loaded.limits.vocab_size) == (room, sizes["vocab_size"])
        answer = triton.client("tiny", PROMPT).infer(request_output_len=[[5]], end_id=[[-1]])
        assert answer.error is None
        assert len(answer.token_ids()) == 5
