"""The tables of `--plan` for a TensorRT engine."""

from __future__ import annotations

from build_engines.checkpoints.architecture import Architecture
from build_engines.families.family import FULL_PRECISION, Family
from build_engines.figures import spaced
from build_engines.gpu.fit import Load
from build_engines.gpu.launch import CPP_KIND, Launch, LaunchedModel, Mode, command
from build_engines.gpu.memory import Parallel
from build_engines.gpu.sections import fit_section, memory_section
from build_engines.recipe import Order, Section
from build_engines.tensorrt.engine_options import EngineOptions


def engine_sections(
    order: Order, family: Family, architecture: Architecture, options: EngineOptions
) -> list[Section]:
    """What the engine is built for, its memory, what fits where; and, for several GPUs, the
    lines that serve it."""
    load = Load(
        quantization=options.quantization,
        kv_cache=options.kv_cache,
        max_seq_len=options.limits.max_seq_len,
        max_batch_size=options.limits.max_batch_size,
        max_num_tokens=options.limits.max_num_tokens,
    )
    parallel = Parallel(tp_size=options.tp_size, pp_size=options.pp_size, ep_size=options.ep_size)
    return [
        _engine(family, options),
        memory_section(architecture, load, parallel),
        fit_section(family, architecture, load),
        *([_serving(order, options)] if options.world_size > 1 else []),
    ]


def _engine(family: Family, options: EngineOptions) -> Section:
    limits = options.limits
    drafting = options.drafting
    rows = [
        ("weights", _weights(options)),
        ("KV cache", options.dtype if options.kv_cache == "auto" else options.kv_cache),
        ("GPUs", f"{options.world_size} (tp {options.tp_size}, pp {options.pp_size})"),
        ("requests at once", f"{limits.max_batch_size}"),
        ("prompt", f"{spaced(limits.max_input_len)} tokens"),
        ("prompt and output", f"{spaced(limits.max_seq_len)} tokens"),
        ("a step", f"{spaced(limits.max_num_tokens)} tokens"),
    ]
    if drafting is not None:
        rows.append(("guesses ahead", f"{drafting.mode}, {drafting.max_draft_len} tokens"))
    if options.lora is not None:
        rows.append(("LoRA", f"rank up to {options.lora.max_rank}"))
    rows += [("note", note) for note in family.notes]
    return Section(title="Engine", rows=(("what", "value"), *rows))


def _weights(options: EngineOptions) -> str:
    rest = "" if options.quantization in FULL_PRECISION else f", the rest in {options.dtype}"
    return f"{options.quantization}{rest}"


def _serving(order: Order, options: EngineOptions) -> Section:
    """`inflight triton` gives the same lines for models that are built."""
    model = LaunchedModel(
        name=order.spec.name, kind=CPP_KIND, tp_size=options.tp_size, pp_size=options.pp_size
    )
    rows = [("mode", "command")]
    for mode in (Mode.LEADER, Mode.ORCHESTRATOR):
        launch = Launch(models=[model], repository=order.home / "repository", mode=mode)
        line = command(launch).shown().replace("\\\n  ", "")
        rows.append((str(mode), line))
    return Section(title="Served on several GPUs by", rows=tuple(rows))
