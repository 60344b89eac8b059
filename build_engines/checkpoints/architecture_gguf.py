"""The numbers of a transformer from the header of a GGUF file (gguf-py's constants.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from build_engines.checkpoints.architecture import CLASSES, Architecture, Numbers
from build_engines.checkpoints.gguf_file import field, optional_field

if TYPE_CHECKING:
    from gguf import GGUFReader

# general.architecture -> the class in config.json: of a dense model, of a mixture of experts
GGUF_CLASSES = {
    "llama": ("LlamaForCausalLM", "MixtralForCausalLM"),
    "qwen": ("QWenLMHeadModel", ""),
    "qwen2": ("Qwen2ForCausalLM", ""),
    "qwen2moe": ("", "Qwen2MoeForCausalLM"),
    "qwen3": ("Qwen3ForCausalLM", ""),
    "qwen3moe": ("", "Qwen3MoeForCausalLM"),
    "gemma": ("GemmaForCausalLM", ""),
    "gemma2": ("Gemma2ForCausalLM", ""),
    "gemma3": ("Gemma3ForCausalLM", ""),
    "phi2": ("PhiForCausalLM", ""),
    "phi3": ("Phi3ForCausalLM", ""),
    "phimoe": ("", "PhiMoEForCausalLM"),
    "chatglm": ("ChatGLMModel", ""),
    "glm4": ("Glm4ForCausalLM", ""),
    "glm4moe": ("", "Glm4MoeForCausalLM"),
    "gpt-oss": ("", "GptOssForCausalLM"),
    "deepseek2": ("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"),
}


def read_architecture(reader: GGUFReader) -> Architecture:
    """Raises SourceError or ConversionError for a header without the numbers of a transformer."""
    kind = str(field(reader, "general.architecture"))
    read = Numbers(_below(reader, kind), "the GGUF header")
    experts = read.optional("expert_count")
    name = GGUF_CLASSES.get(kind, ("", ""))[1 if experts else 0]
    heads, hidden = read.required("attention.head_count"), read.required("embedding_length")
    wide = read.optional("feed_forward_length")
    return Architecture(
        hf_architecture=name,
        model_type=kind,
        num_layers=read.required("block_count"),
        hidden_size=hidden,
        num_heads=heads,
        num_kv_heads=read.optional("attention.head_count_kv") or heads,
        head_size=read.optional("attention.key_length_mla", "attention.key_length")
        or hidden // heads,
        # Qwen-1 counts both halves of its gated MLP
        intermediate_size=wide // 2 if kind == "qwen" else wide,
        vocab_size=read.optional("vocab_size") or len(field(reader, "tokenizer.ggml.tokens")),
        max_position_embeddings=read.required("context_length"),
        tie_word_embeddings=all(tensor.name != "output.weight" for tensor in reader.tensors),
        **_experts(experts, wide, read),
        **_latent(read),
        **_windows(name, read),
    )


def _below(reader: GGUFReader, kind: str) -> dict[str, Any]:
    """The architecture's own fields; of a list (a value for each layer) the greatest."""
    found = {}
    for key in reader.fields:
        if key.startswith(f"{kind}."):
            value = optional_field(reader, key)
            if isinstance(value, list):
                value = max(value, default=None) if all(type(v) is int for v in value) else None
            found[key.removeprefix(f"{kind}.")] = value
    return found


def _experts(experts: int, wide: int, read: Numbers) -> dict[str, Any]:
    if not experts:
        return {}
    each = read.optional("expert_feed_forward_length") or wide
    return {
        "num_experts": experts,
        "num_experts_per_token": read.required("expert_used_count"),
        "moe_intermediate_size": each,
        "shared_expert_intermediate_size": read.optional("expert_shared_feed_forward_length")
        or read.optional("expert_shared_count") * each,
        "num_dense_layers": read.optional("leading_dense_block_count"),
    }


def _latent(read: Numbers) -> dict[str, Any]:
    rank = read.optional("attention.kv_lora_rank")
    if not rank:
        return {}
    rope = read.required("rope.dimension_count")
    key = read.required("attention.key_length_mla", "attention.key_length")
    return {
        "kv_lora_rank": rank,
        "q_lora_rank": read.optional("attention.q_lora_rank"),
        "qk_rope_head_size": rope,
        "qk_nope_head_size": key - rope,
        "v_head_size": read.required("attention.value_length_mla", "attention.value_length"),
    }


def _windows(name: str, read: Numbers) -> dict[str, Any]:
    window = read.optional("attention.sliding_window")
    if not window or not name:
        return {}
    return {"sliding_window": window, "full_attention_every": CLASSES[name].full_attention_every}
