"""The GPUs of this machine, as nvidia-smi lists them."""

from __future__ import annotations

import subprocess

from build_engines.gpu.gpus import GPUS, MIB, Gpu

_QUERY = (
    "nvidia-smi",
    "--query-gpu=name,compute_cap,memory.total",
    "--format=csv,noheader,nounits",
)


def local_gpus() -> list[Gpu]:
    """None where there is no driver. A kind that is not in GPUS has bandwidth 0: unknown."""
    try:
        found = subprocess.run(_QUERY, capture_output=True, text=True, check=False)
    except OSError:
        return []
    if found.returncode != 0:
        return []
    return [_parse(line) for line in found.stdout.splitlines() if line.count(",") == 2]


def _parse(line: str) -> Gpu:
    name, capability, mib = (part.strip() for part in line.split(","))
    major, _, minor = capability.partition(".")
    known = {"".join(one.split("-")).lower(): one for one in GPUS}
    plain = name.removeprefix("NVIDIA ").replace("-", "").replace(" ", "").lower()
    kind = next((known[key] for key in sorted(known, reverse=True) if plain.startswith(key)), None)
    return Gpu(
        name=name,
        sm=10 * int(major) + int(minor),
        memory_bytes=int(mib) * MIB,
        bandwidth_bytes_s=GPUS[kind].bandwidth_bytes_s if kind else 0,
    )
