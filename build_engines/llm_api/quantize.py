"""The stage that lets ModelOpt quantize a checkpoint for TensorRT-LLM's PyTorch backend."""

from __future__ import annotations

from pathlib import Path

from build_engines.checkpoints.architecture import Architecture
from build_engines.checkpoints.checkpoint import open_checkpoint
from build_engines.checkpoints.quantization import quantization_of
from build_engines.errors import ChoiceError, ConversionError, ToolError
from build_engines.families.family import FULL_PRECISION
from build_engines.gpu.fit import effort
from build_engines.gpu.gpus import Gpu
from build_engines.recipe import Order
from build_engines.stages import Stage, StageContext, code_hash
from build_engines.tensorrt.calibration import JSON_LINES, calibration_folder, require_texts
from build_engines.tensorrt.toolchain import PINNED_VERSION, Job, ToolSettings, find_toolchain
from build_engines.tokenizers.stage import TOKENIZER

QUANTIZE = "quantize"
PROGRAM = Path(__file__).parent / "ptq" / "quantize.py"
CALIBRATED = ("fp8", "nvfp4", "int4_awq", "w4a8_awq")
_AWQ_SAMPLES, _SAMPLES = 32, 512  # AWQ searches with each of its texts: more take hours


def needs_quantizing(order: Order) -> bool:
    """Whether ModelOpt has work. Raises ChoiceError for a checkpoint of another quantization."""
    wanted = order.variant.quantization
    found = None if order.checkpoint is None else quantization_of(order.checkpoint)
    if found is not None and found != wanted:
        raise ChoiceError(
            f"the checkpoint is quantized as {found} already: build the variant {found}, or give "
            "the checkpoint that is not quantized"
        )
    if found is None and wanted not in FULL_PRECISION + CALIBRATED and order.checkpoint is not None:
        raise ChoiceError(
            f"{wanted} weights come from the model's makers: give their checkpoint, or choose one "
            f"of {', '.join(FULL_PRECISION + CALIBRATED)}"
        )
    return found is None and wanted in CALIBRATED


def quantize_stage(
    order: Order, architecture: Architecture, settings: ToolSettings, gpus: list[Gpu]
) -> Stage:
    """The stage refuses to begin without texts to calibrate with."""
    takes = effort(architecture, order.variant.quantization, is_calibrated=True)
    texts = calibration_folder(settings)
    flags = _flags(order)
    return Stage(
        name=QUANTIZE,
        inputs={
            "flags": flags,
            "texts": [
                [path.name, path.stat().st_size, path.stat().st_mtime_ns]
                for path in sorted(texts.rglob("*.jsonl"))
            ],
            "tools": {"tensorrt_llm": PINNED_VERSION},
            "code": code_hash(PROGRAM.parent),
        },
        run=lambda out, context: _run(order, settings, gpus, texts, out, context),
        required_bytes=takes.checkpoint_bytes,
        required_memory_bytes=takes.memory_bytes,
        takes=takes.convert,
        commands=(f"python3 {PROGRAM} {' '.join(flags)} --texts {texts}",),
        check=lambda: require_texts(settings, order.variant.quantization, JSON_LINES),
    )


def _flags(order: Order) -> tuple[str, ...]:
    variant = order.variant
    return (
        *("--format", variant.quantization),
        *("--kv-cache", variant.kv_cache),
        *("--dtype", "bf16"),
        *("--samples", str(_AWQ_SAMPLES if variant.quantization.endswith("awq") else _SAMPLES)),
    )


def _run(
    order: Order,
    settings: ToolSettings,
    gpus: list[Gpu],
    texts: Path,
    out: Path,
    context: StageContext,
) -> None:
    assert order.fetched is not None
    if not gpus:
        raise ToolError(
            "there is no NVIDIA GPU here (nvidia-smi lists none): quantize on a machine with one, "
            "or give a checkpoint that is quantized already"
        )
    toolchain = find_toolchain(settings)
    root = context.log.parent
    toolchain.open(root, context.log)
    tokenizer = context.done[TOKENIZER] / "tokenizer.json"
    toolchain.run(
        Job(
            command=(
                *("python3", str(PROGRAM), *_flags(order)),
                *("--checkpoint", str(order.fetched), "--tokenizer", str(tokenizer)),
                *("--texts", str(texts), "--output", str(out)),
            ),
            reads=(PROGRAM.parent, order.fetched, tokenizer.parent, texts),
            writes=(out,),
            cwd=root,
            log=context.log,
        )
    )
    found = quantization_of(open_checkpoint(out))
    if found != order.variant.quantization:
        raise ConversionError(
            f"ModelOpt was asked for {order.variant.quantization} and wrote {found}: see what it "
            "says in the build's log"
        )
