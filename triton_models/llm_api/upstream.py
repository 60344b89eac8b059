"""All that is used of TensorRT-LLM. The only module here that imports it; torch comes with it.

Written against TensorRT-LLM 1.2 as documented: tests/unittest/api_stability/references*/*.yaml,
tensorrt_llm/sampling_params.py, llmapi/llm.py and executor/request.py of
https://github.com/NVIDIA/TensorRT-LLM.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy import float32
from numpy.typing import NDArray

from triton_models.llm_api.options import CHECKPOINT_DIR, TOKENIZER_DIR

try:
    import torch
    from tensorrt_llm import LLM, llmapi
    from tensorrt_llm.executor import LoRARequest
    from tensorrt_llm.llmapi import GuidedDecodingParams, RequestError, SamplingParams
    from tensorrt_llm.lora_helper import LoraConfig
except ModuleNotFoundError as exc:
    raise ModuleNotFoundError(
        f"models of kind llm_api need TensorRT-LLM, which is not here ({exc}): run Triton in "
        "NVIDIA's image tritonserver:26.07-trtllm-python-py3"
    ) from exc

__all__ = [
    "RequestError",
    "bias_tensor",
    "guided_decoding",
    "lora_request",
    "make_llm",
    "sampling_params",
]

# `decoding_type` of llm_options.json -> the class in tensorrt_llm.llmapi
_SPECULATIVE = {
    "DraftTarget": "DraftTargetDecodingConfig",
    "Eagle": "EagleDecodingConfig",
    "MTP": "MTPDecodingConfig",
    "NGram": "NGramDecodingConfig",
}


def make_llm(artefact_dir: Path, options: Mapping[str, Any]) -> Any:
    """Starts `tensorrt_llm.LLM`; takes as long as loading the model does.

    Raises ValueError for options that it does not have, and whatever loading can raise.
    """
    arguments = dict(options)
    if kv_cache := arguments.pop("kv_cache_config", None):
        arguments["kv_cache_config"] = llmapi.KvCacheConfig(**kv_cache)
    if lora := arguments.pop("lora_config", None):
        arguments["lora_config"] = LoraConfig(**lora)
    if speculative := arguments.pop("speculative_config", None):
        arguments["speculative_config"] = _speculative_config(speculative, artefact_dir)
    checkpoint, tokenizer = artefact_dir / CHECKPOINT_DIR, artefact_dir / TOKENIZER_DIR
    return LLM(model=str(checkpoint), tokenizer=str(tokenizer), **arguments)


def sampling_params(**values: Any) -> Any:
    """`SamplingParams`. Raises ValueError for values that it refuses."""
    return SamplingParams(**values)


def guided_decoding(guide_type: str, guide: str) -> Any:
    """`GuidedDecodingParams` for a guide of the tensor contract; KeyError for an unknown type."""
    if guide_type == "json":
        return GuidedDecodingParams(json_object=True)
    field = {"json_schema": "json", "regex": "regex", "ebnf_grammar": "grammar"}[guide_type]
    return GuidedDecodingParams(**{field: guide})


def lora_request(name: str, task_id: int, path: Path) -> Any:
    """`LoRARequest`. Raises ValueError when there is nothing at the path."""
    return LoRARequest(name, task_id, str(path))


def bias_tensor(values: NDArray[float32]) -> Any:
    """`embedding_bias`, float32 [vocab]."""
    return torch.from_numpy(values)


def _speculative_config(values: Mapping[str, Any], artefact_dir: Path) -> Any:
    decoding_type = values.get("decoding_type")
    if decoding_type not in _SPECULATIVE:
        known = ", ".join(sorted(_SPECULATIVE))
        raise ValueError(f"speculative_config: decoding_type {decoding_type!r} is none of {known}")
    fields = {name: value for name, value in values.items() if name != "decoding_type"}
    if draft := fields.get("speculative_model_dir"):
        fields["speculative_model_dir"] = str(artefact_dir / draft)
    return getattr(llmapi, _SPECULATIVE[decoding_type])(**fields)
