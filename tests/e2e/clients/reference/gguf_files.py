"""Writes GGUF files of checkpoints as llama.cpp's convert_hf_to_gguf.py does: keys and tensors.

Weights are f32, so that only the architecture is in question, or Q4_0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from checkpoints import Checkpoint
from families import Family
from numpy.typing import NDArray
from safetensors import safe_open

Array = NDArray[np.float32]
Config = dict[str, Any]
Tensors = dict[str, Array]  # by name


def write_gguf(
    family: Family,
    checkpoint: Checkpoint,
    path: Path,
    template: str | None,
    *,
    is_quantized: bool = False,
) -> None:
    """Raises KeyError for a tensor that the architecture does not have in GGUF."""
    architecture, add_keys, change = ARCHITECTURES[family.gguf]
    config = checkpoint.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(family.spec)
    types = gguf.LlamaFileType
    writer.add_file_type(types.MOSTLY_Q4_0 if is_quantized else types.ALL_F32)
    _add_common_keys(writer, architecture, config)
    add_keys(writer, config)
    _add_vocabulary(writer, family, checkpoint, template)
    model = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(model, config["num_hidden_layers"])
    for name, tensor in change(_read(checkpoint.directory), config):
        renamed = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if renamed is None:
            raise KeyError(f"{architecture} has no place for {name}")
        values = np.ascontiguousarray(tensor, np.float32)
        if is_quantized and values.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q4_0
            writer.add_tensor(renamed, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(renamed, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _read(directory: Path) -> Tensors:
    with safe_open(directory / "model.safetensors", "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no Mapping


# ---- keys


def _add_common_keys(writer: gguf.GGUFWriter, architecture: str, config: Config) -> None:
    writer.add_vocab_size(config["vocab_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    if architecture != "qwen":
        writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _head_size(config: Config) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def _add_heads(writer: gguf.GGUFWriter, config: Config) -> None:
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(_head_size(config))
    writer.add_value_length(_head_size(config))


def _add_rope(writer: gguf.GGUFWriter, config: Config) -> None:
    rope = config["rope_parameters"]
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(_head_size(config) * rope.get("partial_rotary_factor", 1)))


def _add_attention(writer: gguf.GGUFWriter, config: Config) -> None:
    _add_heads(writer, config)
    _add_rope(writer, config)


def _add_llama(writer: gguf.GGUFWriter, config: Config) -> None:
    _add_attention(writer, config)
    if "num_local_experts" in config:
        writer.add_expert_count(config["num_local_experts"])
        writer.add_expert_used_count(config["num_experts_per_tok"])


def _add_qwen(writer: gguf.GGUFWriter, config: Config) -> None:
    writer.add_feed_forward_length(2 * config["intermediate_size"])  # of both parts, as Qwen says
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(_head_size(config))


def _add_qwen3moe(writer: gguf.GGUFWriter, config: Config) -> None:
    _add_attention(writer, config)
    writer.add_expert_count(config.get("num_experts") or config["num_local_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])


def _add_gemma2(writer: gguf.GGUFWriter, config: Config) -> None:
    _add_heads(writer, config)
    writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
    writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    writer.add_sliding_window(config["sliding_window"])


def _add_gemma3(writer: gguf.GGUFWriter, config: Config) -> None:
    _add_heads(writer, config)
    writer.add_rope_freq_base(config["rope_parameters"]["full_attention"]["rope_theta"])
    writer.add_sliding_window(config["sliding_window"])


def _add_phi3(writer: gguf.GGUFWriter, config: Config) -> None:
    writer.add_head_count_kv(config["num_key_value_heads"])
    _add_rope(writer, config)
    rope = config["rope_parameters"]
    if rope["rope_type"] == "longrope":
        original = rope["original_max_position_embeddings"]
        scale = config["max_position_embeddings"] / original
        writer.add_rope_scaling_orig_ctx_len(original)
        factor = np.sqrt(1 + np.log(scale) / np.log(original))
        writer.add_rope_scaling_attn_factors(float(factor))
    writer.add_sliding_window(config["sliding_window"] or 0)


def _add_chatglm(writer: gguf.GGUFWriter, config: Config) -> None:
    writer.add_head_count_kv(config["num_key_value_heads"])
    _add_rope(writer, config)


def _add_yarn(writer: gguf.GGUFWriter, config: Config) -> None:
    rope = config["rope_parameters"]
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(rope["factor"])
    writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


def _add_gpt_oss(writer: gguf.GGUFWriter, config: Config) -> None:
    _add_attention(writer, config)
    _add_yarn(writer, config)
    writer.add_sliding_window(config["sliding_window"])
    writer.add_expert_count(config["num_local_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_feed_forward_length(config["intermediate_size"])


def _add_deepseek2(writer: gguf.GGUFWriter, config: Config) -> None:
    rank, rope_size = config["kv_lora_rank"], config["qk_rope_head_dim"]
    writer.add_head_count_kv(1)  # attention works on the compressed keys and values
    writer.add_key_length(rank + rope_size)
    writer.add_value_length(rank)
    writer.add_key_length_mla(config["qk_nope_head_dim"] + rope_size)
    writer.add_value_length_mla(config["v_head_dim"])
    writer.add_q_lora_rank(config["q_lora_rank"])
    writer.add_kv_lora_rank(rank)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(rope_size)
    _add_yarn(writer, config)
    writer.add_rope_scaling_yarn_log_mul(0.1 * config["rope_parameters"]["mscale_all_dim"])
    writer.add_leading_dense_block_count(config["first_k_dense_replace"])
    writer.add_expert_count(config["n_routed_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_shared_count(config["n_shared_experts"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_expert_group_count(config["n_group"])
    writer.add_expert_group_used_count(config["topk_group"])
    writer.add_expert_weights_scale(config["routed_scaling_factor"])
    writer.add_expert_weights_norm(config["norm_topk_prob"])
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)


# ---- tensors

Changed = Iterator[tuple[str, Array]]


def _as_they_are(tensors: Tensors, config: Config) -> Changed:
    yield from tensors.items()


def _llama(tensors: Tensors, config: Config) -> Changed:
    """Queries and keys in the order that rotates neighbours; experts as one tensor."""
    rope = config["rope_parameters"]
    if rope["rope_type"] == "llama3":
        yield "rope_freqs.weight", _llama3_factors(rope, _head_size(config))
    for name, tensor in _merge_experts(tensors):
        if name.endswith("q_proj.weight"):
            tensor = _permute(tensor, config["num_attention_heads"])
        if name.endswith("k_proj.weight"):
            tensor = _permute(tensor, config["num_key_value_heads"])
        yield name, tensor


def _permute(weights: Array, num_heads: int) -> Array:
    halves = weights.reshape(num_heads, 2, -1, weights.shape[1])
    return halves.swapaxes(1, 2).reshape(weights.shape)


def _llama3_factors(rope: Config, head_size: int) -> Array:
    """What Llama 3.1 divides the rotation frequencies by: long waves are slowed down."""
    wavelengths = 2 * np.pi * rope["rope_theta"] ** (np.arange(0, head_size, 2) / head_size)
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    smooth = (rope["original_max_position_embeddings"] / wavelengths - low) / (high - low)
    smooth = np.clip(smooth, 0, 1)
    return 1 / ((1 - smooth) / factor + smooth)


def _merge_experts(tensors: Tensors) -> Changed:
    """`experts.N.` of a layer become one tensor [experts, rows, columns]."""
    merged: dict[str, list[Array]] = {}
    for name in sorted(tensors):  # there are fewer than ten experts
        head, experts, tail = name.partition(".experts.")
        if experts:
            index, _, part = tail.partition(".")
            assert int(index) == len(merged.setdefault(f"{head}.experts.{part}", []))
            merged[f"{head}.experts.{part}"].append(tensors[name])
        else:
            yield name, tensors[name]
    for name, parts in merged.items():
        yield name, np.stack(parts)


def _experts(tensors: Tensors, config: Config) -> Changed:
    yield from _merge_experts(tensors)


def _gemma(tensors: Tensors, config: Config) -> Changed:
    for name, tensor in tensors.items():
        yield name, tensor + 1 if name.endswith("norm.weight") else tensor


def _phi3(tensors: Tensors, config: Config) -> Changed:
    rope = config["rope_parameters"]
    if rope["rope_type"] == "longrope":
        yield "rope_factors_long.weight", np.array(rope["long_factor"])
        yield "rope_factors_short.weight", np.array(rope["short_factor"])
    yield from tensors.items()


def _qwen(tensors: Tensors, config: Config) -> Changed:
    """Qwen2's names to Qwen's, which has q, k and v in one tensor."""
    for name, tensor in _join_qkv(tensors, "attn.c_attn"):
        name = name.replace("model.embed_tokens", "transformer.wte")
        name = name.replace("model.norm", "transformer.ln_f").replace(
            "model.layers", "transformer.h"
        )
        name = name.replace("input_layernorm", "ln_1").replace("post_attention_layernorm", "ln_2")
        name = name.replace("self_attn.o_proj", "attn.c_proj").replace("mlp.up_proj", "mlp.w1")
        yield name.replace("mlp.gate_proj", "mlp.w2").replace("mlp.down_proj", "mlp.c_proj"), tensor


def _chatglm(tensors: Tensors, config: Config) -> Changed:
    """Glm's names to ChatGLM's, which has q, k and v in one tensor."""
    for name, tensor in _join_qkv(tensors, "self_attention.query_key_value"):
        name = name.replace("model.embed_tokens", "embedding.word_embeddings")
        name = name.replace("lm_head", "output_layer")
        name = name.replace("model.norm", "encoder.final_layernorm")
        name = name.replace("model.layers", "encoder.layers")
        name = name.replace("self_attn.o_proj", "self_attention.dense")
        name = name.replace("mlp.gate_up_proj", "mlp.dense_h_to_4h")
        yield name.replace("mlp.down_proj", "mlp.dense_4h_to_h"), tensor


def _join_qkv(tensors: Tensors, joined: str) -> Changed:
    for name, tensor in tensors.items():
        if "q_proj" in name:
            parts = [tensors[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            yield name.replace("self_attn.q_proj", joined), np.concatenate(parts)
        elif "k_proj" not in name and "v_proj" not in name:
            yield name, tensor


def _gpt_oss(tensors: Tensors, config: Config) -> Changed:
    """Gates and ups, which alternate in one tensor, become two."""
    for name, tensor in tensors.items():
        if "gate_up_proj" in name:
            for first, part in enumerate(("gate", "up")):
                half = tensor[..., first::2]
                renamed = name.replace("gate_up_proj", f"{part}_proj")
                yield _expert_name(renamed), half if half.ndim == 2 else half.swapaxes(1, 2)
        elif "experts.down_proj" in name:
            yield _expert_name(name), tensor if tensor.ndim == 2 else tensor.swapaxes(1, 2)
        else:
            yield (f"{name}.weight" if name.endswith("sinks") else name), tensor


def _expert_name(name: str) -> str:
    return name.replace("_bias", ".bias") if name.endswith("_bias") else f"{name}.weight"


def _deepseek2(tensors: Tensors, config: Config) -> Changed:
    """What makes keys and values from the compressed ones becomes two tensors by head."""
    num_heads, nope = config["num_attention_heads"], config["qk_nope_head_dim"]
    for name, tensor in _merge_experts(tensors):
        if "kv_b_proj" in name:
            by_head = tensor.reshape(num_heads, nope + config["v_head_dim"], -1)
            yield name.replace("kv_b_proj", "k_b_proj"), by_head[:, :nope].swapaxes(1, 2)
            yield name.replace("kv_b_proj", "v_b_proj"), by_head[:, nope:]
        elif name.endswith("e_score_correction_bias"):
            yield name.replace("e_score_correction_bias", "e_score_correction.bias"), tensor
        else:
            yield name, tensor


AddKeys = Callable[[gguf.GGUFWriter, Config], None]
Change = Callable[[Tensors, Config], Changed]
ARCHITECTURES: dict[str, tuple[str, AddKeys, Change]] = {
    "llama": ("llama", _add_llama, _llama),
    "qwen": ("qwen", _add_qwen, _qwen),
    "qwen2": ("qwen2", _add_attention, _as_they_are),
    "qwen3": ("qwen3", _add_attention, _as_they_are),
    "qwen3moe": ("qwen3moe", _add_qwen3moe, _experts),
    "gemma": ("gemma", _add_heads, _gemma),
    "gemma2": ("gemma2", _add_gemma2, _gemma),
    "gemma3": ("gemma3", _add_gemma3, _gemma),
    "phi3": ("phi3", _add_phi3, _phi3),
    "chatglm": ("chatglm", _add_chatglm, _chatglm),
    "glm4": ("glm4", _add_attention, _as_they_are),
    "gpt_oss": ("gpt-oss", _add_gpt_oss, _gpt_oss),
    "deepseek2": ("deepseek2", _add_deepseek2, _deepseek2),
}


# ---- vocabulary


def _add_vocabulary(
    writer: gguf.GGUFWriter, family: Family, checkpoint: Checkpoint, template: str | None
) -> None:
    vocabulary = checkpoint.vocabulary
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.add_space_prefix)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    if family.bos is not None:
        writer.add_bos_token_id(vocabulary.id_of(family.bos))
    writer.add_add_bos_token(family.bos is not None and family.prompt.startswith(family.bos))
    writer.add_eos_token_id(vocabulary.id_of(family.eos))
    if family.pad is not None:
        writer.add_pad_token_id(vocabulary.id_of(family.pad))
    if "<unk>" in vocabulary.tokens:
        writer.add_unk_token_id(vocabulary.id_of("<unk>"))
    if template is not None:
        writer.add_chat_template(template)
