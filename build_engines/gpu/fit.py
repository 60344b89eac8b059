"""What fits which GPUs: the longest context and the largest batch, and what a build takes.

For `--plan`, before anything runs. Formulas are in memory.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from build_engines.checkpoints.architecture import Architecture
from build_engines.errors import ChoiceError
from build_engines.families.choices import check_choice
from build_engines.families.family import Family
from build_engines.figures import time_class
from build_engines.gpu.gpus import GPUS, Gpu
from build_engines.gpu.memory import (
    Parallel,
    activation_bytes,
    kv_bytes,
    kv_bytes_per_token,
    runtime_bytes,
    weight_bytes,
    weight_bytes_per_gpu,
)

GPU_COUNTS = (1, 2, 4, 8)
KV_FRACTION = 0.9  # kv_cache_free_gpu_mem_fraction in triton_models/tensorrt_llm/defaults.toml


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What an engine is asked to hold."""

    quantization: str
    kv_cache: str
    max_seq_len: int
    max_batch_size: int
    max_num_tokens: int
    is_engine: bool = True  # False: the PyTorch backend


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Bytes, on one GPU."""

    weights: int
    activations: int
    runtime: int
    kv_per_token: int
    kv_of_full_batch: int  # max_batch_size sequences of max_seq_len

    @property
    def fixed(self) -> int:
        """What is taken before the first token."""
        return self.weights + self.activations + self.runtime

    @property
    def total(self) -> int:
        """With the KV cache that the limits could ask for."""
        return self.fixed + self.kv_of_full_batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How much of a load a number of GPUs holds; `reason` where they hold nothing."""

    gpu: Gpu
    count: int
    longest_context: int = 0  # of a request alone, tokens
    largest_batch: int = 0  # requests of max_seq_len at once
    kv_tokens: int = 0  # that the KV cache holds, in all
    reason: str = ""
    is_refused: bool = False  # not for want of room: it cannot be built so


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spread:
    """A choice on other numbers of GPUs."""

    kind: str
    quantization: str
    kv_cache: str
    tp_size: int
    pp_size: int = 1
    ep_size: int = 1


def needs(arch: Architecture, load: Load, parallel: Parallel) -> Needs:
    """What a GPU must have for a load."""
    full = load.max_batch_size * kv_bytes(arch, load.kv_cache, load.max_seq_len, parallel)
    return Needs(
        weights=weight_bytes_per_gpu(arch, load.quantization, parallel, is_engine=load.is_engine),
        activations=activation_bytes(arch, load.max_num_tokens, load.max_batch_size, parallel),
        runtime=runtime_bytes(parallel),
        kv_per_token=kv_bytes_per_token(arch, load.kv_cache, parallel),
        kv_of_full_batch=full,
    )


def fits(
    family: Family,
    arch: Architecture,
    load: Load,
    gpus: Iterable[Gpu] = tuple(GPUS.values()),
    counts: Iterable[int] = GPU_COUNTS,
) -> list[Fit]:
    """How much each kind and number of GPUs holds, by tensor parallelism."""
    return [_fit(family, arch, load, gpu, count) for gpu in gpus for count in counts]


def _fit(family: Family, arch: Architecture, load: Load, gpu: Gpu, count: int) -> Fit:
    kind = "tensorrt_llm" if load.is_engine else "llm_api"
    choice = _Spread(
        kind=kind, quantization=load.quantization, kv_cache=load.kv_cache, tp_size=count
    )
    try:
        check_choice(family, choice, gpu, arch)
    except ChoiceError as exc:
        return Fit(gpu=gpu, count=count, reason=str(exc), is_refused=True)
    parallel = Parallel(tp_size=count)
    taken = needs(arch, load, parallel)
    pool = int((gpu.memory_bytes - taken.fixed) * KV_FRACTION)
    found = replace(
        Fit(gpu=gpu, count=count),
        longest_context=_longest(arch, load, parallel, pool),
        largest_batch=min(
            load.max_batch_size,
            max(0, pool) // kv_bytes(arch, load.kv_cache, load.max_seq_len, parallel),
        ),
        kv_tokens=max(0, pool) // taken.kv_per_token,
    )
    if found.longest_context == 0:
        missing = taken.fixed - gpu.memory_bytes
        why = f"{missing / 1e9:.1f} GB short" if missing > 0 else "no room for a KV cache"
        return replace(found, reason=why)
    return found


def _longest(arch: Architecture, load: Load, parallel: Parallel, pool: int) -> int:
    """Tokens of the longest request that fits alone; windows make it more than a quotient."""
    low, high = 0, load.max_seq_len
    while low < high:
        middle = (low + high + 1) // 2
        if kv_bytes(arch, load.kv_cache, middle, parallel) <= pool:
            low = middle
        else:
            high = middle - 1
    return low


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What a build takes of the machine. Times are classes, not measurements."""

    checkpoint_bytes: int  # the converted checkpoint, and the engine as much again
    memory_bytes: int  # of the machine, while converting
    convert: str
    build: str


def effort(arch: Architecture, quantization: str, *, is_calibrated: bool) -> Effort:
    """Disk, memory and time classes of making an engine."""
    size = weight_bytes(arch, quantization)
    source = weight_bytes(arch, "fp16", is_engine=False)
    return Effort(
        checkpoint_bytes=size,
        memory_bytes=source + (1 << 30),
        convert=time_class(source, 200e6 if is_calibrated else 1e9),
        build=time_class(size, 50e6),
    )
