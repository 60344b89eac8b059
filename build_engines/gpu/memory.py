"""Bytes of GPU memory that a model takes: weights, KV cache, activations.

Weights and KV cache follow from shapes alone and are exact but for alignment; activations are an
upper estimate (docs/source/reference/memory.md of TensorRT-LLM says what they grow with).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from build_engines.checkpoints.architecture import Architecture
from build_engines.checkpoints.parameters import count_parameters

# Bits of a weight of a linear layer, scales included. int4_awq and w4a8_awq: a 16-bit scale for
# each group of 128; nvfp4: an 8-bit one for 16; mxfp4: an 8-bit one for 32 (OCP MX, section 5.2).
# int8_wo, int4_wo, int8_sq and fp8 have one for each row or matrix, which is nothing beside it.
WEIGHT_BITS = {
    "fp16": 16.0,
    "bf16": 16.0,
    "fp8": 8.0,
    "int8_wo": 8.0,
    "int8_sq": 8.0,
    "int4_wo": 4.0,
    "int4_awq": 4.125,
    "w4a8_awq": 4.125,
    "nvfp4": 4.5,
    "mxfp4": 4.25,
}
FULL_BYTES = 2  # of a weight or an activation in fp16 or bf16
KV_BYTES = {"auto": 2, "int8": 1, "fp8": 1}
LOGITS_BYTES = 4  # logits are float32
# CUDA context, kernels and cuBLAS workspaces of a process; with several GPUs NCCL's buffers too.
# Estimates: they do not depend on the model.
RUNTIME_BYTES = 1_200 << 20
NCCL_BYTES = 400 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel:
    """On how many GPUs a model is spread, and how."""

    tp_size: int = 1
    pp_size: int = 1
    ep_size: int = 1

    @property
    def world_size(self) -> int:
        """GPUs."""
        return self.tp_size * self.pp_size


def weight_bytes(arch: Architecture, quantization: str, *, is_engine: bool = True) -> int:
    """All weights. An engine holds tied embeddings twice: as the input table and as the head."""
    found = count_parameters(arch)
    head = found.embedding if is_engine and arch.tie_word_embeddings else found.head
    plain = found.embedding + head + found.other
    packed = found.linear
    if quantization == "mxfp4":  # the experts only (gpt-oss' model card)
        packed, plain = found.experts, plain + found.attention + found.mlp
    return plain * FULL_BYTES + ceil(packed * WEIGHT_BITS[quantization] / 8)


def weight_bytes_per_gpu(
    arch: Architecture, quantization: str, parallel: Parallel, *, is_engine: bool = True
) -> int:
    """Of the GPU that holds most.

    Linear layers and the head are parted by tensor parallelism, layers by pipeline parallelism;
    the input table is whole on each GPU of the first stage (--use_parallel_embedding is off).
    """
    found = count_parameters(arch)
    table = found.embedding * FULL_BYTES
    has_head = is_engine or not arch.tie_word_embeddings
    head = table // parallel.tp_size if has_head else 0
    ends = table + head if parallel.pp_size == 1 else max(table, head)
    everything = weight_bytes(arch, quantization, is_engine=is_engine)
    both = table * (2 if has_head else 1)
    layers = (everything - both) / arch.num_layers
    return ends + ceil(layers * ceil(arch.num_layers / parallel.pp_size) / parallel.tp_size)


def kv_bytes_per_token(arch: Architecture, kv_cache: str, parallel: Parallel | None = None) -> int:
    """Of a token that every layer keeps, on one GPU: 2 x layers x heads x head size x bytes.

    Llama-2-7B in fp16: 524 288. Grouped-query attention has fewer heads; more GPUs than such heads
    repeat them. DeepSeek's latent attention keeps one vector for all heads, on every GPU.
    """
    return _kv_values_per_layer(arch, parallel) * KV_BYTES[kv_cache] * _layers(arch, parallel)


def kv_bytes(
    arch: Architecture, kv_cache: str, num_tokens: int, parallel: Parallel | None = None
) -> int:
    """Of one sequence so long, on one GPU. Layers with a window keep no more than it."""
    of_layer = _kv_values_per_layer(arch, parallel) * KV_BYTES[kv_cache]
    share = _layers(arch, parallel) / arch.num_layers
    full = arch.num_full_attention_layers
    windowed = min(num_tokens, arch.sliding_window or num_tokens)
    kept = full * num_tokens + (arch.num_layers - full) * windowed
    return ceil(of_layer * kept * share)


def _kv_values_per_layer(arch: Architecture, parallel: Parallel | None) -> int:
    if arch.kv_lora_rank:
        return arch.kv_lora_rank + arch.qk_rope_head_size
    tp_size = parallel.tp_size if parallel else 1
    return 2 * ceil(arch.num_kv_heads / tp_size) * arch.head_size


def _layers(arch: Architecture, parallel: Parallel | None) -> int:
    return ceil(arch.num_layers / parallel.pp_size) if parallel else arch.num_layers


def activation_bytes(
    arch: Architecture, max_num_tokens: int, max_batch_size: int, parallel: Parallel
) -> int:
    """What a step takes beside weights and KV cache, on one GPU: an upper estimate.

    TensorRT keeps the tensors of one layer at a time: for each token of the step the residual, its
    norm and the widest pair of what attention or the MLP has between. Then logits in float32 for
    each sequence: computed, and twice in the sampler.
    """
    tp = parallel.tp_size
    attention = (arch.num_heads + 2 * arch.num_kv_heads) * arch.head_size
    attention += arch.num_heads * arch.head_size
    mlp = 3 * arch.intermediate_size
    if arch.num_experts:
        chosen = arch.num_experts_per_token * (3 * arch.moe_intermediate_size + arch.hidden_size)
        mlp = max(mlp if arch.num_dense_layers else 0, chosen)
        mlp += 3 * arch.shared_expert_intermediate_size
    per_token = 2 * arch.hidden_size + max(attention, mlp) / tp
    logits = 3 * max_batch_size * arch.vocab_size * LOGITS_BYTES
    return ceil(max_num_tokens * per_token * FULL_BYTES) + logits


def runtime_bytes(parallel: Parallel) -> int:
    """What a process takes whatever it runs."""
    return RUNTIME_BYTES + (NCCL_BYTES if parallel.world_size > 1 else 0)
