"""Memory figures held to well-known ones, and what fits which GPUs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from build_engines.checkpoints.architecture import Architecture
from build_engines.families.table import FAMILIES
from build_engines.gpu.fit import Fit, Load, effort, fits, needs
from build_engines.gpu.gpus import GPUS
from build_engines.gpu.memory import (
    Parallel,
    activation_bytes,
    kv_bytes,
    kv_bytes_per_token,
    weight_bytes,
    weight_bytes_per_gpu,
)
from build_engines.gpu.sections import fit_section, memory_section
from build_engines.spec import load_spec

KIB, GB = 1024, 10**9


def architecture(model: str) -> Architecture:
    found = load_spec(model).architecture
    assert found is not None
    return found


LLAMA_2 = architecture("llama-2-7b-chat")
LLAMA_3_70B = replace(
    LLAMA_2,
    num_layers=80,
    hidden_size=8192,
    num_heads=64,
    num_kv_heads=8,
    intermediate_size=28672,
    vocab_size=128256,
    max_position_embeddings=131072,
)
DEEPSEEK = Architecture.from_config(
    {"architectures": ["DeepseekV3ForCausalLM"], "num_hidden_layers": 61, "hidden_size": 7168,
     "num_attention_heads": 128, "num_key_value_heads": 128, "intermediate_size": 18432,
     "n_routed_experts": 256, "moe_intermediate_size": 2048, "n_shared_experts": 1,
     "num_experts_per_tok": 8, "first_k_dense_replace": 3, "kv_lora_rank": 512,
     "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
     "vocab_size": 129280, "max_position_embeddings": 163840}
)  # fmt: skip
GEMMA_3 = Architecture.from_config(
    {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "num_hidden_layers": 26,
     "hidden_size": 1152, "num_attention_heads": 4, "num_key_value_heads": 1,
     "intermediate_size": 6912, "vocab_size": 262144, "max_position_embeddings": 32768,
     "sliding_window": 512}
)  # fmt: skip


def load(**changes: Any) -> Load:
    chosen = Load(
        quantization="fp16",
        kv_cache="auto",
        max_seq_len=4096,
        max_batch_size=64,
        max_num_tokens=8192,
    )
    return replace(chosen, **changes)


@pytest.mark.parametrize(
    ("arch", "quantization", "gigabytes"),
    [
        (LLAMA_2, "fp16", 13.48),  # as the checkpoint on the hub
        (LLAMA_2, "int8_wo", 7.0),
        (LLAMA_2, "int4_awq", 3.87),  # AutoAWQ's 3.89 GB
        (LLAMA_3_70B, "bf16", 141.1),
        (LLAMA_3_70B, "fp8", 72.6),  # 72.7 GB of NVIDIA's FP8 checkpoint
        (DEEPSEEK, "fp8", 673.0),
    ],
)
def test_weights_are_as_large_as_published_checkpoints(
    arch: Architecture, quantization: str, gigabytes: float
) -> None:
    found = weight_bytes(arch, quantization, is_engine=False) / GB
    assert found == pytest.approx(gigabytes, rel=0.02)


def test_an_engine_holds_tied_embeddings_twice() -> None:
    gemma = architecture("gemma-2b")
    table = gemma.vocab_size * gemma.hidden_size * 2
    assert weight_bytes(gemma, "bf16") - weight_bytes(gemma, "bf16", is_engine=False) == table


@pytest.mark.parametrize(
    ("arch", "kv_cache", "kibibytes"),
    [
        (LLAMA_2, "auto", 512),  # 0.5 MB a token: vLLM's paper has 800 KB for 13B
        (LLAMA_2, "int8", 256),
        (LLAMA_3_70B, "auto", 320),  # grouped queries
        (DEEPSEEK, "auto", 68.6),  # DeepSeek-V3's report: 70 KB
        (architecture("chatglm3-6b"), "auto", 28),
        (architecture("gemma-2b"), "auto", 18),
    ],
)
def test_a_token_of_kv_cache(arch: Architecture, kv_cache: str, kibibytes: float) -> None:
    assert kv_bytes_per_token(arch, kv_cache) / KIB == pytest.approx(kibibytes, rel=0.01)


def test_windows_keep_no_more_than_they_see() -> None:
    short, long = kv_bytes(GEMMA_3, "auto", 512), kv_bytes(GEMMA_3, "auto", 32768)
    of_layer = 2 * 256 * 2  # one head of keys and of values
    assert short == 26 * 512 * of_layer
    assert long == (4 * 32768 + 22 * 512) * of_layer


def test_gpus_share_heads_until_there_are_none_to_share() -> None:
    per_gpu = [
        kv_bytes_per_token(LLAMA_3_70B, "auto", Parallel(tp_size=size)) // KIB
        for size in (1, 2, 4, 8, 16)
    ]
    assert per_gpu == [320, 160, 80, 40, 40]
    latent = kv_bytes_per_token(DEEPSEEK, "auto", Parallel(tp_size=8))
    assert latent == kv_bytes_per_token(DEEPSEEK, "auto")


def test_gpus_share_weights() -> None:
    whole = weight_bytes(LLAMA_3_70B, "fp16")
    table = LLAMA_3_70B.vocab_size * LLAMA_3_70B.hidden_size * 2
    halves = weight_bytes_per_gpu(LLAMA_3_70B, "fp16", Parallel(tp_size=2))
    assert halves == pytest.approx((whole - table) / 2 + table, abs=2)
    stages = weight_bytes_per_gpu(LLAMA_3_70B, "fp16", Parallel(pp_size=4))
    assert stages == pytest.approx((whole - 2 * table) / 4 + table, abs=2)
    uneven = weight_bytes_per_gpu(replace(LLAMA_2, num_layers=33), "fp16", Parallel(pp_size=2))
    even = weight_bytes_per_gpu(replace(LLAMA_2, num_layers=34), "fp16", Parallel(pp_size=2))
    assert uneven == pytest.approx(even, rel=1e-6)  # of a GPU with 17 layers


def test_activations_grow_with_the_step_and_shrink_with_gpus() -> None:
    one = activation_bytes(LLAMA_2, 8192, 64, Parallel())
    assert activation_bytes(LLAMA_2, 16384, 64, Parallel()) > 1.9 * one
    assert activation_bytes(LLAMA_2, 8192, 64, Parallel(tp_size=4)) < one
    assert activation_bytes(DEEPSEEK, 8192, 64, Parallel()) > 3 * one


def by_gpu(found: list[Fit]) -> dict[tuple[str, int], Fit]:
    return {(fit.gpu.name, fit.count): fit for fit in found}


def test_what_fits_is_what_people_serve() -> None:
    llama = by_gpu(fits(FAMILIES["llama"], LLAMA_2, load()))
    assert llama["L4", 1].longest_context == 4096
    assert 10_000 < llama["L4", 1].kv_tokens < 20_000
    assert llama["A100-80GB", 1].largest_batch > 25
    large = by_gpu(fits(FAMILIES["llama"], LLAMA_3_70B, load(quantization="bf16")))
    assert "short" in large["A100-80GB", 1].reason  # 141 GB
    assert large["A100-80GB", 4].longest_context == 4096
    assert large["L4", 4].longest_context == 0
    assert large["L4", 8].longest_context == 4096
    assert large["B200", 1].longest_context == 4096


def test_a_larger_gpu_never_holds_less() -> None:
    found = by_gpu(fits(FAMILIES["llama"], LLAMA_3_70B, load(max_seq_len=131072)))
    sizes = sorted(GPUS.values(), key=lambda gpu: gpu.memory_bytes)
    for count in (1, 2, 4, 8):
        tokens = [found[gpu.name, count].kv_tokens for gpu in sizes]
        assert tokens == sorted(tokens)


def test_what_fits_really_fits() -> None:
    for fit in fits(FAMILIES["llama"], LLAMA_3_70B, load(max_seq_len=131072)):
        if fit.longest_context == 0:
            continue
        parallel = Parallel(tp_size=fit.count)
        fixed = needs(LLAMA_3_70B, load(max_seq_len=131072), parallel).fixed
        held = kv_bytes(LLAMA_3_70B, "auto", fit.longest_context, parallel)
        assert fixed + held <= fit.gpu.memory_bytes
        assert fit.largest_batch * 131072 <= fit.kv_tokens


def test_a_kind_of_gpu_that_cannot_compute_it_is_one_row() -> None:
    section = fit_section(FAMILIES["llama"], LLAMA_2, load(quantization="fp8"))
    rows = {(row[0], row[1]): row[3] for row in section.rows[1:]}
    assert "cannot compute in FP8" in rows["A100-80GB", "any"]
    assert ("A10", "1") not in rows
    assert ("L4", "1") in rows


def test_numbers_of_gpus_that_cannot_share_it_are_one_row_each() -> None:
    qwen = architecture("qwen-14b-chat")
    section = fit_section(FAMILIES["qwen"], qwen, load(quantization="int4_awq", max_seq_len=2048))
    rows = {(row[0], row[1]): row[3] for row in section.rows[1:]}
    assert "choose tp_size 1" in rows["any", "2"]
    assert ("H100", "2") not in rows


def test_the_memory_table_says_the_figures() -> None:
    table = memory_section(LLAMA_2, load(), Parallel())
    rows = {row[0]: row[1] for row in table.rows}
    assert rows["parameters"] == "6 738 415 616"
    assert rows["weights on a GPU"] == "13.48 GB"
    assert rows["KV cache of a token"] == "512.0 KiB"


def test_large_models_take_longer() -> None:
    small = effort(GEMMA_3, "bf16", is_calibrated=False)
    large = effort(DEEPSEEK, "fp8", is_calibrated=True)
    assert (small.convert, small.build) == ("about a minute", "about a minute")
    assert (large.convert, large.build) == ("hours", "hours")
