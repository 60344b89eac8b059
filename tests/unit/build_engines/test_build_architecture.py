"""A model's numbers, read from config.json and GGUF headers in every family's spelling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter

from build_engines.checkpoints.architecture import CLASSES, Architecture
from build_engines.checkpoints.architecture_gguf import GGUF_CLASSES
from build_engines.errors import BuildError, SourceError, UnknownArchitectureError
from build_engines.families.table import FAMILIES, family_of
from build_engines.spec import load_spec

LLAMA = {
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "intermediate_size": 11008,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
}
# class -> config.json as published, and the number of weights of its checkpoint
PUBLISHED: dict[str, tuple[str, dict[str, Any], int]] = {
    "Llama-2-7B": ("LlamaForCausalLM", LLAMA, 6_738_415_616),
    "Llama-3-8B": (
        "LlamaForCausalLM",
        {**LLAMA, "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256},
        8_030_261_248,
    ),
    "Qwen-7B": (
        "QWenLMHeadModel",
        {**LLAMA, "intermediate_size": 22016, "vocab_size": 151936, "seq_length": 8192,
         "max_position_embeddings": 32768, "kv_channels": 128},
        7_721_324_544,
    ),
    "Qwen-14B": (
        "QWenLMHeadModel",
        {"num_hidden_layers": 40, "hidden_size": 5120, "num_attention_heads": 40,
         "intermediate_size": 27392, "vocab_size": 152064, "seq_length": 2048,
         "max_position_embeddings": 8192, "kv_channels": 128},
        14_167_290_880,
    ),
    "Gemma-2B": (
        "GemmaForCausalLM",
        {"num_hidden_layers": 18, "hidden_size": 2048, "num_attention_heads": 8,
         "num_key_value_heads": 1, "head_dim": 256, "intermediate_size": 16384,
         "vocab_size": 256000, "max_position_embeddings": 8192},
        2_506_172_416,
    ),
    "Gemma-7B": (
        "GemmaForCausalLM",
        {"num_hidden_layers": 28, "hidden_size": 3072, "num_attention_heads": 16,
         "num_key_value_heads": 16, "head_dim": 256, "intermediate_size": 24576,
         "vocab_size": 256000, "max_position_embeddings": 8192},
        8_537_680_896,
    ),
    "Gemma-2-9B": (
        "Gemma2ForCausalLM",
        {"num_hidden_layers": 42, "hidden_size": 3584, "num_attention_heads": 16,
         "num_key_value_heads": 8, "head_dim": 256, "intermediate_size": 14336,
         "vocab_size": 256000, "max_position_embeddings": 8192},
        9_241_705_984,
    ),
    "ChatGLM3-6B": (
        "ChatGLMModel",
        {"num_layers": 28, "hidden_size": 4096, "num_attention_heads": 32, "kv_channels": 128,
         "multi_query_attention": True, "multi_query_group_num": 2, "ffn_hidden_size": 13696,
         "padded_vocab_size": 65024, "seq_length": 8192},
        6_243_584_000,
    ),
    "Phi-2": (
        "PhiForCausalLM",
        {"num_hidden_layers": 32, "hidden_size": 2560, "num_attention_heads": 32,
         "intermediate_size": 10240, "vocab_size": 51200, "max_position_embeddings": 2048},
        2_779_683_840,
    ),
    "Mixtral-8x7B": (
        "MixtralForCausalLM",
        {**LLAMA, "num_key_value_heads": 8, "intermediate_size": 14336, "num_local_experts": 8,
         "num_experts_per_tok": 2, "sliding_window": None},
        46_702_792_704,
    ),
    "Qwen3-30B-A3B": (
        "Qwen3MoeForCausalLM",
        {"num_hidden_layers": 48, "hidden_size": 2048, "num_attention_heads": 32,
         "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144,
         "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8,
         "decoder_sparse_step": 1, "mlp_only_layers": [], "vocab_size": 151936,
         "max_position_embeddings": 40960, "use_sliding_window": False, "sliding_window": 4096},
        30_532_122_624,
    ),
}  # fmt: skip


@pytest.mark.parametrize("model", PUBLISHED)
def test_the_weights_are_counted_to_the_last_one(model: str) -> None:
    name, config, published = PUBLISHED[model]
    found = Architecture.from_config({"architectures": [name], **config})
    assert found.num_parameters == published


@pytest.mark.parametrize(
    ("name", "config", "published"),
    [
        (
            "DeepseekV3ForCausalLM",
            {"num_hidden_layers": 61, "hidden_size": 7168, "num_attention_heads": 128,
             "num_key_value_heads": 128, "intermediate_size": 18432, "n_routed_experts": 256,
             "moe_intermediate_size": 2048, "n_shared_experts": 1, "num_experts_per_tok": 8,
             "first_k_dense_replace": 3, "moe_layer_freq": 1, "kv_lora_rank": 512,
             "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
             "v_head_dim": 128, "vocab_size": 129280, "max_position_embeddings": 163840},
            671_026_419_200,
        ),
        (
            "GptOssForCausalLM",
            {"num_hidden_layers": 24, "hidden_size": 2880, "num_attention_heads": 64,
             "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 2880,
             "num_local_experts": 32, "num_experts_per_tok": 4, "vocab_size": 201088,
             "max_position_embeddings": 131072, "sliding_window": 128},
            20_914_757_184,
        ),
    ],
)  # fmt: skip
def test_but_for_biases_of_routers(name: str, config: dict[str, Any], published: int) -> None:
    found = Architecture.from_config({"architectures": [name], **config})
    assert found.num_parameters == pytest.approx(published, rel=1e-6)


def test_the_six_specs_say_what_the_checkpoints_say() -> None:
    for spec, model in {
        "qwen-7b-chat": "Qwen-7B",
        "qwen-14b-chat": "Qwen-14B",
        "gemma-7b": "Gemma-7B",
        "gemma-2b": "Gemma-2B",
        "llama-2-7b-chat": "Llama-2-7B",
        "chatglm3-6b": "ChatGLM3-6B",
    }.items():
        planned = load_spec(spec).architecture
        assert planned is not None
        name, config, _ = PUBLISHED[model]
        config = {"architectures": [name], "model_type": planned.model_type, **config}
        assert planned == Architecture.from_config(config)
        assert load_spec(spec).family == family_of(planned).name


def test_qwen_1_goes_as_far_as_it_goes_without_dynamic_ntk() -> None:
    _, config, _ = PUBLISHED["Qwen-7B"]
    found = Architecture.from_config({"architectures": ["QWenLMHeadModel"], **config})
    assert found.max_position_embeddings == 8192


def test_the_text_model_of_a_multimodal_one_is_read() -> None:
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240,
            "num_hidden_layers": 34, "sliding_window": 1024}  # fmt: skip
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text}
    found = Architecture.from_config(config)
    assert (found.num_heads, found.num_kv_heads, found.vocab_size) == (8, 4, 262_208)
    assert (found.num_layers, found.num_full_attention_layers) == (34, 5)
    assert found.attention_windows(8192) == (1024, 1024, 1024, 1024, 1024, 8192)
    assert found.attention_windows(1024) == ()


def test_windows_follow_the_list_of_layers() -> None:
    window = {**LLAMA, "sliding_window": 128}
    alternating = ["sliding_attention", "full_attention"] * 16

    def read(**more: Any) -> Architecture:
        return Architecture.from_config({"architectures": ["LlamaForCausalLM"], **window, **more})

    assert read(layer_types=alternating).full_attention_every == 2
    assert read(layer_types=["full_attention"] * 32).sliding_window is None
    assert read(use_sliding_window=False).sliding_window is None
    assert read().attention_windows(4096) == (128,)


@pytest.mark.parametrize(
    "config",
    [{}, {"architectures": None}, {"architectures": ["NoSuchModel"]}, {"model_type": "bert"}],
)
def test_an_unknown_architecture_is_named(config: dict[str, Any]) -> None:
    with pytest.raises(UnknownArchitectureError, match="GGUF file") as caught:
        Architecture.from_config({**LLAMA, **config})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [None, 0, -1, "32", 1.5, True])
def test_a_number_that_is_none_is_named(bad: Any) -> None:
    with pytest.raises(SourceError, match="hidden_size"):
        Architecture.from_config(
            {**LLAMA, "architectures": ["LlamaForCausalLM"], "hidden_size": bad}
        )


@pytest.mark.parametrize("junk", ["x", -1, 0, 1.5, [], ["x"], {}, {"a": 1}, None, True, 10**30])
def test_whatever_a_config_says_it_is_read_or_refused_in_one_line(junk: Any) -> None:
    refusals = []
    for name, config, _ in PUBLISHED.values():
        full = {"architectures": [name], "model_type": "x", "layer_types": ["full_attention"],
                "text_config": None, "sliding_window": 64, **config}  # fmt: skip
        for key in full:
            try:
                found = Architecture.from_config({**full, key: junk})
                assert found.num_parameters > 0
                assert isinstance(found.attention_windows(4096), tuple)
            except BuildError as exc:
                refusals.append(str(exc))
    assert refusals
    assert not any("\n" in refusal for refusal in refusals)


def write_gguf(path: Path, kind: str, fields: dict[str, int], *, tied: bool = False) -> Path:
    writer = GGUFWriter(path, kind)
    for key, value in fields.items():
        writer.add_uint32(f"{kind}.{key}", value)
    writer.add_token_list(["a", "b", "c"])
    writer.add_tensor("token_embd.weight", np.zeros((2, 2), np.float32))
    if not tied:
        writer.add_tensor("output.weight", np.zeros((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_header_says_the_same(tmp_path: Path) -> None:
    fields = {"block_count": 32, "embedding_length": 4096, "attention.head_count": 32,
              "attention.head_count_kv": 32, "feed_forward_length": 22016,
              "context_length": 8192}  # fmt: skip
    found = Architecture.from_gguf(GGUFReader(write_gguf(tmp_path / "q.gguf", "qwen", fields)))
    assert found.hf_architecture == "QWenLMHeadModel"
    assert (found.intermediate_size, found.head_size, found.vocab_size) == (11008, 128, 3)
    assert not found.tie_word_embeddings


def test_a_gguf_file_of_experts_is_a_mixture(tmp_path: Path) -> None:
    fields = {"block_count": 4, "embedding_length": 64, "attention.head_count": 4,
              "feed_forward_length": 128, "context_length": 512, "expert_count": 8,
              "expert_used_count": 2}  # fmt: skip
    path = write_gguf(tmp_path / "m.gguf", "llama", fields, tied=True)
    found = Architecture.from_gguf(GGUFReader(path))
    assert found.hf_architecture == "MixtralForCausalLM"
    assert (found.num_experts, found.moe_intermediate_size) == (8, 128)
    assert found.tie_word_embeddings


def test_a_gguf_file_of_any_architecture_is_read(tmp_path: Path) -> None:
    fields = {"block_count": 4, "embedding_length": 64, "attention.head_count": 4,
              "feed_forward_length": 128, "context_length": 512}  # fmt: skip
    found = Architecture.from_gguf(GGUFReader(write_gguf(tmp_path / "x.gguf", "olmo", fields)))
    assert (found.hf_architecture, found.model_type, found.num_layers) == ("", "olmo", 4)
    with pytest.raises(UnknownArchitectureError, match="olmo"):
        family_of(found)


def test_each_class_has_a_family_and_each_family_its_classes() -> None:
    named = {name for family in FAMILIES.values() for name in family.architectures}
    assert named == CLASSES.keys()
    known = {name for pair in GGUF_CLASSES.values() for name in pair if name}
    assert known <= CLASSES.keys()
    assert {name for f in FAMILIES.values() for name in f.gguf_architectures} == set(GGUF_CLASSES)
