"""What cannot be built is refused, with the reason and what would work."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from build_engines.checkpoints.architecture import Architecture
from build_engines.errors import ChoiceError
from build_engines.families.choices import whole_groups
from build_engines.families.table import FAMILIES, check_choice
from build_engines.gpu.gpus import GPUS
from build_engines.spec import load_spec
from build_engines.tensorrt.engine_options import engine_options
from build_engines.variants import Lora, Speculative, Variant, VariantLimits


def architecture(model: str) -> Architecture:
    found = load_spec(model).architecture
    assert found is not None
    return found


LLAMA = architecture("llama-2-7b-chat")
QWEN_14B = architecture("qwen-14b-chat")
GEMMA_2B = architecture("gemma-2b")
CHATGLM = architecture("chatglm3-6b")


def choose(quantization: str = "fp16", kind: Any = "tensorrt_llm", **more: Any) -> Variant:
    return Variant(name="v", kind=kind, quantization=quantization, **more)


REFUSED = [
    # family, variant, GPU, model, words of the message
    ("llama", choose("fp8"), "A100-80GB", None, "cannot compute in FP8.*int8_sq or int8_wo"),
    ("llama", choose("fp8"), "A10", None, "L4, L40S, H100, H200 or B200"),
    ("llama", choose("w4a8_awq"), "A100-40GB", None, "w4a8_awq needs.*choose int4_awq"),
    ("llama", choose("nvfp4"), "H100", None, "needs Blackwell .B200.: choose fp8"),
    ("llama", choose("nvfp4"), "A100-80GB", None, "choose int4_awq or int8_sq"),
    ("llama", choose(kv_cache="fp8"), "A10", None, "an fp8 KV cache needs.*kv_cache int8 or auto"),
    ("llama", choose("fp8", kind="llm_api"), "A10", None, "choose bf16 or int4_awq"),
    ("gemma", choose(pp_size=2), None, None, "no pipeline parallelism.*tp_size to 2"),
    ("chatglm3", choose(tp_size=2, pp_size=2), None, None, "pp_size to 1 and tp_size to 4"),
    ("qwen", choose("int4_awq", tp_size=2), None, QWEN_14B, "5120 or 13696.*choose tp_size 1"),
    ("chatglm3", choose("int4_awq", tp_size=2), None, CHATGLM, "choose tp_size 1"),
    ("llama", choose("int4_awq", tp_size=4), None, LLAMA, "choose tp_size 1 or 2"),
    ("qwen", choose(tp_size=3), None, QWEN_14B, "40 heads .* tp_size 3 GPUs: choose 1, 2, 4 or 8"),
    ("gemma", choose(tp_size=16), None, GEMMA_2B, "8 heads with 1 of keys and values"),
    ("gemma", choose("nvfp4"), None, None, "Llama and Mixtral only; choose fp16, bf16"),
    ("chatglm3", choose("w4a8_awq"), None, None, "does not list it for ChatGLM"),
    ("chatglm3", choose(kv_cache="fp8"), None, None, "no fp8 KV cache .* choose auto or int8"),
    ("llama", choose("fp8", kv_cache="int8"), None, None, "int8 KV cache does not go with fp8"),
    ("llama", choose(kv_cache="int4"), None, None, "choose auto, int8 or fp8"),
    ("llama", choose("q8_0"), None, None, "q8_0 is not a quantization of TensorRT engines"),
    ("llama", choose("int8_sq", kind="llm_api"), None, None, "PyTorch backend does not have it"),
    ("llama", choose("int8_wo", kind="llm_api"), None, None, "fp16, bf16, fp8, int4_awq"),
    ("llama", choose(kind="llm_api", kv_cache="int8"), None, None, "no int8 KV cache"),
    ("qwen", choose(kind="llm_api"), None, None, "does not have this architecture.*tensorrt_llm"),
    ("gpt_oss", choose(), None, None, "PyTorch backend only; choose kind llm_api with mxfp4"),
    ("gemma3_multimodal", choose("bf16"), None, None, "choose kind llm_api with fp16"),
    ("glm4_hf", choose(), None, None, "variant gguf"),
    ("llama", choose(tp_size=8, ep_size=8), None, None, "no experts"),
    ("mixtral", choose(tp_size=4, ep_size=3), None, None, "ep_size 3 must divide tp_size 4"),
    ("mixtral", choose(tp_size=8, ep_size=8), None, LLAMA, "no experts"),
    ("llama", choose(tp_size=16, pp_size=8), None, None, "more than 64 GPUs"),
    ("llama", choose("q8_0", kind="cpu", tp_size=2), None, None, "one machine's CPU"),
]


@pytest.mark.parametrize(("name", "variant", "gpu", "model", "words"), REFUSED)
def test_the_impossible_is_refused(
    name: str, variant: Variant, gpu: str | None, model: Architecture | None, words: str
) -> None:
    with pytest.raises(ChoiceError, match=words) as caught:
        check_choice(FAMILIES[name], variant, GPUS[gpu] if gpu else None, model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "variant", "gpu", "model"),
    [
        ("llama", choose("fp8", kv_cache="fp8"), "L4", LLAMA),
        ("llama", choose("nvfp4"), "B200", LLAMA),
        ("llama", choose("w4a8_awq", tp_size=2), "H100", LLAMA),
        ("llama", choose(tp_size=2, pp_size=2), "A100-80GB", LLAMA),
        ("qwen", choose("int4_awq"), "A10", QWEN_14B),
        ("gemma", choose(tp_size=8), "A10", GEMMA_2B),  # its one head of keys is repeated
        ("chatglm3", choose("int8_sq", kv_cache="int8", tp_size=2), "A100-40GB", CHATGLM),
        ("gpt_oss", choose("mxfp4", kind="llm_api"), "H100", None),
        ("llama", choose("q8_0", kind="cpu"), None, LLAMA),
    ],
)
def test_the_possible_is_not(
    name: str, variant: Variant, gpu: str | None, model: Architecture | None
) -> None:
    check_choice(FAMILIES[name], variant, GPUS[gpu] if gpu else None, model)


def test_what_is_advised_instead_is_accepted() -> None:
    """The tensor parallelism that a message names is one that works."""
    for model in (LLAMA, QWEN_14B, CHATGLM, GEMMA_2B):
        for size in (1, 2, 4, 8):
            accepted = True
            try:
                check_choice(FAMILIES["llama"], choose("int4_awq", tp_size=size), None, model)
            except ChoiceError:
                accepted = False
            assert accepted == (whole_groups(model, size) and model.num_heads % size == 0)


OPTIONS_REFUSED = [
    (LLAMA, choose(max_seq_len=8192), "engines of llama go to 4096"),
    (QWEN_14B, choose(max_seq_len=8192), "go to 2048 for this model .dynamic NTK"),
    (LLAMA, choose(limits=VariantLimits(max_input_len=4096)), "no token would fit behind it"),
    (
        LLAMA,
        choose(kv_cache="int8", limits=VariantLimits(max_num_tokens=1024)),
        "cannot cut prompts into chunks",
    ),
    (LLAMA, choose(lora=Lora(max_rank=8, target_modules=("lm_head",), adapters={})), "attn_q"),
    (LLAMA, choose(lora=Lora(max_rank=8, target_modules=(), adapters={})), "know its modules"),
    (LLAMA, choose(speculative=Speculative(mode="eagle")), "needs speculative.draft_model"),
    (
        LLAMA,
        choose("fp8", speculative=Speculative(mode="medusa", draft_model="d")),
        "fp16 or bf16 with kv_cache auto only",
    ),
    (
        LLAMA,
        choose(pp_size=2, speculative=Speculative(mode="lookahead")),
        "does not go with pipeline parallelism",
    ),
    (
        QWEN_14B,
        choose(speculative=Speculative(mode="medusa", draft_model="d")),
        "no medusa engines of qwen: choose draft_target, lookahead",
    ),
    (
        LLAMA,
        choose(speculative=Speculative(mode="lookahead", max_draft_len=5)),
        "needs exactly 83",
    ),
    (
        LLAMA,
        choose(speculative=Speculative(mode="eagle", draft_model="d", choices=[[0]] * 9,
                                       max_draft_len=8)),
        "has 9 guesses, max_draft_len is 8",
    ),
    (
        LLAMA,
        choose(speculative=Speculative(mode="medusa", draft_model="d", choices=[[0, 0, 0]],
                                       num_heads=2)),
        "guesses 3 tokens ahead, with num_heads 2",
    ),
    (
        LLAMA,
        choose(speculative=Speculative(mode="draft_target", draft_model="/models/small")),
        "build the small model first",
    ),
    (
        LLAMA,
        choose(kv_cache="int8", speculative=Speculative(mode="draft_target", draft_model="small")),
        "kv_cache int8 cannot: set kv_cache to auto",
    ),
    (
        replace(LLAMA, sliding_window=1024),
        choose(speculative=Speculative(mode="draft_target", draft_model="small")),
        "with sliding windows cannot: choose lookahead",
    ),
    (
        LLAMA,
        choose(max_seq_len=64, speculative=Speculative(mode="lookahead")),
        "guesses 83 tokens at once, and max_seq_len is 64",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("model", "variant", "words"), OPTIONS_REFUSED)
def test_options_that_contradict_each_other_are_refused(
    model: Architecture, variant: Variant, words: str
) -> None:
    family = FAMILIES["qwen" if model is QWEN_14B else "llama"]
    with pytest.raises(ChoiceError, match=words):
        engine_options(family, variant, model, variant.max_seq_len)


def test_gemma_2_engines_end_at_4096_tokens() -> None:
    config = {"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2",
              "num_hidden_layers": 42, "hidden_size": 3584, "num_attention_heads": 16,
              "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 256000,
              "max_position_embeddings": 8192}  # fmt: skip
    gemma_2 = Architecture.from_config(config)
    assert engine_options(FAMILIES["gemma2"], choose(), gemma_2, None).limits.max_seq_len == 4096
    with pytest.raises(ChoiceError, match="4096"):
        engine_options(FAMILIES["gemma2"], choose(), gemma_2, 8192)


def test_the_kind_follows_from_the_quantization() -> None:
    assert FAMILIES["llama"].kind_of("int8_sq") == "tensorrt_llm"
    assert FAMILIES["qwen3"].kind_of("int4_awq") == "llm_api"
    assert FAMILIES["gpt_oss"].kind_of("mxfp4") == "llm_api"
    assert FAMILIES["gpt_oss"].kind_of("int8_sq") == "llm_api"  # has neither: it says so
    assert FAMILIES["gemma"].kind_of("nvfp4") == "tensorrt_llm"
    assert FAMILIES["qwen"].kind_of("gguf") == "llama_cpp"
    assert FAMILIES["llama"].kind_of("q8_0") == "cpu"
