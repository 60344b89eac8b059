"""Every variant of the six promised models: its engine's config.pbtxt is taken by a real Triton.

From the spec to the backend nothing is written by hand: our commands, the engine's config.json that
the stand-in tools make of them, our reading of it, our rendering. Renderings that differ in nothing
but names and places are loaded once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from build_engines.artefacts.artefact import Artefact
from build_engines.checkpoints.architecture import Architecture
from build_engines.families.table import FAMILIES
from build_engines.spec import Spec, load_spec
from build_engines.tensorrt.commands import Places, build_command, checkpoint_command
from build_engines.tensorrt.engine_config import read_engine_config
from build_engines.tensorrt.engine_facts import engine_facts
from build_engines.tensorrt.engine_options import engine_options
from build_engines.variants import Lora, Speculative, Variant, VariantLimits
from frontend.settings import Settings
from frontend.triton.folders import write_model_folder
from tests.fakes.gpu_artefacts import publish_tensorrt
from tests.fakes.trtllm import tools
from tests.fakes.trtllm.flags import parse
from tests.integration.stand_ins import StandIns
from tests.unit.build_engines.tensorrt_fakes import write_texts

SIX = ("qwen-7b-chat", "qwen-14b-chat", "gemma-7b", "gemma-2b", "llama-2-7b-chat", "chatglm3-6b")
# What a spec may add to a variant: other caches, GPUs, adapters, guesses
ADDED: dict[str, tuple[str, dict[str, Any]]] = {
    "int8_kv": ("fp16", {"kv_cache": "int8"}),
    "fp8_kv_beside_fp16": ("fp16", {"kv_cache": "fp8"}),
    "four_gpus": ("fp16", {"tp_size": 2, "pp_size": 2}),
    "adapters": ("fp16", {"lora": Lora(max_rank=16, target_modules=("attn_q",), adapters={})}),
    "small_batch": ("fp16", {"limits": VariantLimits(max_batch_size=4)}),
    **{
        mode: ("fp16", {"speculative": Speculative(mode=mode, draft_model="draft")})
        for mode in ("draft_target", "medusa", "eagle")
    },
    "lookahead": ("fp16", {"speculative": Speculative(mode="lookahead")}),
}  # fmt: skip
# The others change what the engine is, and nothing that the backend must be told
RENDERED_APART = {"int8_kv", "adapters", "small_batch", "medusa", "eagle", "lookahead"}
NAMES_AND_PLACES = ("variant", "artefact_dir", "gpt_model_path", "tokenizer_dir",
                    "xgrammar_tokenizer_info_path")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """A folder in which engines are made."""

    places: Places
    root: Path

    @classmethod
    def open(cls, root: Path) -> Workshop:
        texts, draft = write_texts(root / "texts"), root / "draft"
        draft.mkdir()
        (draft / "config.json").write_text(json.dumps(hf_config(architecture("llama-2-7b-chat"))))
        places = Places(
            examples=PurePath("/ex"), checkpoint=root / "hf", calibration=texts, draft=draft
        )
        return cls(places=places, root=root)

    def engine(self, spec: Spec, variant: Variant, home: Path) -> Artefact:
        """Converts and builds with the stand-in tools, and publishes what came out."""
        assert spec.architecture is not None
        family = FAMILIES[spec.family or ""]
        assert family.engine is not None
        options = engine_options(family, variant, spec.architecture, spec.max_seq_len)
        made, engine = self.root / variant.name, self.root / f"{variant.name}-engine"
        script = checkpoint_command(family.engine, options, self.places, made)
        tool = script[1].removeprefix("/ex/")
        tools.make_checkpoint(tool, tools.Arguments(parse(tool, list(script[2:]))))
        command = build_command(options, self.places, made, engine)
        tools.build(tools.Arguments(parse(command[0], list(command[1:]))))
        found = read_engine_config(engine)
        artefact = publish_tensorrt(
            home,
            f"{spec.name}-as-configured",
            config=json.loads((engine / "config.json").read_bytes()),
            variant=variant.name,
            max_seq_len=found.max_seq_len,
            vocab_size=found.vocab_size,
            engine=engine_facts(found, spec.architecture, options),
        )
        for rank in range(1, found.world_size):
            (artefact.path / "engine" / f"rank{rank}.engine").write_bytes(b"not an engine")
        return artefact


def architecture(model: str) -> Architecture:
    found = load_spec(model).architecture
    assert found is not None
    return found


def hf_config(numbers: Architecture) -> dict[str, Any]:
    """What the tools read of a checkpoint's config.json."""
    return {
        "architectures": [numbers.hf_architecture],
        "vocab_size": numbers.vocab_size,
        "max_position_embeddings": numbers.max_position_embeddings,
        "hidden_size": numbers.hidden_size,
        "num_hidden_layers": numbers.num_layers,
        "num_attention_heads": numbers.num_heads,
    }


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    monkeypatch.chdir(tmp_path)  # where trtllm-build leaves its timing cache
    return Workshop.open(tmp_path)


def variants_of(spec: Spec) -> list[Variant]:
    listed = [spec.variant(name) for name in spec.variants]
    variants = [variant for variant in listed if variant.kind == "tensorrt_llm"]
    if spec.name == "llama-2-7b-chat":  # the only one of the six whose tools have all of it
        added = ADDED.items()
        variants += [replace(spec.variant(of), name=name, **more) for name, (of, more) in added]
    return variants


def what_counts(settings: Settings, artefact: Artefact) -> bytes:
    """The configuration without the names and places in it, and without the load's number."""
    text = (write_model_folder(settings, artefact) / "config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    config.ClearField("name")
    config.ClearField("version_policy")
    for key in NAMES_AND_PLACES:
        config.parameters.pop(key)
    content: bytes = config.SerializeToString(deterministic=True)
    return content


@pytest.mark.parametrize("model", SIX)
def test_every_variant_has_a_configuration_that_triton_takes(
    stand_ins: StandIns, workshop: Workshop, model: str
) -> None:
    spec = load_spec(model)
    (workshop.root / "hf").mkdir()
    config = hf_config(architecture(model))
    (workshop.root / "hf" / "config.json").write_text(json.dumps(config))
    settings = Settings(home=workshop.root / "renderings")
    distinct: dict[bytes, Artefact] = {}
    variants = variants_of(spec)
    for variant in variants:
        artefact = workshop.engine(spec, variant, stand_ins.home)
        distinct.setdefault(what_counts(settings, artefact), artefact)
    for artefact in distinct.values():
        loaded = stand_ins.load(artefact)
        assert loaded.variant == artefact.manifest.variant
        assert loaded.limits.max_seq_len == spec.max_seq_len
        assert loaded.limits.vocab_size == config["vocab_size"]
    apart = RENDERED_APART if len(variants) > len(spec.variants) else set()
    assert {one.manifest.variant for one in distinct.values()} == {variants[0].name, *apart}
