"""The families of models, and what can be built of each: why not where it cannot.

The engine flow's rows are those of TensorRT-LLM 1.2.1 (examples/models/*/README.md and
docs/source/legacy/reference/precision.md); the PyTorch backend's of its supported-models.md and
quantization.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from build_engines.checkpoints.architecture import Architecture
from build_engines.errors import UnknownArchitectureError
from build_engines.families.choices import check_choice
from build_engines.families.family import EngineFlow, Family

__all__ = ["FAMILIES", "check_choice", "family_of"]

_EXAMPLES = "models/core"
_NO_NVFP4 = "upstream has NVFP4 engines for Llama and Mixtral only"


def _refuse(names: Iterable[str], reason: str) -> dict[str, str]:
    return dict.fromkeys(names, reason)


_LLAMA = f"{_EXAMPLES}/llama/convert_checkpoint.py"
_QWEN = f"{_EXAMPLES}/qwen/convert_checkpoint.py"
_GEMMA = f"{_EXAMPLES}/gemma/convert_checkpoint.py"
_GLM = f"{_EXAMPLES}/glm-4-9b/convert_checkpoint.py"
_PHI = f"{_EXAMPLES}/phi/convert_checkpoint.py"
_PYTORCH_ONLY = "TensorRT-LLM has it in the PyTorch backend only"
_QWEN_MOE_REFUSED = _refuse(
    ("fp8", "int4_awq", "w4a8_awq", "int8_sq", "nvfp4"),
    "upstream has weight-only quantization of Qwen's mixtures of experts only",
)
_GLM_KV = frozenset({"auto", "int8"})
_GEMMA_BF16 = "bfloat16"

_FAMILIES = (
    Family(
        name="llama",
        architectures=("LlamaForCausalLM",),
        gguf_architectures=("llama",),
        engine=EngineFlow(
            script=_LLAMA,
            speculative=frozenset({"draft_target", "lookahead", "medusa", "eagle"}),
        ),
        has_openvino_gguf=True,
    ),
    Family(
        name="mistral",
        architectures=("MistralForCausalLM",),
        engine=EngineFlow(
            script=_LLAMA,
            speculative=frozenset({"draft_target", "lookahead"}),
            refused=_refuse(("nvfp4",), _NO_NVFP4),
        ),
        notes=("GGUF files of Mistral models say that they are Llama's",),
    ),
    Family(
        name="mistral3",
        architectures=("Mistral3ForConditionalGeneration",),
        no_engine=_PYTORCH_ONLY,
    ),
    Family(
        name="mixtral",
        architectures=("MixtralForCausalLM",),
        engine=EngineFlow(
            script=_LLAMA,
            has_ep=True,
            refused=_refuse(("int8_sq",), "upstream has no SmoothQuant of Mixtral"),
        ),
    ),
    Family(
        name="qwen",
        architectures=("QWenLMHeadModel",),
        gguf_architectures=("qwen",),
        engine=EngineFlow(
            script=_QWEN,
            max_seq_len=8192,
            refused=_refuse(("nvfp4",), _NO_NVFP4),
        ),
        pytorch=(),
        notes=(
            "dynamic NTK and logn attention of Qwen-1 are not supported: what it was trained for "
            "without them is the longest context",
        ),
    ),
    Family(
        name="qwen2",
        architectures=("Qwen2ForCausalLM",),
        gguf_architectures=("qwen2",),
        engine=EngineFlow(script=_QWEN, refused=_refuse(("nvfp4",), _NO_NVFP4)),
        has_openvino_gguf=True,
    ),
    Family(
        name="qwen2_moe",
        architectures=("Qwen2MoeForCausalLM",),
        gguf_architectures=("qwen2moe",),
        engine=EngineFlow(
            script=_QWEN, has_ep=True, kv_caches=frozenset({"auto"}), refused=_QWEN_MOE_REFUSED
        ),
    ),
    Family(
        name="qwen3",
        architectures=("Qwen3ForCausalLM",),
        gguf_architectures=("qwen3",),
        engine=EngineFlow(
            script=_QWEN,
            dtype="bfloat16",
            refused=_refuse(
                ("int8_wo", "int4_wo", "int4_awq", "w4a8_awq", "int8_sq"),
                "upstream lists bf16, FP8 and NVFP4 of Qwen3 only",
            )
            | _refuse(("nvfp4",), _NO_NVFP4),
        ),
        has_openvino_gguf=True,
    ),
    Family(
        name="qwen3_moe",
        architectures=("Qwen3MoeForCausalLM",),
        gguf_architectures=("qwen3moe",),
        engine=EngineFlow(
            script=_QWEN,
            has_ep=True,
            dtype="bfloat16",
            kv_caches=frozenset({"auto"}),
            refused=_refuse(("int8_wo", "int4_wo"), "upstream lists bf16, FP8 and NVFP4 of Qwen3")
            | _QWEN_MOE_REFUSED,
        ),
    ),
    Family(
        name="gemma",
        architectures=("GemmaForCausalLM",),
        gguf_architectures=("gemma",),
        engine=EngineFlow(
            script=_GEMMA,
            is_gemma=True,
            has_pp=False,
            has_workers=False,
            dtype=_GEMMA_BF16,
            refused=_refuse(("nvfp4",), _NO_NVFP4),
        ),
        pytorch=(),
    ),
    Family(
        name="gemma2",
        architectures=("Gemma2ForCausalLM",),
        gguf_architectures=("gemma2",),
        engine=EngineFlow(
            script=_GEMMA,
            is_gemma=True,
            has_pp=False,
            has_workers=False,
            max_seq_len=4096,
            dtype=_GEMMA_BF16,
            refused=_refuse(("nvfp4",), _NO_NVFP4),
        ),
        pytorch=(),
        notes=("the longest context of a Gemma-2 engine is 4096",),
    ),
    Family(
        name="gemma3",
        architectures=("Gemma3ForCausalLM",),
        gguf_architectures=("gemma3",),
        engine=EngineFlow(
            script=_GEMMA,
            is_gemma=True,
            has_pp=False,
            has_workers=False,
            dtype=_GEMMA_BF16,
            refused=_refuse(("nvfp4",), _NO_NVFP4)
            | _refuse(
                ("fp8", "int8_wo", "int4_wo", "int4_awq", "w4a8_awq", "int8_sq"),
                "upstream shows bf16 of Gemma-3 only",
            ),
            kv_caches=frozenset({"auto"}),
        ),
        notes=("attention windows: five layers of six see the last 512 (1B) or 1024 tokens",),
    ),
    Family(
        name="gemma3_multimodal",
        architectures=("Gemma3ForConditionalGeneration",),
        no_engine=_PYTORCH_ONLY,
    ),
    Family(
        name="phi",
        architectures=("PhiForCausalLM",),
        gguf_architectures=("phi2",),
        engine=EngineFlow(
            script=_PHI,
            has_pp=False,
            kv_caches=frozenset({"auto"}),
            refused=_refuse(("nvfp4",), _NO_NVFP4)
            | _refuse(
                ("fp8", "int4_awq", "w4a8_awq", "int8_sq"),
                "quantize.py does not know Phi-2",
            ),
        ),
        pytorch=(),
    ),
    Family(
        name="phi3",
        architectures=("Phi3ForCausalLM",),
        gguf_architectures=("phi3",),
        engine=EngineFlow(
            script=_PHI,
            has_pp=False,
            refused=_refuse(("nvfp4",), _NO_NVFP4)
            | _refuse(("int4_awq", "w4a8_awq"), "upstream has FP8 and int8 of Phi-3 only"),
        ),
    ),
    Family(
        name="phimoe",
        architectures=("PhiMoEForCausalLM",),
        gguf_architectures=("phimoe",),
        pytorch=(),
        engine=EngineFlow(
            script=_PHI,
            has_pp=False,
            has_ep=True,
            refused=_refuse(("nvfp4",), _NO_NVFP4)
            | _refuse(("int4_awq", "w4a8_awq"), "upstream has FP8 and int8 of Phi-3.5 only"),
        ),
    ),
    Family(
        name="chatglm3",
        architectures=("ChatGLMModel", "ChatGLMForConditionalGeneration"),
        gguf_architectures=("chatglm",),
        engine=EngineFlow(
            script=_GLM,
            has_pp=False,
            chatglm_version="chatglm3",
            kv_caches=_GLM_KV,
            refused=_refuse(("nvfp4",), _NO_NVFP4)
            | _refuse(("w4a8_awq",), "upstream does not list it for ChatGLM"),
        ),
        pytorch=(),
        vocab_sizes=(0, 100_000),
    ),
    Family(
        name="glm4",
        architectures=("ChatGLMModel", "ChatGLMForConditionalGeneration"),
        gguf_architectures=("chatglm",),
        engine=EngineFlow(
            script=_GLM,
            has_pp=False,
            chatglm_version="glm4",
            kv_caches=_GLM_KV,
            refused=_refuse(("nvfp4",), _NO_NVFP4)
            | _refuse(("w4a8_awq",), "upstream does not list it for GLM-4"),
        ),
        pytorch=(),
        vocab_sizes=(100_000, 1 << 31),
    ),
    Family(
        name="glm4_hf",
        architectures=("GlmForCausalLM", "Glm4ForCausalLM"),
        gguf_architectures=("glm4",),
        no_engine="upstream converts GLM-4 checkpoints of the ChatGLM class only",
        pytorch=(),
    ),
    Family(
        name="glm4_moe",
        architectures=("Glm4MoeForCausalLM",),
        gguf_architectures=("glm4moe",),
        no_engine=_PYTORCH_ONLY,
    ),
    Family(
        name="gpt_oss",
        architectures=("GptOssForCausalLM",),
        gguf_architectures=("gpt-oss",),
        no_engine=_PYTORCH_ONLY,
        pytorch=("mxfp4",),
        notes=("its checkpoints are in MXFP4 already",),
    ),
    Family(
        name="deepseek",
        architectures=("DeepseekV3ForCausalLM",),
        gguf_architectures=("deepseek2",),
        no_engine=_PYTORCH_ONLY,
        pytorch=("fp8", "nvfp4"),
        notes=("its checkpoints are in block-scaled FP8 already",),
    ),
    Family(
        name="deepseek2",
        architectures=("DeepseekV2ForCausalLM",),
        no_engine="its examples are in contrib/, for eight GPUs and one precision; not done here",
        pytorch=(),
    ),
)
FAMILIES: Mapping[str, Family] = MappingProxyType({family.name: family for family in _FAMILIES})


def family_of(architecture: Architecture) -> Family:
    """The family of an architecture. Raises UnknownArchitectureError."""
    for family in _FAMILIES:
        low, high = family.vocab_sizes
        if (
            architecture.hf_architecture in family.architectures
            and low <= architecture.vocab_size < high
        ):
            return family
    name = architecture.hf_architecture or architecture.model_type
    raise UnknownArchitectureError(
        f"no family here has the architecture {name}: a GGUF file of it can be served as it is "
        "(`--variant gguf`)"
    )
