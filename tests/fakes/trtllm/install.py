"""Puts the stand-in tools where a program finds them: a folder `bin`, a folder `examples`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.trtllm.flags import TOOLS
from tests.fakes.trtllm.tools import VERSION

PROJECT = Path(__file__).parents[3]


@dataclass(frozen=True)
class FakeTools:
    """Where they are."""

    bin: Path
    examples: Path
    packages: Path  # in which Python finds the distribution tensorrt_llm

    @property
    def environment(self) -> dict[str, str]:
        """For a process that is to find them; it finds nothing else."""
        return {"PATH": f"{self.bin}:/usr/bin:/bin", "PYTHONPATH": str(self.packages)}


def install_tools(
    root: Path,
    *,
    in_place: bool = True,
    version: str = VERSION,
    gpus: str = "NVIDIA L4, 8.9, 23034",
) -> FakeTools:
    """`in_place` False: trtllm-build is in the container that a stand-in of docker runs."""
    tools = FakeTools(root / "bin", root / "examples", root / "packages")
    info = tools.packages / f"tensorrt_llm-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Name: tensorrt_llm\nVersion: {version}\n")
    for tool in TOOLS:
        path = tools.examples / tool
        if tool == "trtllm-build":
            path = tools.bin / tool
        _script(path, f"from tests.fakes.trtllm.tools import main\nmain({tool!r})")
    if not in_place:
        (tools.bin / "trtllm-build").rename(root / "trtllm-build")
        code = "from tests.fakes.trtllm.docker import main\n"
        code += f"os.environ['PATH'] = {str(root)!r} + ':' + os.environ['PATH']\nmain()"
        _script(tools.bin / "docker", code)
    _script(tools.bin / "nvidia-smi", f"print({gpus!r})")
    return tools


def _script(path: Path, code: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"#!{sys.executable}\nimport os, sys\nsys.path.insert(0, {str(PROJECT)!r})\n{code}\n"
    )
    path.chmod(0o755)
