"""One way to build a model: where it runs, its number format, and what it is sized for.

A variant says as much as it wants; the rest is the spec's, or follows from the variant's name.
Knows nothing of which families can be built how: families.py checks the choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec

from build_engines.errors import SpecError

Positive = Annotated[int, msgspec.Meta(gt=0)]
Kind = Literal["tensorrt_llm", "llm_api", "cpu", "llama_cpp", "embedding"]
KvCache = Literal["auto", "int8", "fp8"]
SamplerType = Literal["auto", "TorchSampler", "TRTLLMSampler"]  # of TensorRT-LLM's LlmArgs
SpeculativeMode = Literal["draft_target", "eagle", "medusa", "lookahead"]

KindOf = Callable[[str], str]  # which kind a family has a quantization in

GPU_KINDS = frozenset({"tensorrt_llm", "llm_api"})
GPU_QUANTIZATIONS = (
    *("fp16", "bf16", "fp8", "int8_wo", "int4_wo", "int4_awq", "int8_sq", "w4a8_awq", "nvfp4"),
)
GGUF_QUANTIZATIONS = ("f16", "q8_0", "q4_0")  # requantized from GGUF into OpenVINO IR
# OpenVINO IR by optimum-intel, from a Hugging Face checkpoint: name of the variant -> quantization
OPENVINO = "openvino"
OPTIMUM_VARIANTS = {OPENVINO: "f32", "openvino_int8": "int8"}
GGUF_AS_IT_IS = "gguf"

# Fields of a variant that only engines on GPUs have, and fields of [speculative] by its mode
_GPU_FIELDS = ("kv_cache", "tp_size", "pp_size", "ep_size", "limits", "lora", "speculative")
_MODE_FIELDS: dict[str, tuple[str, ...]] = {
    "draft_target": ("draft_model",),
    "eagle": ("draft_model", "choices"),
    "medusa": ("draft_model", "num_heads", "choices"),
    "lookahead": ("window_size", "ngram_size", "verification_set_size"),
}


class VariantLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an engine is sized for; None: the recipe's default."""

    max_batch_size: Positive | None = None  # requests in flight
    max_input_len: Positive | None = None  # tokens of a prompt
    max_num_tokens: Positive | None = None  # tokens of a step, over all requests

    def over(self, base: VariantLimits) -> VariantLimits:
        """These, with the base's where these say nothing."""
        return VariantLimits(
            max_batch_size=self.max_batch_size or base.max_batch_size,
            max_input_len=self.max_input_len or base.max_input_len,
            max_num_tokens=self.max_num_tokens or base.max_num_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """Adapters that a model is served with. `adapters`: name -> folder or Hugging Face id."""

    max_rank: int
    target_modules: tuple[str, ...]  # empty: those of the adapters
    adapters: dict[str, str]


class LoraOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the spec or a variant says of LoRA."""

    max_rank: Positive | None = None
    target_modules: tuple[str, ...] = ()
    adapters: dict[str, str] = {}

    def over(self, base: Lora | None) -> Lora:
        """These, with the base's where these say nothing. Raises SpecError without a rank."""
        max_rank = self.max_rank or (base.max_rank if base else None)
        if max_rank is None:
            raise SpecError("lora.max_rank is missing")
        return Lora(
            max_rank=max_rank,
            target_modules=self.target_modules or (base.target_modules if base else ()),
            adapters={**(base.adapters if base else {}), **self.adapters},
        )


class Speculative(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How tokens are guessed ahead. Which fields a mode needs, its recipe checks; those that it
    does not have are refused by `resolve_variant`."""

    mode: SpeculativeMode
    max_draft_len: Positive | None = None
    draft_model: str | None = None  # name of a built model, folder or Hugging Face id
    num_heads: Positive | None = None  # medusa
    choices: list[list[int]] | None = None  # the tree of medusa and eagle
    # lookahead
    window_size: Positive | None = None
    ngram_size: Positive | None = None
    verification_set_size: Positive | None = None


class VariantOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A variant as a spec lists it. Left out: what its name implies."""

    kind: Kind | None = None
    quantization: str | None = None
    kv_cache: KvCache = "auto"
    tp_size: Positive = 1
    pp_size: Positive = 1
    ep_size: Positive = 1
    max_seq_len: Positive | None = None
    limits: VariantLimits = VariantLimits()
    lora: LoraOptions | None = None
    speculative: Speculative | None = None
    sampler_type: SamplerType = "auto"  # llm_api: what is offered of penalties and log-probs
    tolerance: Annotated[float, msgspec.Meta(gt=0)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A variant with nothing left open.

    `tolerance` is on what `verify` compares, None: its default. It is the mean difference of
    log-probs in nats; for embeddings the greatest difference of values and cosines.
    """

    name: str
    kind: Kind  # which engine runs it: a folder of triton_models/
    quantization: str
    kv_cache: KvCache = "auto"
    tp_size: int = 1
    pp_size: int = 1
    ep_size: int = 1
    max_seq_len: int | None = None  # None: the spec's
    limits: VariantLimits = field(default_factory=VariantLimits)
    lora: Lora | None = None
    speculative: Speculative | None = None
    sampler_type: SamplerType = "auto"
    tolerance: float | None = None

    @property
    def recipe(self) -> str:
        """Key of the recipe that builds it: its kind, or `optimum` for OpenVINO from PyTorch."""
        is_optimum = self.kind == "cpu" and self.quantization in OPTIMUM_VARIANTS.values()
        return "optimum" if is_optimum else self.kind

    @property
    def world_size(self) -> int:
        """GPUs that one instance takes; experts are spread over those of the tensors."""
        return self.tp_size * self.pp_size


def _gpu_kind(quantization: str, kind_of: KindOf | None) -> Kind:
    """Engines, until the family is known to have none."""
    return "llm_api" if kind_of and kind_of(quantization) == "llm_api" else "tensorrt_llm"


def implicit_options(name: str) -> VariantOptions | None:
    """A variant that no spec lists, by the quantization in its name; None: it is none."""
    if name in GPU_QUANTIZATIONS:
        return VariantOptions(quantization=name)
    if name in GGUF_QUANTIZATIONS:
        return VariantOptions(kind="cpu", quantization=name)
    if name in OPTIMUM_VARIANTS:
        return VariantOptions(kind="cpu", quantization=OPTIMUM_VARIANTS[name])
    if name == GGUF_AS_IT_IS:
        return VariantOptions(kind="llama_cpp", quantization=GGUF_AS_IT_IS)
    return None


def resolve_variant(
    name: str,
    options: VariantOptions,
    *,
    limits: VariantLimits,
    lora: Lora | None,
    speculative: Speculative | None,
    kind: Kind | None,
    kind_of: KindOf | None,
) -> Variant:
    """Fills in what the spec (`limits`, `lora`, `speculative`, `kind`), the family (`kind_of`) and
    the name say.

    The spec's tables are for its variants on GPUs. Raises SpecError for a field of the variant's
    own that its kind does not have; of a GPU kind that only the family tells, once it is known.
    """
    implied = implicit_options(options.quantization or name)
    quantization = options.quantization or (implied.quantization if implied else None)
    if quantization is None:
        raise SpecError(f"variants.{name}.quantization is missing")
    known = options.kind or kind or (implied.kind if implied else None)
    if known or kind_of:
        _refuse_foreign_fields(name, options, known or _gpu_kind(quantization, kind_of))
    if known == "llama_cpp" and quantization != GGUF_AS_IT_IS:
        raise SpecError(
            f"variants.{name} is of kind llama_cpp, which serves a GGUF file as it is: leave "
            f"quantization {quantization} out, and give a file that is so quantized"
        )
    if known and known not in GPU_KINDS:
        limits, lora, speculative = VariantLimits(), None, None
    guessing = options.speculative or speculative
    if guessing is not None:
        _check_speculative(guessing)
    return Variant(
        name=name,
        kind=known or _gpu_kind(quantization, kind_of),
        quantization=quantization,
        kv_cache=options.kv_cache,
        tp_size=options.tp_size,
        pp_size=options.pp_size,
        ep_size=options.ep_size,
        max_seq_len=options.max_seq_len,
        limits=options.limits.over(limits),
        lora=lora if options.lora is None else options.lora.over(lora),
        speculative=guessing,
        sampler_type=options.sampler_type,
        tolerance=options.tolerance,
    )


def _refuse_foreign_fields(name: str, options: VariantOptions, kind: Kind) -> None:
    """What a kind does not have must not be asked of it in silence."""
    foreign = () if kind in GPU_KINDS else _GPU_FIELDS
    if kind != "llm_api":
        foreign = (*foreign, "sampler_type")
    nothing = VariantOptions()
    given = [field for field in foreign if getattr(options, field) != getattr(nothing, field)]
    if given:
        able = "llm_api" if given == ["sampler_type"] else "tensorrt_llm or llm_api"
        raise SpecError(
            f"variants.{name} is of kind {kind}, which has no {', '.join(given)}: leave out what "
            f"it does not have, or choose kind {able}"
        )


def _check_speculative(given: Speculative) -> None:
    own = _MODE_FIELDS[given.mode]
    foreign = [
        field
        for field, value in msgspec.structs.asdict(given).items()
        if value is not None and field not in ("mode", "max_draft_len", *own)
    ]
    if foreign:
        raise SpecError(
            f"speculative.{foreign[0]} is not of mode {given.mode}, which has "
            f"{', '.join(('max_draft_len', *own))}: leave it out"
        )
