"""Makes artefacts of the `tensorrt_llm` kind: an engine, its tokenizer, and what grammars need.

engine/                        config.json, rankN.engine
tokenizer/                     tokenizer.json and what goes with it
xgrammar_tokenizer_info.json   for guided decoding
adapters/<name>/               LoRA adapters, where the spec names some
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from build_engines.checkpoints.architecture import Architecture
from build_engines.checkpoints.checkpoint import Checkpoint
from build_engines.errors import ChoiceError, SourceError, SpecError
from build_engines.families.family import Family
from build_engines.families.table import FAMILIES, family_of
from build_engines.gpu.gpus import Gpu
from build_engines.gpu.local import local_gpus
from build_engines.lora.files import ADAPTERS_DIR
from build_engines.lora.stage import adapters_stages
from build_engines.recipe import BuildPlan, Order, Section
from build_engines.stages import Stage
from build_engines.tensorrt.engine_options import EngineOptions, engine_options
from build_engines.tensorrt.inputs import EngineInputs
from build_engines.tensorrt.sections import engine_sections
from build_engines.tensorrt.stages import BUILD, EngineStages
from build_engines.tensorrt.toolchain import ToolSettings
from build_engines.tokenizers.stage import TOKENIZER, WriteTokenizer, write_tokenizer
from build_engines.verify.stage import verify_stage


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRtRecipe:
    """tokenizer -> convert or quantize -> build -> verify."""

    settings: Callable[[], ToolSettings] = ToolSettings.from_env
    gpus: Callable[[], list[Gpu]] = local_gpus
    tokenizing: WriteTokenizer = write_tokenizer
    verifying: Callable[..., Stage] = verify_stage

    def plan(self, order: Order) -> BuildPlan:
        """See Recipe. Raises ChoiceError for what the family or this machine's GPU cannot do."""
        gpus, settings = self.gpus(), self.settings()
        family, architecture = _model(order)
        options = _options(order, family, architecture, gpus)
        assert family.engine is not None  # engine_options has checked it
        making = EngineStages(
            order=order,
            flow=family.engine,
            architecture=architecture,
            options=options,
            inputs=EngineInputs.of(order, options, settings),
            settings=settings,
            gpus=gpus,
            tokenizing=self.tokenizing,
        )
        adapters = adapters_stages(
            options.lora, kind="tensorrt_llm", num_layers=architecture.num_layers
        )
        layout = {TOKENIZER: "", BUILD: "engine"}
        layout |= {stage.name: ADAPTERS_DIR for stage in adapters}
        verify = self.verifying(order, layout=layout, describe=making.describe)
        return BuildPlan(
            stages=(making.tokenizer(), *adapters, making.checkpoint(), making.build(), verify),
            layout=layout,
            describe=making.describe,
        )

    def sections(self, order: Order) -> list[Section]:
        """See Recipe: the engine's numbers, and what fits which GPUs."""
        family, architecture = _model(order)
        options = _options(order, family, architecture, [])
        return engine_sections(order, family, architecture, options)


def _model(order: Order) -> tuple[Family, Architecture]:
    if order.architecture is None:
        raise SpecError(
            f"{order.spec.name} has no [architecture], and its checkpoint is not here yet: give it "
            "by --checkpoint, or write its numbers into the spec"
        )
    if order.checkpoint is not None and order.checkpoint.format != "hf":
        raise ChoiceError(
            "TensorRT engines are made from a Hugging Face checkpoint, this one is a GGUF file: "
            "give the folder, or serve the file as it is (--variant gguf)"
        )
    if order.checkpoint is not None:
        _check_code(order.checkpoint)
    if order.spec.family is None:
        return family_of(order.architecture), order.architecture
    if order.spec.family not in FAMILIES:
        raise SpecError(f"there is no family {order.spec.family}: choose {', '.join(FAMILIES)}")
    return FAMILIES[order.spec.family], order.architecture


def _check_code(checkpoint: Checkpoint) -> None:
    """Raises SourceError: where config.json names code, the converters run it (auto_map)."""
    named = checkpoint.config.get("auto_map")
    values = named.values() if isinstance(named, dict) else ()
    own = [value for value in values if isinstance(value, str) and "--" not in value]
    modules = {value.partition(".")[0] for value in own}
    missing = [name for name in sorted(modules) if not (checkpoint.path / f"{name}.py").is_file()]
    if missing:
        raise SourceError(
            f"the checkpoint has no {missing[0]}.py, which NVIDIA's converter runs, in its "
            "container: write with_code = true under [source], or give the whole folder by "
            "--checkpoint"
        )


def _options(
    order: Order, family: Family, architecture: Architecture, gpus: list[Gpu]
) -> EngineOptions:
    weakest = min(gpus, key=lambda gpu: gpu.sm, default=None)
    given = order.variant.max_seq_len or order.spec.max_seq_len
    return engine_options(family, order.variant, architecture, given, weakest)
