"""The GPU kinds that plans are made for, and which kinds of numbers each can compute with.

Figures are those of NVIDIA's data sheets; the memory is what `nvidia-smi` reports of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MIB = 1 << 20
GB = 10**9

AMPERE, ADA, HOPPER, BLACKWELL = 80, 89, 90, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One kind of GPU. `sm` is its compute capability times 10."""

    name: str
    sm: int
    memory_bytes: int
    bandwidth_bytes_s: int

    @property
    def has_fp8(self) -> bool:
        """Ada, Hopper, Blackwell."""
        return self.sm >= ADA

    @property
    def has_fp4(self) -> bool:
        """Blackwell."""
        return self.sm >= BLACKWELL


def _gpu(name: str, sm: int, mib: int, gb_s: int) -> Gpu:
    return Gpu(name=name, sm=sm, memory_bytes=mib * MIB, bandwidth_bytes_s=gb_s * GB)


GPUS: Mapping[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        _gpu("L4", 89, 23_034, 300),
        _gpu("A10", 86, 23_028, 600),
        _gpu("L40S", 89, 46_068, 864),
        _gpu("A100-40GB", 80, 40_960, 1555),
        _gpu("A100-80GB", 80, 81_920, 2039),
        _gpu("H100", 90, 81_559, 3350),
        _gpu("H200", 90, 143_771, 4800),
        _gpu("B200", 100, 183_359, 8000),
    )
}
