"""The tensor contract: every tensor of every model in this repository, as a table.

Knows names, datatypes and shapes; knows nothing about Triton's Python API, engines or values.
Names, datatypes, order and meaning are those of the C++ `tensorrt_llm` model of TensorRT-LLM 1.2.1;
the `CPU_EXTRA_*` tables are ours.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import IntEnum

MAX_TOP_LOG_PROBS = 20
GUIDE_TYPE_TENSOR = "guided_decoding_guide_type"
GUIDE_TENSOR = "guided_decoding_guide"


class FinishReason(IntEnum):
    """Values of the `finish_reason` output; sent with the last response of a sequence."""

    NONE = 0
    END_ID = 1
    LENGTH = 2
    STOP_WORD = 3
    CANCELLED = 4


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor. On the wire it has one more, leading axis: the request batch, always 1.

    `dims` has -1 for a free axis; `scalar` tensors are declared `[1]` with `reshape []`: `[1, 1]`
    on the wire and `[1]` in the model; `ragged` tensors allow_ragged_batch.
    """

    name: str
    datatype: str  # Triton's protocol name: INT32, UINT64, FP32, BOOL, BYTES, ...
    dims: tuple[int, ...] = (1,)  # without the batch axis
    scalar: bool = False
    ragged: bool = False
    required: bool = False
    note: str = ""


INPUTS: tuple[TensorSpec, ...] = (
    TensorSpec(
        "input_ids",
        "INT32",
        dims=(-1,),
        ragged=True,
        note="prompt token ids, [1, length] on the wire",
    ),
    TensorSpec(
        "encoder_input_features",
        "FP16",
        dims=(-1, -1),
        ragged=True,
        note="encoder-decoder models",
    ),
    TensorSpec("encoder_output_lengths", "INT32", scalar=True, note="encoder-decoder models"),
    TensorSpec(
        "input_lengths",
        "INT32",
        scalar=True,
        required=True,
        note="prompt length; the batch is 1, so `input_ids` is taken whole and this is not used",
    ),
    TensorSpec(
        "request_output_len",
        "INT32",
        scalar=True,
        required=True,
        note="max_new_tokens; clamped to what the context has room for",
    ),
    TensorSpec(
        "num_return_sequences",
        "INT32",
        scalar=True,
        note="n; each sequence streams by itself, tagged by `sequence_index`",
    ),
    TensorSpec(
        "draft_input_ids",
        "INT32",
        dims=(-1,),
        ragged=True,
        note="speculative decoding with a draft model",
    ),
    TensorSpec(
        "decoder_input_ids",
        "INT32",
        dims=(-1,),
        ragged=True,
        note="encoder-decoder models",
    ),
    TensorSpec("decoder_input_lengths", "INT32", scalar=True, note="encoder-decoder models"),
    TensorSpec(
        "draft_logits",
        "FP32",
        dims=(-1, -1),
        ragged=True,
        note="speculative decoding with a draft model",
    ),
    TensorSpec(
        "draft_acceptance_threshold",
        "FP32",
        scalar=True,
        note="speculative decoding with a draft model",
    ),
    TensorSpec(
        "end_id",
        "INT32",
        scalar=True,
        note="EOS; ends the sequence, is neither emitted nor counted; omitted or -1: never",
    ),
    TensorSpec("pad_id", "INT32", scalar=True, note="no effect on the output"),
    TensorSpec(
        "stop_words_list",
        "INT32",
        dims=(2, -1),
        ragged=True,
        note="row 0 token ids, row 1 end offsets padded with -1; a matched word is emitted",
    ),
    TensorSpec(
        "bad_words_list",
        "INT32",
        dims=(2, -1),
        ragged=True,
        note="same encoding; these token sequences are never generated",
    ),
    TensorSpec(
        "embedding_bias",
        "FP32",
        dims=(-1,),
        ragged=True,
        note="logit bias of the whole vocabulary",
    ),
    TensorSpec("beam_width", "INT32", scalar=True, note="beam search"),
    TensorSpec("temperature", "FP32", scalar=True, note="default 1; 0 is greedy"),
    TensorSpec(
        "runtime_top_k",
        "INT32",
        scalar=True,
        note="0 or omitted: all tokens; greedy when `runtime_top_p` is not given either",
    ),
    TensorSpec("runtime_top_p", "FP32", scalar=True, note="0 or omitted: ignored"),
    TensorSpec("runtime_top_p_min", "FP32", scalar=True, note="not read right by the C++ backend"),
    TensorSpec("runtime_top_p_decay", "FP32", scalar=True, note="decaying top-p"),
    TensorSpec("runtime_top_p_reset_ids", "INT32", scalar=True, note="decaying top-p"),
    TensorSpec("len_penalty", "FP32", scalar=True, note="beam search"),
    TensorSpec("early_stopping", "BOOL", scalar=True, note="beam search"),
    TensorSpec("repetition_penalty", "FP32", scalar=True, note="over prompt and output; default 1"),
    TensorSpec(
        "min_tokens",
        "INT32",
        scalar=True,
        note="`end_id` is not sampled before so many tokens",
    ),
    TensorSpec("beam_search_diversity_rate", "FP32", scalar=True, note="beam search"),
    TensorSpec("presence_penalty", "FP32", scalar=True, note="default 0"),
    TensorSpec("frequency_penalty", "FP32", scalar=True, note="default 0"),
    TensorSpec("seed", "UINT64", scalar=True, note="default 0: equal requests get equal samples"),
    TensorSpec("return_log_probs", "BOOL", scalar=True, note="of the chosen tokens"),
    TensorSpec("return_context_logits", "BOOL", scalar=True, note="logits of the prompt"),
    TensorSpec("return_generation_logits", "BOOL", scalar=True, note="logits of every step"),
    TensorSpec(
        "return_perf_metrics",
        "BOOL",
        scalar=True,
        note="asks for the ten timing and KV-cache outputs",
    ),
    TensorSpec("return_num_input_tokens", "BOOL", scalar=True, note="asks for `num_input_tokens`"),
    TensorSpec(
        "return_num_output_tokens",
        "BOOL",
        scalar=True,
        note="asks for `num_output_tokens`",
    ),
    TensorSpec(
        "exclude_input_in_output",
        "BOOL",
        scalar=True,
        note="overrides the model parameter; only for streaming=false",
    ),
    TensorSpec(
        "stop",
        "BOOL",
        scalar=True,
        note="cancels the request of the same id; answered by an empty final response",
    ),
    TensorSpec(
        "streaming",
        "BOOL",
        scalar=True,
        note="delta per step; false or omitted: one response with everything",
    ),
    TensorSpec(
        "prompt_embedding_table",
        "FP16",
        dims=(-1, -1),
        ragged=True,
        note="p-tuning, multimodal",
    ),
    TensorSpec(
        "prompt_table_extra_ids",
        "UINT64",
        dims=(-1,),
        ragged=True,
        note="p-tuning, multimodal",
    ),
    TensorSpec("prompt_vocab_size", "INT32", scalar=True, note="p-tuning, multimodal"),
    TensorSpec(
        "cross_attention_mask",
        "BOOL",
        dims=(-1, -1),
        ragged=True,
        note="encoder-decoder models",
    ),
    TensorSpec("mrope_rotary_cos_sin", "FP32", dims=(-1,), note="Qwen-VL positions"),
    TensorSpec("mrope_position_deltas", "INT64", note="Qwen-VL positions"),
    TensorSpec("lora_task_id", "UINT64", scalar=True, note="LoRA adapter id"),
    TensorSpec(
        "lora_weights",
        "FP16",
        dims=(-1, -1),
        ragged=True,
        note="LoRA adapter, first request of its id",
    ),
    TensorSpec(
        "lora_config",
        "INT32",
        dims=(-1, 3),
        ragged=True,
        note="LoRA adapter: [module id, layer, rank]",
    ),
    TensorSpec(
        "context_phase_params",
        "UINT8",
        dims=(-1,),
        ragged=True,
        note="disaggregated serving, opaque",
    ),
    TensorSpec("skip_cross_attn_blocks", "BOOL", ragged=True, note="encoder-decoder models"),
    TensorSpec(
        "retention_token_range_starts",
        "INT32",
        dims=(-1,),
        ragged=True,
        note="KV retention: needs ends and priorities of the same length",
    ),
    TensorSpec(
        "retention_token_range_ends",
        "INT32",
        dims=(-1,),
        ragged=True,
        note="KV retention; -1: open end",
    ),
    TensorSpec(
        "retention_token_range_priorities",
        "INT32",
        dims=(-1,),
        ragged=True,
        note="KV retention",
    ),
    TensorSpec(
        "retention_token_range_durations_ms",
        "INT32",
        dims=(-1,),
        ragged=True,
        note="KV retention; -1: none",
    ),
    TensorSpec(
        "retention_decode_priority",
        "INT32",
        ragged=True,
        note="KV retention of generated tokens",
    ),
    TensorSpec(
        "retention_decode_duration_ms",
        "INT32",
        ragged=True,
        note="KV retention of generated tokens",
    ),
    TensorSpec(
        "guided_decoding_guide_type",
        "BYTES",
        ragged=True,
        note="json, json_schema, regex or ebnf_grammar",
    ),
    TensorSpec(
        "guided_decoding_guide",
        "BYTES",
        ragged=True,
        note="text of the schema, regex or grammar",
    ),
    TensorSpec("lookahead_window_size", "INT32", ragged=True, note="lookahead decoding"),
    TensorSpec("lookahead_ngram_size", "INT32", ragged=True, note="lookahead decoding"),
    TensorSpec("lookahead_verification_set_size", "INT32", ragged=True, note="lookahead decoding"),
)

OUTPUTS: tuple[TensorSpec, ...] = (
    TensorSpec(
        "output_ids",
        "INT32",
        dims=(-1, -1),
        note="delta token ids [1, 1, n] while streaming; always request it",
    ),
    TensorSpec(
        "sequence_length",
        "INT32",
        dims=(-1,),
        note="[1, 1]: number of tokens in this response; always request it",
    ),
    TensorSpec("cum_log_probs", "FP32", dims=(-1,), note="[1, 1]: running sum"),
    TensorSpec(
        "output_log_probs",
        "FP32",
        dims=(-1, -1),
        note="[1, 1, n]: growing list from the first generated token",
    ),
    TensorSpec("context_logits", "FP32", dims=(-1, -1), note="with `return_context_logits`"),
    TensorSpec(
        "generation_logits",
        "FP32",
        dims=(-1, -1, -1),
        note="with `return_generation_logits`",
    ),
    TensorSpec("batch_index", "INT32", note="only for request batches over 1"),
    TensorSpec("sequence_index", "INT32", note="only with `num_return_sequences` over 1"),
    TensorSpec("context_phase_params", "UINT8", dims=(-1,), note="disaggregated serving"),
    TensorSpec(
        "kv_cache_alloc_new_blocks",
        "INT32",
        note="with `return_perf_metrics`: blocks taken that were not in the prefix cache",
    ),
    TensorSpec(
        "kv_cache_reused_blocks",
        "INT32",
        note="with `return_perf_metrics`: blocks taken from the prefix cache",
    ),
    TensorSpec("kv_cache_alloc_total_blocks", "INT32", note="with `return_perf_metrics`"),
    TensorSpec("arrival_time_ns", "INT64", note="with `return_perf_metrics`; monotonic clock"),
    TensorSpec(
        "first_scheduled_time_ns",
        "INT64",
        note="with `return_perf_metrics`; monotonic clock",
    ),
    TensorSpec("first_token_time_ns", "INT64", note="with `return_perf_metrics`; monotonic clock"),
    TensorSpec("last_token_time_ns", "INT64", note="with `return_perf_metrics`; monotonic clock"),
    TensorSpec("acceptance_rate", "FP32", note="with `return_perf_metrics`; speculative decoding"),
    TensorSpec(
        "total_accepted_draft_tokens",
        "INT32",
        note="with `return_perf_metrics`; speculative decoding",
    ),
    TensorSpec(
        "total_draft_tokens",
        "INT32",
        note="with `return_perf_metrics`; speculative decoding",
    ),
    TensorSpec("num_input_tokens", "INT32", note="with `return_num_input_tokens`"),
    TensorSpec(
        "num_output_tokens",
        "INT32",
        note="with `return_num_output_tokens`: running count of this sequence",
    ),
)

CPU_EXTRA_INPUTS: tuple[TensorSpec, ...] = (
    TensorSpec(
        "min_p",
        "FP32",
        scalar=True,
        note="tokens below min_p times the likeliest are dropped",
    ),
    TensorSpec(
        "num_top_log_probs",
        "INT32",
        scalar=True,
        note="0..20 likeliest tokens of each step",
    ),
    TensorSpec(
        "return_prompt_log_probs",
        "BOOL",
        scalar=True,
        note="of the prompt's own tokens; `request_output_len` may then be 0",
    ),
    TensorSpec(
        "cache_salt",
        "UINT64",
        scalar=True,
        note="prefix-cache blocks are shared by requests of the same salt (or of none) only",
    ),
    TensorSpec(
        "priority",
        "INT32",
        scalar=True,
        note="lower comes first from the queue and gives way last; default 0",
    ),
)

CPU_EXTRA_OUTPUTS: tuple[TensorSpec, ...] = (
    TensorSpec(
        "finish_reason",
        "INT32",
        note="1 end_id, 2 length, 3 stop word, 4 cancelled; with the last response of a sequence",
    ),
    TensorSpec(
        "top_log_prob_ids",
        "INT32",
        dims=(-1, -1),
        note="[1, n, k] for the n tokens of this response only",
    ),
    TensorSpec(
        "top_log_probs",
        "FP32",
        dims=(-1, -1),
        note="[1, n, k] for the n tokens of this response only",
    ),
    TensorSpec(
        "num_cached_tokens",
        "INT32",
        note="prompt tokens taken from the prefix cache; with the first response of a sequence",
    ),
    TensorSpec(
        "prompt_log_probs",
        "FP32",
        dims=(-1,),
        note="[1, length], the first 0; with the first response of the first sequence",
    ),
    TensorSpec(
        "prompt_top_log_prob_ids",
        "INT32",
        dims=(-1, -1),
        note="[1, length - 1, k] for the prompt tokens from the second on; beside the former",
    ),
    TensorSpec(
        "prompt_top_log_probs",
        "FP32",
        dims=(-1, -1),
        note="[1, length - 1, k] for the prompt tokens from the second on; beside the former",
    ),
)

# What the `llm_api` kind takes of the upstream tensors: those that TensorRT-LLM's LLM API honours.
_LLM_API_INPUT_NAMES = (
    "input_ids",
    "input_lengths",
    "request_output_len",
    "num_return_sequences",
    "end_id",
    "pad_id",
    "stop_words_list",
    "bad_words_list",
    "embedding_bias",
    "temperature",
    "runtime_top_k",
    "runtime_top_p",
    "repetition_penalty",
    "min_tokens",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "return_log_probs",
    "return_perf_metrics",
    "return_num_input_tokens",
    "return_num_output_tokens",
    "exclude_input_in_output",
    "stop",
    "streaming",
    "lora_task_id",
    GUIDE_TYPE_TENSOR,
    GUIDE_TENSOR,
    "min_p",
    "num_top_log_probs",
    "cache_salt",
)
_LLM_API_MISSING_OUTPUTS = frozenset(
    {
        "context_logits",
        "generation_logits",
        "batch_index",
        "context_phase_params",
        "prompt_log_probs",
        "prompt_top_log_prob_ids",
        "prompt_top_log_probs",
    }
)
LLM_API_INPUTS = tuple(
    spec for spec in INPUTS + CPU_EXTRA_INPUTS if spec.name in _LLM_API_INPUT_NAMES
)
LLM_API_OUTPUTS = tuple(
    spec for spec in OUTPUTS + CPU_EXTRA_OUTPUTS if spec.name not in _LLM_API_MISSING_OUTPUTS
)

# The `embedding` kind's own contract: rows of token ids in, one vector for each row out. The first
# axis on the wire is the row's.
EMBEDDING_INPUTS: tuple[TensorSpec, ...] = (
    TensorSpec(
        "input_ids",
        "INT32",
        dims=(-1,),
        ragged=True,
        required=True,
        note="token ids, [rows, longest row] on the wire; what follows a row's end is ignored",
    ),
    TensorSpec(
        "input_lengths",
        "INT32",
        note="number of tokens of each row; omitted: all rows are as long as `input_ids` is wide",
    ),
)

EMBEDDING_OUTPUTS: tuple[TensorSpec, ...] = (
    TensorSpec(
        "embeddings",
        "FP32",
        dims=(-1,),
        note="[rows, embedding_size]: vectors of length 1",
    ),
)

KINDS: dict[str, tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]] = {
    "tensorrt_llm": (INPUTS, OUTPUTS),
    "llm_api": (LLM_API_INPUTS, LLM_API_OUTPUTS),
    "cpu": (INPUTS + CPU_EXTRA_INPUTS, OUTPUTS + CPU_EXTRA_OUTPUTS),
    "llama_cpp": (INPUTS + CPU_EXTRA_INPUTS, OUTPUTS + CPU_EXTRA_OUTPUTS),
    "scripted": (INPUTS + CPU_EXTRA_INPUTS, OUTPUTS + CPU_EXTRA_OUTPUTS),
    "embedding": (EMBEDDING_INPUTS, EMBEDDING_OUTPUTS),
}


def markdown_tables() -> str:
    """The tables of README.md; `python -m triton_models.contract` prints them."""
    return "\n".join(
        [
            "### Inputs\n",
            *_table(INPUTS),
            "\n### Outputs\n",
            *_table(OUTPUTS),
            "\n### Additional inputs of `cpu`\n",
            *_table(CPU_EXTRA_INPUTS),
            "\n### Additional outputs of `cpu`\n",
            *_table(CPU_EXTRA_OUTPUTS),
            "\n### Of all these, `llm_api` has\n",
            f"Inputs: {_names(LLM_API_INPUTS)}.\n",
            f"Outputs: {_names(LLM_API_OUTPUTS)}.",
        ]
    )


def _names(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"`{spec.name}`" for spec in specs)


def _table(specs: tuple[TensorSpec, ...]) -> list[str]:
    rows = ["| # | name | datatype | dims | flags | note |", "|---|---|---|---|---|---|"]
    for number, spec in enumerate(specs, 1):
        names = ("required", "scalar", "ragged")
        flags = ", ".join(name for name in names if getattr(spec, name))
        dims = list(spec.dims)
        rows.append(
            f"| {number} | `{spec.name}` | {spec.datatype} | `{dims}` | {flags} | {spec.note} |"
        )
    return rows


if __name__ == "__main__":
    sys.stdout.write(markdown_tables() + "\n")
