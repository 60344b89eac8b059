"""Refuses what cannot be built, with the reason and what would work instead.

A choice is a family, a variant, a GPU kind and the model's numbers; knows no command lines.
"""

from __future__ import annotations

from typing import Protocol

from build_engines.checkpoints.architecture import Architecture
from build_engines.errors import ChoiceError
from build_engines.families.family import Family
from build_engines.gpu.gpus import GPUS, Gpu

AWQ_GROUP = 128  # weights that share a scale: quantize.py's --awq_block_size
MAX_GPUS = 64


class Choice(Protocol):
    """What a variant of a spec says of precision and of GPUs."""

    @property
    def kind(self) -> str: ...
    @property
    def quantization(self) -> str: ...
    @property
    def kv_cache(self) -> str: ...
    @property
    def tp_size(self) -> int: ...
    @property
    def pp_size(self) -> int: ...
    @property
    def ep_size(self) -> int: ...


def check_choice(
    family: Family, choice: Choice, gpu: Gpu | None = None, architecture: Architecture | None = None
) -> None:
    """Raises ChoiceError for what cannot be. Without a GPU or numbers, what they decide is left
    out. Choices for the CPU are decided where they are built."""
    if choice.kind not in ("tensorrt_llm", "llm_api"):
        _check_one_device(choice)
        return
    _check_quantization(family, choice)
    _check_kv_cache(family, choice)
    if gpu is not None:
        _check_gpu(choice, gpu)
    _check_parallel(family, choice)
    if architecture is not None:
        _check_experts(choice, architecture)
        _check_heads(choice, architecture)
        _check_groups(choice, architecture)


def _check_one_device(choice: Choice) -> None:
    if choice.tp_size * choice.pp_size * choice.ep_size != 1:
        raise ChoiceError(
            f"tp_size, pp_size and ep_size are of GPUs: kind {choice.kind} runs on one machine's "
            "CPU; leave them out"
        )


def _check_quantization(family: Family, choice: Choice) -> None:
    reason = family.why_not(choice.kind, choice.quantization)
    if reason is None:
        return
    raise ChoiceError(
        f"{family.name} cannot be built as {choice.quantization} for {choice.kind}: {reason}; "
        f"{_what_works(family, choice.kind)}"
    )


def _what_works(family: Family, kind: str) -> str:
    own = family.quantizations(kind)
    if own:
        return f"choose {_one_of(own)}"
    other = "llm_api" if kind == "tensorrt_llm" else "tensorrt_llm"
    if theirs := family.quantizations(other):
        return f"choose kind {other} with {_one_of(theirs)}"
    return "serve a GGUF file of it (--variant gguf)"


def _one_of(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _check_kv_cache(family: Family, choice: Choice) -> None:
    if choice.kv_cache not in ("auto", "int8", "fp8"):
        raise ChoiceError(f"kv_cache is {choice.kv_cache}: choose auto, int8 or fp8")
    if choice.kind == "llm_api":
        if choice.kv_cache == "int8":
            raise ChoiceError(
                "the PyTorch backend has no int8 KV cache: choose kv_cache fp8 (GPUs from Ada on) "
                "or auto"
            )
        return
    assert family.engine is not None  # refused before
    if choice.kv_cache not in family.engine.kv_caches:
        known = _one_of(tuple(sorted(family.engine.kv_caches)))
        raise ChoiceError(
            f"upstream has no {choice.kv_cache} KV cache for engines of {family.name}: "
            f"choose {known}"
        )
    if choice.kv_cache == "int8" and choice.quantization in ("fp8", "w4a8_awq", "nvfp4"):
        raise ChoiceError(
            f"an int8 KV cache does not go with {choice.quantization} weights: choose fp8 or auto"
        )


def _check_gpu(choice: Choice, gpu: Gpu) -> None:
    needs_fp8 = choice.quantization in ("fp8", "w4a8_awq") or choice.kv_cache == "fp8"
    if choice.quantization == "nvfp4" and not gpu.has_fp4:
        able = tuple(name for name, one in GPUS.items() if one.has_fp4)
        raise ChoiceError(
            f"{gpu.name} (SM {gpu.sm}) cannot compute in NVFP4, which needs Blackwell "
            f"({_one_of(able)}): choose {'fp8' if gpu.has_fp8 else 'int4_awq or int8_sq'}"
        )
    if needs_fp8 and not gpu.has_fp8:
        able = tuple(name for name, one in GPUS.items() if one.has_fp8)
        what = choice.quantization if choice.kv_cache != "fp8" else "an fp8 KV cache"
        instead = {"w4a8_awq": "int4_awq", "fp8": _eight_bits(choice)}.get(choice.quantization)
        instead = f"choose {instead}" if instead else "choose kv_cache int8 or auto"
        raise ChoiceError(
            f"{gpu.name} (SM {gpu.sm}) cannot compute in FP8, which {what} needs (SM 89 or later: "
            f"{_one_of(able)}): {instead}"
        )


def _eight_bits(choice: Choice) -> str:
    return "int8_sq or int8_wo" if choice.kind == "tensorrt_llm" else "bf16 or int4_awq"


def _check_parallel(family: Family, choice: Choice) -> None:
    for name in ("tp_size", "pp_size", "ep_size"):
        if getattr(choice, name) < 1:
            raise ChoiceError(f"{name} is {getattr(choice, name)}: it is a number of GPUs")
    if choice.tp_size * choice.pp_size > MAX_GPUS:
        raise ChoiceError(f"tp_size times pp_size is more than {MAX_GPUS} GPUs")
    flow = family.engine
    if choice.kind == "tensorrt_llm" and flow is not None:
        if choice.pp_size > 1 and not flow.has_pp:
            raise ChoiceError(
                f"upstream has no pipeline parallelism for engines of {family.name}: set pp_size "
                f"to 1 and tp_size to {choice.tp_size * choice.pp_size}"
            )
        if choice.ep_size > 1 and not flow.has_ep:
            raise ChoiceError(f"{family.name} has no experts to put on GPUs: leave ep_size out")
    if choice.tp_size % choice.ep_size:
        raise ChoiceError(
            f"ep_size {choice.ep_size} must divide tp_size {choice.tp_size} (moe_tp_size times "
            "moe_ep_size is tp_size)"
        )


def _check_experts(choice: Choice, arch: Architecture) -> None:
    if choice.ep_size == 1:
        return
    if not arch.num_experts:
        raise ChoiceError("the model has no experts to put on GPUs: leave ep_size out")
    if arch.num_experts % choice.ep_size:
        raise ChoiceError(
            f"{arch.num_experts} experts cannot be put on {choice.ep_size} GPUs: choose ep_size "
            f"{_one_of(_divisors(arch.num_experts))}"
        )


def _check_heads(choice: Choice, arch: Architecture) -> None:
    """Heads of the query are parted; heads of keys and values are parted or repeated."""
    tp = choice.tp_size
    fits = tuple(
        str(size)
        for size in (1, 2, 4, 8, 16, 32)
        if arch.num_heads % size == 0
        and (arch.num_kv_heads % size == 0 or size % arch.num_kv_heads == 0)
    )
    is_parted = arch.num_kv_heads % tp == 0 or tp % arch.num_kv_heads == 0
    if arch.num_heads % tp or not is_parted:
        raise ChoiceError(
            f"{arch.num_heads} heads with {arch.num_kv_heads} of keys and values cannot be parted "
            f"on tp_size {tp} GPUs: choose {_one_of(fits)}"
        )
    if choice.pp_size > arch.num_layers:
        raise ChoiceError(f"pp_size {choice.pp_size} is more than {arch.num_layers} layers")


def _check_groups(choice: Choice, arch: Architecture) -> None:
    """Each GPU's part of a matrix must hold whole groups: what is parted along its rows is the
    attention's output (heads x head size) and the MLP's (its inner width)."""
    if choice.quantization not in ("int4_awq", "w4a8_awq"):
        return
    if not whole_groups(arch, choice.tp_size):
        fits = tuple(str(size) for size in (1, 2, 4, 8, 16) if whole_groups(arch, size))
        instead = f"choose tp_size {_one_of(fits)}" if fits else "choose int4_wo or int8_wo"
        raise ChoiceError(
            f"{choice.quantization} has groups of {AWQ_GROUP} weights, and {_widths(arch)} on "
            f"{choice.tp_size} GPU(s) does not give whole groups: {instead}"
        )


def whole_groups(arch: Architecture, tp_size: int) -> bool:
    """Whether AWQ's groups come out even on so many GPUs."""
    return all(width % (AWQ_GROUP * tp_size) == 0 for width in _parted(arch))


def _parted(arch: Architecture) -> tuple[int, ...]:
    dense = (arch.intermediate_size,) if arch.num_moe_layers < arch.num_layers else ()
    experts = (arch.moe_intermediate_size,) if arch.num_experts else ()
    return (arch.num_heads * arch.head_size, *dense, *experts)


def _widths(arch: Architecture) -> str:
    return f"a width of {' or '.join(str(width) for width in _parted(arch))}"


def _divisors(number: int) -> tuple[str, ...]:
    return tuple(str(size) for size in (1, 2, 4, 8, 16, 32, 64) if number % size == 0)
