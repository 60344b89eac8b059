"""What an artefact's llm_options.json says: the arguments of `tensorrt_llm.LLM`, and what follows
from them for the tensors that the model can honour.

Knows names and JSON; nothing of TensorRT-LLM is imported here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triton_models.contract import GUIDE_TENSOR, GUIDE_TYPE_TENSOR

OPTIONS_FILE = "llm_options.json"
CHECKPOINT_DIR = "checkpoint"
TOKENIZER_DIR = "tokenizer"

# What a sampler of the PyTorch backend takes without a word and does not do in TensorRT-LLM 1.2.1.
# The pull requests that brought it to the TorchSampler came later: penalties #16485, bad words
# #16052, min_p #16590, seeds #17172. The TRTLLMSampler gives the log-prob of the chosen token only.
# https://github.com/NVIDIA/TensorRT-LLM, docs/source/features/sampling.md
_NOT_SAMPLED: Mapping[str, frozenset[str]] = {
    "TorchSampler": frozenset(
        {
            "repetition_penalty",
            "presence_penalty",
            "frequency_penalty",
            "bad_words_list",
            "min_p",
            "seed",
        }
    ),
    "TRTLLMSampler": frozenset({"num_top_log_probs", "top_log_prob_ids", "top_log_probs"}),
}


class OptionsError(ValueError):
    """The options cannot be used; the message says which and why."""


def read_options(artefact_dir: Path) -> dict[str, Any]:
    """The arguments of `tensorrt_llm.LLM`, without `model` and `tokenizer`.

    Raises OptionsError.
    """
    path = artefact_dir / OPTIONS_FILE
    try:
        options = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise OptionsError(f"{path}: {exc}") from exc
    if not isinstance(options, dict):
        raise OptionsError(f"{path}: not an object")
    return options


def sampler_of(options: Mapping[str, Any]) -> str:
    """The sampler that the options choose: "auto" is the TorchSampler without beam search.

    Raises OptionsError.
    """
    sampler = options.get("sampler_type", "auto")
    if sampler == "auto":
        return "TorchSampler"
    if sampler not in _NOT_SAMPLED:
        raise OptionsError(
            f"sampler_type: {sampler!r} is not one of auto, {', '.join(_NOT_SAMPLED)}"
        )
    if sampler == "TRTLLMSampler" and options.get("speculative_config"):
        raise OptionsError("sampler_type: TRTLLMSampler cannot do speculative decoding")
    return str(sampler)


def undeclared_tensors(options: Mapping[str, Any]) -> frozenset[str]:
    """The tensors of the kind that a model with these options must not declare.

    The frontend then refuses them by name. Raises OptionsError.
    """
    names = set(_NOT_SAMPLED[sampler_of(options)])
    if not options.get("guided_decoding_backend"):
        names |= {GUIDE_TENSOR, GUIDE_TYPE_TENSOR}
    if not options.get("lora_config"):
        names.add("lora_task_id")
    return frozenset(names)
