"""Makes artefacts of the `llm_api` kind: a checkpoint as TensorRT-LLM's PyTorch backend reads it.

checkpoint/        config.json, safetensors; hf_quant_config.json where ModelOpt quantized it
tokenizer/         tokenizer.json and what goes with it
adapters/NAME/     LoRA adapters, as they are
draft/             the checkpoint that guesses tokens ahead
llm_options.json   the arguments of tensorrt_llm.LLM
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from build_engines.checkpoints.architecture import Architecture
from build_engines.errors import ChoiceError, SpecError
from build_engines.families.family import Family
from build_engines.families.table import FAMILIES, family_of
from build_engines.gpu.fit import Load
from build_engines.gpu.gpus import Gpu
from build_engines.gpu.local import local_gpus
from build_engines.gpu.memory import Parallel
from build_engines.gpu.sections import fit_section, memory_section
from build_engines.llm_api.options import llm_limits, llm_options
from build_engines.llm_api.stages import FOLDERS, LlmApiMaking, adapter_modules
from build_engines.recipe import BuildPlan, Order, Section
from build_engines.stages import Stage
from build_engines.tensorrt.engine_options import EngineLimits
from build_engines.tensorrt.toolchain import ToolSettings
from build_engines.tokenizers.stage import WriteTokenizer, write_tokenizer


def _verify_stage(order: Order, **plan: Any) -> Stage:
    from build_engines.verify.stage import verify_stage

    return verify_stage(order, **plan)


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmApiRecipe:
    """tokenizer -> convert or quantize -> adapters, draft -> options -> verify."""

    settings: Callable[[], ToolSettings] = ToolSettings.from_env
    gpus: Callable[[], list[Gpu]] = local_gpus
    tokenizing: WriteTokenizer = write_tokenizer
    verifying: Callable[..., Stage] = _verify_stage

    def plan(self, order: Order) -> BuildPlan:
        """See Recipe. Raises ChoiceError for what the backend or this machine's GPU cannot do."""
        gpus = self.gpus()
        family, architecture = _model(order)
        weakest = min(gpus, key=lambda gpu: gpu.sm, default=None)
        making = LlmApiMaking(
            order=order,
            architecture=architecture,
            limits=_limits(order, family, architecture, weakest),
            settings=self.settings(),
            gpus=gpus,
            tokenizing=self.tokenizing,
        )
        llm_options(order.variant, making.limits, adapter_modules(order.variant.lora))
        stages = making.stages()
        layout = {stage.name: FOLDERS[stage.name] for stage in stages}
        verify = self.verifying(order, layout=layout, describe=making.describe)
        return BuildPlan(stages=(*stages, verify), layout=layout, describe=making.describe)

    def sections(self, order: Order) -> list[Section]:
        """See Recipe: the memory of the chosen limits, and what fits which GPUs."""
        family, architecture = _model(order)
        variant = order.variant
        limits = _limits(order, family, architecture, None)
        load = Load(
            quantization=variant.quantization,
            kv_cache=variant.kv_cache,
            max_seq_len=limits.max_seq_len,
            max_batch_size=limits.max_batch_size,
            max_num_tokens=limits.max_num_tokens,
            is_engine=False,
        )
        parallel = Parallel(
            tp_size=variant.tp_size, pp_size=variant.pp_size, ep_size=variant.ep_size
        )
        return [
            memory_section(architecture, load, parallel),
            fit_section(family, architecture, load),
        ]


def _model(order: Order) -> tuple[Family, Architecture]:
    if order.architecture is None:
        raise SpecError(
            f"{order.spec.name} has no [architecture], and its checkpoint is not here yet: give it "
            "by --checkpoint, or write its numbers into the spec"
        )
    if order.checkpoint is not None and order.checkpoint.format != "hf":
        raise ChoiceError(
            "TensorRT-LLM's PyTorch backend reads Hugging Face checkpoints, this one is a GGUF "
            "file: give the folder, or serve the file as it is (--variant gguf)"
        )
    name = order.spec.family
    if name is None:
        return family_of(order.architecture), order.architecture
    if name not in FAMILIES:
        raise SpecError(f"there is no family {name}: choose {', '.join(FAMILIES)}")
    return FAMILIES[name], order.architecture


def _limits(
    order: Order, family: Family, architecture: Architecture, gpu: Gpu | None
) -> EngineLimits:
    given = order.variant.max_seq_len or order.spec.max_seq_len
    return llm_limits(family, order.variant, architecture, given, gpu)
