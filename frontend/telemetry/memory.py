"""How much memory the serving processes use; Triton's model processes are found by their name."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psutil

STUB_NAME = "triton_python_backend_stub"


def serving_bytes(root_pid: int) -> int:
    """Resident memory of this installation: the process that started it and all below."""
    return sum(_rss(process) for process in _serving_processes(root_pid))


def machine_bytes() -> int:
    """Memory of the machine."""
    total: int = psutil.virtual_memory().total
    return total


def model_bytes(root_pid: int, name: str) -> int | None:
    """Resident memory of the process that runs a model; None where it is not on this machine."""
    model = re.compile(rf"/{re.escape(name)}/(\d+)/model\.py")
    newest, memory = 0, None  # an earlier version ends when its last request does
    for process in _serving_processes(root_pid):
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        if command and STUB_NAME in command[0]:
            found = model.search(" ".join(command))
            if found is not None and int(found[1]) > newest:
                newest, memory = int(found[1]), _rss(process)
    return memory


def human_size(num_bytes: int) -> str:
    """ "4.2GB" for 4,200,000,000: decimal units, one place, as the API shows sizes."""
    size, unit = float(num_bytes), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.1f}".removesuffix(".0") + unit


def _serving_processes(root_pid: int) -> Iterator[psutil.Process]:
    root = psutil.Process(root_pid)
    yield root
    yield from root.children(recursive=True)


def _rss(process: psutil.Process) -> int:
    try:
        rss: int = process.memory_info().rss
    except psutil.Error:  # it ended while we looked
        return 0
    return rss
