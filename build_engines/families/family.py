"""What a family of models is: its classes, its engine flow, and what can be built of it.

Knows no family by name (families.py) and no command lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

# What a variant's weights can be; other names are a file format's own (q8_0, gguf, ...).
FULL_PRECISION = ("fp16", "bf16")
ENGINE_QUANTIZATIONS = (*FULL_PRECISION, "fp8", "int8_wo", "int4_wo", "int4_awq", "int8_sq",
                        "w4a8_awq", "nvfp4")  # fmt: skip
PYTORCH_QUANTIZATIONS = (*FULL_PRECISION, "fp8", "int4_awq", "w4a8_awq", "nvfp4")
GPU_QUANTIZATIONS = (*ENGINE_QUANTIZATIONS, "mxfp4")

_NO_PYTORCH = "the PyTorch backend of TensorRT-LLM does not have this architecture"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFlow:
    """How TensorRT engines of a family are made. `script` is below the examples' directory."""

    script: str
    has_pp: bool = True
    is_gemma: bool = False  # its script spells the flags in its own way
    chatglm_version: str | None = None
    has_workers: bool = True
    has_ep: bool = False
    max_seq_len: int | None = None  # more is not supported, whatever the model was trained for
    dtype: str = "float16"  # of what is not quantized, where the variant leaves it open
    kv_caches: frozenset[str] = frozenset({"auto", "int8", "fp8"})
    speculative: frozenset[str] = frozenset({"draft_target", "lookahead"})
    # quantization -> why not; what is not here is supported
    refused: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models of one shape: the classes that config.json and GGUF files name, and what is known."""

    name: str
    architectures: tuple[str, ...]
    gguf_architectures: tuple[str, ...] = ()
    engine: EngineFlow | None = None
    no_engine: str = ""  # why there is no engine flow
    pytorch: tuple[str, ...] = PYTORCH_QUANTIZATIONS  # what the PyTorch backend runs of it
    # architectures whose GGUF files OpenVINO reads (build_engines/cpu/openvino_ir.py)
    has_openvino_gguf: bool = False
    vocab_sizes: tuple[int, int] = (0, 1 << 31)  # where two families share their classes
    notes: tuple[str, ...] = ()

    def why_not(self, kind: str, quantization: str) -> str | None:
        """Why a kind of engine cannot run this family so quantized; None: it can."""
        if kind == "tensorrt_llm":
            return self._why_no_engine(quantization)
        if kind == "llm_api":
            if not self.pytorch:
                return _NO_PYTORCH
            if quantization not in self.pytorch:
                return "the PyTorch backend does not have it so quantized"
        return None

    def _why_no_engine(self, quantization: str) -> str | None:
        if self.engine is None:
            return self.no_engine
        if quantization not in ENGINE_QUANTIZATIONS:
            return f"{quantization} is not a quantization of TensorRT engines"
        return self.engine.refused.get(quantization)

    def quantizations(self, kind: str) -> tuple[str, ...]:
        """What the kind of engine can run of this family."""
        return tuple(q for q in GPU_QUANTIZATIONS if self.why_not(kind, q) is None)

    def kind_of(self, quantization: str) -> str:
        """The kind that a variant of this quantization is for, where a spec does not say it.

        Engines where the family has them in this quantization, else the PyTorch backend where that
        has it. What neither has is refused as the one that the family is built for.
        """
        if quantization == "gguf":
            return "llama_cpp"
        if quantization not in GPU_QUANTIZATIONS:
            return "cpu"
        has_engine = self._why_no_engine(quantization) is None
        prefers_engine = self.engine is not None and quantization not in self.pytorch
        return "tensorrt_llm" if has_engine or prefers_engine else "llm_api"
