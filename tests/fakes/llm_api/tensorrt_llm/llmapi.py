"""tensorrt_llm/llmapi: LLM and its arguments."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llguidance
from tensorrt_llm._executor import Executor
from tensorrt_llm._noise_model import NoiseModel, Sampler, Script
from tensorrt_llm.executor import (
    CompletionOutput,
    IterationResult,
    LoRARequest,
    RequestError,
    RequestOutput,
)
from tensorrt_llm.sampling_params import GuidedDecodingParams, SamplingParams

__all__ = [
    "LLM",
    "CompletionOutput",
    "DraftTargetDecodingConfig",
    "EagleDecodingConfig",
    "GuidedDecodingParams",
    "KvCacheConfig",
    "MTPDecodingConfig",
    "NGramDecodingConfig",
    "RequestError",
    "RequestOutput",
    "SamplingParams",
]

# tests/unittest/api_stability/references*/llm.yaml: what LLM takes besides its own parameters
_ARGUMENTS = frozenset(
    (
        "pipeline_parallel_size",
        "context_parallel_size",
        "gpus_per_node",
        "moe_cluster_parallel_size",
        "moe_tensor_parallel_size",
        "moe_expert_parallel_size",
        "enable_attention_dp",
        "cp_config",
        "load_format",
        "enable_lora",
        "lora_config",
        "kv_cache_config",
        "enable_chunked_prefill",
        "guided_decoding_backend",
        "batched_logits_processor",
        "iter_stats_max_iterations",
        "request_stats_max_iterations",
        "peft_cache_config",
        "scheduler_config",
        "cache_transceiver_config",
        "speculative_config",
        "max_batch_size",
        "max_input_len",
        "max_seq_len",
        "max_beam_width",
        "max_num_tokens",
        "gather_generation_logits",
        "num_postprocess_workers",
        "postprocess_tokenizer_dir",
        "stream_interval",
        "reasoning_parser",
        "garbage_collection_gen0_threshold",
        "backend",
        "cuda_graph_config",
        "checkpoint_loader",
        "checkpoint_format",
        "disable_overlap_scheduler",
        "moe_config",
        "attn_backend",
        "sampler_type",
        "enable_iter_perf_stats",
        "enable_iter_req_stats",
        "print_iter_log",
        "torch_compile_config",
        "enable_autotuner",
        "enable_layerwise_nvtx_marker",
        "enable_min_latency",
        "force_dynamic_quantization",
        "allreduce_strategy",
        "return_perf_metrics",
        "perf_metrics_max_requests",
        "orchestrator_type",
        "attention_dp_config",
        "disable_flashinfer_sampling",
        "max_stats_len",
        "batch_wait_timeout_ms",
        "batch_wait_timeout_iters",
        "batch_wait_max_tokens_ratio",
        "kv_connector_config",
        "env_overrides",
        "model_kwargs",
        "custom_tokenizer",
    )
)


@dataclass(kw_only=True)
class KvCacheConfig:
    enable_block_reuse: bool = True
    max_tokens: int | None = None
    max_attention_window: list[int] | None = None
    sink_token_length: int | None = None
    free_gpu_memory_fraction: float | None = 0.9
    host_cache_size: int | None = None
    onboard_blocks: bool = True
    cross_kv_cache_fraction: float | None = None
    secondary_offload_min_priority: int | None = None
    event_buffer_max_size: int = 0
    attention_dp_events_gather_period_ms: int = 5
    enable_partial_reuse: bool = True
    copy_on_partial_reuse: bool = True
    use_uvm: bool = False
    max_gpu_total_bytes: int = 0
    dtype: str = "auto"
    mamba_ssm_cache_dtype: str = "auto"
    tokens_per_block: int = 32


@dataclass(kw_only=True)
class _DecodingConfig:
    max_draft_len: int | None = None
    speculative_model_dir: str | None = None


@dataclass(kw_only=True)
class EagleDecodingConfig(_DecodingConfig):
    eagle_choices: list[list[int]] | None = None
    eagle3_one_model: bool = True


@dataclass(kw_only=True)
class DraftTargetDecodingConfig(_DecodingConfig):
    pass


@dataclass(kw_only=True)
class NGramDecodingConfig(_DecodingConfig):
    max_matching_ngram_size: int = 2
    is_keep_all: bool = True
    is_use_oldest: bool = True
    is_public_pool: bool = True


@dataclass(kw_only=True)
class MTPDecodingConfig(_DecodingConfig):
    num_nextn_predict_layers: int = 1
    use_relaxed_acceptance_for_thinking: bool = False
    relaxed_topk: int = 1
    relaxed_delta: float = 0.0


class LLM:
    def __init__(
        self,
        model: str | Path,
        tokenizer: str | Path | None = None,
        tokenizer_mode: str = "auto",
        skip_tokenizer_init: bool = False,
        trust_remote_code: bool = False,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        revision: str | None = None,
        tokenizer_revision: str | None = None,
        **kwargs: Any,
    ) -> None:
        for key in kwargs:
            if key not in _ARGUMENTS:
                raise ValueError(f"LLM got invalid argument: {key}")
        checkpoint = Path(model)
        config = json.loads((checkpoint / "config.json").read_text())
        script = Script.read(checkpoint)
        if script.load_error:
            raise RuntimeError(script.load_error)
        self._arguments = kwargs
        vocab_size = config["vocab_size"]
        backend = kwargs.get("guided_decoding_backend")
        if backend not in (None, "xgrammar", "llguidance"):
            raise ValueError(f"Unrecognized guided decoding backend {backend}")
        matcher_tokenizer = None
        if backend is not None:
            file = Path(tokenizer or checkpoint) / "tokenizer.json"
            matcher_tokenizer = llguidance.LLTokenizer(
                str(file), n_vocab=vocab_size, eos_token=config["eos_token_id"]
            )
        self._executor: Executor | None = Executor(
            NoiseModel(vocab_size),
            Sampler(kwargs.get("sampler_type", "auto")),
            matcher_tokenizer,
            script,
            kwargs.get("max_batch_size", 2048),
            kwargs.get("enable_iter_perf_stats", False),
        )

    def generate_async(
        self,
        inputs: list[int],
        sampling_params: SamplingParams | None = None,
        lora_request: LoRARequest | None = None,
        prompt_adapter_request: None = None,
        streaming: bool = False,
        kv_cache_retention_config: None = None,
        disaggregated_params: None = None,
        _postproc_params: None = None,
        scheduling_params: None = None,
        cache_salt: str | None = None,
    ) -> RequestOutput:
        if self._executor is None or self._executor.death is not None:
            raise RuntimeError("LLM is shutting down")
        params = sampling_params or SamplingParams()
        if not streaming:
            raise NotImplementedError("the stand-in only streams")
        if params.end_id is None:
            raise ValueError("tokenizer is required to reset end_id if it is None")
        max_num_tokens = self._arguments.get("max_num_tokens", 8192)
        if not self._arguments.get("enable_chunked_prefill") and len(inputs) > max_num_tokens:
            raise ValueError(
                f"The sum of prompt length ({float(len(inputs))}), query length (0) should not "
                f"exceed max_num_tokens ({max_num_tokens})"
            )
        if params.guided_decoding and not self._arguments.get("guided_decoding_backend"):
            raise ValueError("guided decoding is not enabled")
        lora_id = 0
        if lora_request is not None:
            if not self._arguments.get("lora_config"):
                raise ValueError("LoRA is not enabled")
            lora_id = lora_request.lora_int_id
        return self._executor.generate_async(list(inputs), params, lora_id, cache_salt)

    def get_stats_async(self, timeout: float | None = 2) -> IterationResult:
        if self._executor is None:
            raise RuntimeError("LLM is shutting down")
        return IterationResult(self._executor.stats_queue(), timeout or 2)

    def shutdown(self) -> None:
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None
