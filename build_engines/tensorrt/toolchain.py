"""Runs TensorRT-LLM's tools: in place where they are installed, else in the pinned container.

Both are TensorRT-LLM 1.2.1, the last release with engines; an engine is loaded by the version that
built it alone. Knows nothing of models.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path, PurePath
from typing import Protocol

from build_engines.errors import ToolError
from build_engines.gpu.gpus import Gpu
from build_engines.tensorrt.tool_process import run_logged

PINNED_VERSION = "1.2.1"
IMAGE = "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3"
# Where images have the examples of their version; INFLIGHT_TRTLLM_EXAMPLES names another place.
EXAMPLES = ("/app/tensorrt_llm/examples", "/app/examples")
PROBED_FILE = "quantization/quantize.py"
# The tools run code of the checkpoint's; they get no network, and no library tries it.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
_PROBE = (
    "import importlib.metadata as m, os, sys\n"
    "print('version', m.version('tensorrt_llm'))\n"
    "for path in sys.argv[1:]:\n"
    f"    if os.path.isfile(os.path.join(path, '{PROBED_FILE}')): print('examples', path)\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSettings:
    """What a user may say of the tools, by environment variables of these names."""

    examples: Path | None = None  # INFLIGHT_TRTLLM_EXAMPLES: examples/ of the tag v1.2.1
    calibration: Path | None = None  # INFLIGHT_CALIBRATION_DATA: texts, for quantizing
    image: str = IMAGE  # INFLIGHT_TRTLLM_IMAGE

    @classmethod
    def from_env(cls) -> ToolSettings:
        """As the environment says."""
        examples = os.environ.get("INFLIGHT_TRTLLM_EXAMPLES")
        calibration = os.environ.get("INFLIGHT_CALIBRATION_DATA")
        return cls(
            examples=Path(examples).absolute() if examples else None,
            calibration=Path(calibration).absolute() if calibration else None,
            image=os.environ.get("INFLIGHT_TRTLLM_IMAGE") or IMAGE,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A command, what it reads and writes, and where its output goes."""

    command: tuple[str, ...]
    reads: tuple[PurePath, ...]
    writes: tuple[PurePath, ...]
    cwd: Path
    log: Path


class Toolchain(Protocol):
    """Runs commands that name files by their paths on this machine."""

    def open(self, cwd: Path, log: Path) -> PurePath:
        """The examples' folder, as the tools see it. Raises ToolError: no tools of our version."""
        ...

    def run(self, job: Job) -> None:
        """Runs to the end. Raises ToolError, which says why and where the whole output is."""
        ...

    def show(self, job: Job) -> tuple[str, ...]:
        """The command that `run` would start."""
        ...


def require_gpu(gpus: Sequence[Gpu]) -> None:
    """Raises ToolError where there is none: an engine runs on the kind of GPU that built it."""
    if not gpus:
        raise ToolError(
            "there is no NVIDIA GPU here, and a TensorRT engine is built on the kind of GPU that "
            "serves it: build it there; on this machine a GGUF file of the model can be served "
            "(--checkpoint FILE.gguf)"
        )


def require_tools(settings: ToolSettings) -> None:
    """Raises ToolError where nothing on this machine could run them."""
    if shutil.which("trtllm-build") is None and shutil.which("docker") is None:
        raise ToolError(
            f"TensorRT engines are built in the container {settings.image}, and there is no docker "
            "here: install Docker and the NVIDIA Container Toolkit, or run this command inside the "
            "container"
        )


def find_toolchain(settings: ToolSettings) -> Toolchain:
    """The installed tools if there are any, else the container's."""
    if shutil.which("trtllm-build") is not None:
        return InPlace(settings=settings)
    return InContainer(settings=settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class InPlace:
    """The tools of this machine: we are in the container, or TensorRT-LLM is installed."""

    settings: ToolSettings

    def open(self, cwd: Path, log: Path) -> PurePath:
        """See Toolchain."""
        return _open(self, self.settings, cwd, log)

    def run(self, job: Job) -> None:
        """See Toolchain."""
        _write_log(job.log, self.show(job))
        failure = run_logged(self.show(job), cwd=job.cwd, env=OFFLINE, log=job.log)
        if failure is not None:
            raise ToolError(failure.message(job.command))

    def show(self, job: Job) -> tuple[str, ...]:
        """See Toolchain. Python is the one that TensorRT-LLM is installed for."""
        if job.command[0] != "python3":
            return job.command
        return (_interpreter(), *job.command[1:])


def _interpreter() -> str:
    """What runs trtllm-build: `python3` may be that of an environment of our own."""
    found = shutil.which("trtllm-build")
    if found is None:
        return "python3"
    with Path(found).open("rb") as file:
        first = file.readline().decode(errors="replace").strip()
    program = first.removeprefix("#!").strip()
    return program if first.startswith("#!/") and "python" in PurePath(program).name else "python3"


@dataclass(frozen=True, slots=True, kw_only=True)
class InContainer:
    """`docker run` of the pinned image, as this user, without a network."""

    settings: ToolSettings
    user: tuple[int, int] = field(default_factory=lambda: (os.getuid(), os.getgid()))

    def open(self, cwd: Path, log: Path) -> PurePath:
        """See Toolchain."""
        require_tools(self.settings)
        return _open(self, self.settings, cwd, log)

    def run(self, job: Job) -> None:
        """See Toolchain. A container that a killed build has left is removed before."""
        name = _container_name(job)
        run_logged(("docker", "rm", "--force", name), cwd=job.cwd, env={}, log=job.log)
        _write_log(job.log, self.show(job))
        failure = run_logged(self.show(job), cwd=job.cwd, env={}, log=job.log)
        if failure is None:
            return
        if failure.exit_code == 125:  # docker's own: the tool has not been started
            raise ToolError(_docker_problem(failure.output, self.settings.image, job.log))
        raise ToolError(failure.message(job.command))

    def show(self, job: Job) -> tuple[str, ...]:
        """See Toolchain. Folders have the same paths inside as outside."""
        examples = (self.settings.examples,) if self.settings.examples else ()
        reads = _mounted((*job.reads, *examples))
        writes = [*job.writes, job.cwd]
        environment = {**OFFLINE, "HOME": "/tmp", "USER": "inflight"}  # noqa: S108 - in there
        return (
            *("docker", "run", "--rm", "--init", "--name", _container_name(job)),
            *("--gpus", "all", "--network", "none", "--shm-size", "2g"),
            *("--ulimit", "memlock=-1", "--ulimit", "stack=67108864"),
            *("--user", "{}:{}".format(*self.user)),
            *(part for name, value in environment.items() for part in ("--env", f"{name}={value}")),
            *(part for path in reads for part in ("--volume", f"{path}:{path}:ro")),
            *(part for path in _outermost(writes) for part in ("--volume", f"{path}:{path}")),
            *("--workdir", str(job.cwd)),
            self.settings.image,
            *job.command,
        )


def _open(toolchain: Toolchain, settings: ToolSettings, cwd: Path, log: Path) -> PurePath:
    candidates = (str(settings.examples),) if settings.examples else EXAMPLES
    start = log.stat().st_size if log.exists() else 0
    probe = ("python3", "-c", _PROBE, *candidates)
    toolchain.run(Job(command=probe, reads=(), writes=(), cwd=cwd, log=log))
    said = _said(log, start)
    version = said.get("version", "")
    if version != PINNED_VERSION:
        raise ToolError(
            f"TensorRT-LLM {version} is installed, engines are built and served by "
            f"{PINNED_VERSION}: use the container {IMAGE}"
        )
    if "examples" not in said:
        places = " or ".join(candidates)
        raise ToolError(
            f"TensorRT-LLM's examples are not in {places}: check out the tag v{PINNED_VERSION} of "
            "github.com/NVIDIA/TensorRT-LLM and name its folder examples/ in "
            "INFLIGHT_TRTLLM_EXAMPLES"
        )
    return PurePath(said["examples"])


def _said(log: Path, start: int) -> dict[str, str]:
    """The first line of each name that the probe has written."""
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    pairs = [line.partition(" ") for line in lines]
    found = [(name, value) for name, _, value in pairs if name in ("version", "examples")]
    return dict(reversed(found))


def _write_log(log: Path, command: Sequence[str]) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n")


def _container_name(job: Job) -> str:
    """The same for the same build: two of one thing would write over each other."""
    return f"inflight-build-{sha256(str(job.log).encode()).hexdigest()[:12]}"


def _mounted(paths: Sequence[PurePath]) -> list[Path]:
    """The folders to show: of a folder of links (Hugging Face's cache) the targets' too."""
    found: list[Path] = []
    for path in map(Path, paths):
        found.append(path)
        links = [entry for entry in path.rglob("*") if entry.is_symlink()]
        found += [link.resolve().parent for link in links]
    return _outermost(found)


def _outermost(paths: Sequence[PurePath]) -> list[Path]:
    """Without those that lie in others, in a fixed order."""
    unique = sorted(set(map(Path, paths)))
    return [path for path in unique if not any(other in path.parents for other in unique)]


_DOCKER_PROBLEMS: Mapping[str, str] = {
    "could not select device driver": (
        "docker cannot reach a GPU: install the NVIDIA Container Toolkit and restart docker"
    ),
    "daemon": "docker does not answer: start its daemon, and let this user use it (group docker)",
    "pull access denied": "docker cannot get {image}: pull it by hand, and see what it says",
    "manifest": "docker cannot get {image}: pull it by hand, and see what it says",
    "no such host": "docker cannot get {image} without a network: pull it before",
}


def _docker_problem(output: str, image: str, log: Path) -> str:
    lower = output.lower()
    for words, advice in _DOCKER_PROBLEMS.items():
        if words in lower:
            return advice.format(image=image)
    last = output.strip().splitlines()[-1:] or [""]
    return f"docker could not start {image}: {last[0]} (all of it is in {log})"
