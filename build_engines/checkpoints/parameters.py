"""How many weights an architecture has, by what a quantization does with them.

The formulas are the shapes of the modules in Hugging Face's modeling_*.py of each class.
"""

from __future__ import annotations

from dataclasses import dataclass

from build_engines.checkpoints.architecture import Architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Numbers of weights of the whole model, layers summed."""

    embedding: int  # the input table; with tied embeddings also the output's
    head: int  # the output matrix, where it is one of its own
    attention: int  # linear layers of attention
    mlp: int  # linear layers of dense MLPs and of what every token shares
    experts: int  # linear layers of the experts that are chosen from
    other: int  # norms, biases, routers: never quantized

    @property
    def total(self) -> int:
        """Of the checkpoint."""
        return self.embedding + self.head + self.linear + self.other

    @property
    def linear(self) -> int:
        """What a quantization of the weights makes smaller."""
        return self.attention + self.mlp + self.experts


def count_parameters(arch: Architecture) -> Parameters:
    """Counts the weights of an architecture."""
    table = arch.vocab_size * arch.hidden_size
    attention, attention_other = _attention(arch)
    dense_layers = arch.num_layers - arch.num_moe_layers
    mlp = dense_layers * _mlp(arch, arch.intermediate_size)
    mlp += arch.num_moe_layers * _mlp(arch, arch.shared_expert_intermediate_size)
    experts = arch.num_moe_layers * arch.num_experts * _mlp(arch, arch.moe_intermediate_size)
    router = arch.num_moe_layers * arch.num_experts * arch.hidden_size
    return Parameters(
        embedding=table,
        head=0 if arch.tie_word_embeddings else table,
        attention=arch.num_layers * attention,
        mlp=mlp,
        experts=experts,
        other=arch.num_layers * attention_other + router + _norms(arch) + _biases(arch),
    )


def _mlp(arch: Architecture, width: int) -> int:
    return (3 if arch.traits.gated_mlp else 2) * arch.hidden_size * width


def _attention(arch: Architecture) -> tuple[int, int]:
    """(linear, other) weights of one layer's attention."""
    hidden, heads = arch.hidden_size, arch.num_heads
    if arch.kv_lora_rank:
        return _latent_attention(arch)
    query, key_value = heads * arch.head_size, arch.num_kv_heads * arch.head_size
    linear = hidden * (query + 2 * key_value) + query * hidden
    other = query + 2 * key_value if arch.traits.qkv_bias else 0
    other += hidden if arch.traits.output_bias else 0
    other += 2 * arch.head_size if arch.traits.qk_norm else 0
    return linear, other


def _latent_attention(arch: Architecture) -> tuple[int, int]:
    """DeepSeek-V2 (arXiv:2405.04434, section 2.1): low-rank projections of queries and of keys and
    values together, and one rotary key for all heads."""
    hidden, heads, rank = arch.hidden_size, arch.num_heads, arch.kv_lora_rank
    if arch.q_lora_rank:
        query = arch.q_lora_rank * (hidden + heads * arch.head_size)
    else:
        query = hidden * heads * arch.head_size
    down = hidden * (rank + arch.qk_rope_head_size)
    up = rank * heads * (arch.qk_nope_head_size + arch.v_head_size)
    output = heads * arch.v_head_size * hidden
    return query + down + up + output, rank + arch.q_lora_rank


def _norms(arch: Architecture) -> int:
    vectors = 2 if arch.traits.norm_bias else 1
    return vectors * arch.hidden_size * (arch.traits.norms_per_layer * arch.num_layers + 1)


def _biases(arch: Architecture) -> int:
    """Of MLPs and of the output matrix."""
    found = arch.vocab_size if arch.traits.head_bias else 0
    if arch.traits.mlp_bias:
        widths = 2 if arch.traits.gated_mlp else 1
        dense = arch.num_layers - arch.num_moe_layers
        found += dense * (widths * arch.intermediate_size + arch.hidden_size)
        each = arch.num_experts * (widths * arch.moe_intermediate_size + arch.hidden_size)
        found += arch.num_moe_layers * (each + arch.num_experts)  # and the router's
    return found
