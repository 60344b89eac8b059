"""Tiny GGUF files with random weights in f32: one with attention, one with a recurrent state."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

HIDDEN = 32
NUM_LAYERS = 2
CONTEXT = 512
# <unk>, <s>, </s>, a token for each byte, and letters
TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcdefghijk"]
NUM_TOKENS = len(TOKENS)
EOS_ID = 2

_ENDS: dict[str, tuple[int, ...]] = {
    "token_embd.weight": (NUM_TOKENS, HIDDEN),
    "output_norm.weight": (HIDDEN,),
    "output.weight": (NUM_TOKENS, HIDDEN),
}

Tensors = dict[str, NDArray[np.float32]]


def write_llama(
    path: Path,
    *,
    seed: int = 0,
    window: int | None = None,
    head: int = HIDDEN // 4,
    tensors_per_shard: int = 0,
) -> Path:
    """Two layers of attention, four heads and two of keys and values; with a `window` of tokens it
    is a Gemma 3, whose every sixth layer sees all of them. In shards, `path` is none of them."""
    num_layers = NUM_LAYERS if window is None else 6
    heads, kv_heads, wide = 4, 2, 2 * HIDDEN
    shapes = dict(_ENDS)
    for layer in range(num_layers):
        shapes |= {
            f"blk.{layer}.attn_norm.weight": (HIDDEN,),
            f"blk.{layer}.attn_q.weight": (heads * head, HIDDEN),
            f"blk.{layer}.attn_k.weight": (kv_heads * head, HIDDEN),
            f"blk.{layer}.attn_v.weight": (kv_heads * head, HIDDEN),
            f"blk.{layer}.attn_output.weight": (HIDDEN, heads * head),
            f"blk.{layer}.ffn_norm.weight": (HIDDEN,),
            f"blk.{layer}.ffn_gate.weight": (wide, HIDDEN),
            f"blk.{layer}.ffn_up.weight": (wide, HIDDEN),
            f"blk.{layer}.ffn_down.weight": (HIDDEN, wide),
        }
        if window is not None:
            shapes |= {
                f"blk.{layer}.attn_q_norm.weight": (head,),
                f"blk.{layer}.attn_k_norm.weight": (head,),
                f"blk.{layer}.post_attention_norm.weight": (HIDDEN,),
                f"blk.{layer}.post_ffw_norm.weight": (HIDDEN,),
            }
    kind = "llama" if window is None else "gemma3"
    writer = _writer(path, kind, num_layers, tensors_per_shard)
    writer.add_feed_forward_length(wide)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    if window is not None:
        writer.add_sliding_window(window)
    return _write(writer, path, _random(shapes, seed))


def write_mamba(path: Path, *, seed: int = 0) -> Path:
    """Two layers whose memory is a state of fixed size."""
    inner, state, rank, conv = 2 * HIDDEN, 4, 2, 4
    shapes = dict(_ENDS)
    for layer in range(NUM_LAYERS):
        shapes |= {
            f"blk.{layer}.attn_norm.weight": (HIDDEN,),
            f"blk.{layer}.ssm_in.weight": (2 * inner, HIDDEN),
            f"blk.{layer}.ssm_conv1d.weight": (inner, conv),
            f"blk.{layer}.ssm_conv1d.bias": (inner,),
            f"blk.{layer}.ssm_x.weight": (rank + 2 * state, inner),
            f"blk.{layer}.ssm_dt.weight": (inner, rank),
            f"blk.{layer}.ssm_dt.bias": (inner,),
            f"blk.{layer}.ssm_a": (inner, state),
            f"blk.{layer}.ssm_d": (inner,),
            f"blk.{layer}.ssm_out.weight": (HIDDEN, inner),
        }
    writer = _writer(path, "mamba", NUM_LAYERS)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_ssm_conv_kernel(conv)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    tensors = _random(shapes, seed)
    for layer in range(NUM_LAYERS):
        tensors[f"blk.{layer}.ssm_a"] = -np.abs(tensors[f"blk.{layer}.ssm_a"]) - 0.1
    return _write(writer, path, tensors)


def _random(shapes: dict[str, tuple[int, ...]], seed: int) -> Tensors:
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes.items():
        values = rng.standard_normal(shape, np.float32)
        tensors[name] = np.abs(values) + 0.5 if "norm" in name else values * shape[-1] ** -0.5
    return tensors


def _writer(
    path: Path, architecture: str, num_layers: int, tensors_per_shard: int = 0
) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=tensors_per_shard)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(num_layers)
    writer.add_layer_norm_rms_eps(1e-5)
    kinds = gguf.TokenType
    special = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([-float(index) for index in range(NUM_TOKENS)])
    num_letters = NUM_TOKENS - 259
    writer.add_token_types([*special, *[kinds.BYTE] * 256, *[kinds.NORMAL] * num_letters])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(EOS_ID)
    return writer


def _write(writer: gguf.GGUFWriter, path: Path, tensors: Tensors) -> Path:
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
