"""The command line that starts Triton for a set of models: how many processes, by which starter.

It starts nothing and reads nothing of models. Sources: TensorRT-LLM 1.2.1
`triton_backend/scripts/launch_triton_server.py` and `docs/llmapi.md` of tensorrtllm_backend.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from build_engines.artefacts.artefact import Artefact
from build_engines.errors import LaunchError

NVIDIA_BINARY = Path("/opt/tritonserver/bin/tritonserver")
CPP_KIND, PYTORCH_KIND = "tensorrt_llm", "llm_api"
GPU_KINDS = (CPP_KIND, PYTORCH_KIND)
GpuIds = tuple[int, ...]

_FLAGS: dict[str, object] = {
    "disable-auto-complete-config": None,  # ours are complete; it would start each model twice
    "exit-on-error": "false",  # one broken model must not take the others down
    "strict-readiness": "false",
    "grpc-infer-allocation-pool-size": 256,  # about as many as requests run at once
    # clients that keep a quiet connection alive are not sent away (too_many_pings)
    "grpc-keepalive-time": 60_000,
    "grpc-keepalive-timeout": 20_000,
    "grpc-keepalive-permit-without-calls": 1,
    "grpc-http2-max-pings-without-data": 0,
    "grpc-http2-min-recv-ping-interval-without-data": 10_000,
    "metrics-config": "histogram_latencies=true",
    "exit-timeout-secs": 60,
}


# The wheel's Triton, which serves CPU models, is too old for it.
_GPU_FLAGS: dict[str, object] = {"grpc-infer-thread-count": 4}


class Mode(StrEnum):
    """Who starts the processes of a model that spans several GPUs."""

    PLAIN = "plain"  # nobody, or the model itself: one tritonserver, no MPI
    LEADER = "leader"  # mpirun: one tritonserver a rank, of which rank 0 answers
    ORCHESTRATOR = "orchestrator"  # the backend spawns a worker a rank; models come and go
    NODES = "nodes"  # srun, on several machines


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchedModel:
    """A model that Triton loads at its start. Experts (EP) are spread over the same GPUs as TP."""

    name: str
    kind: str
    tp_size: int = 1
    pp_size: int = 1
    gpu_ids: GpuIds | None = None  # None: the first ones

    @property
    def world_size(self) -> int:
        """GPUs that it runs on."""
        return self.tp_size * self.pp_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What is to be started, and where."""

    models: Sequence[LaunchedModel]
    repository: Path
    binary: Path = NVIDIA_BINARY
    backends: Path | None = None  # None: beside the binary
    host: str = "127.0.0.1"
    grpc_port: int = 8001
    http_port: int = 8003
    metrics_port: int = 8002
    mode: Mode | None = None  # None: the one that serves the models best
    num_nodes: int = 1
    gpus_per_node: int | None = None  # None: as many as are needed

    def models_of(self, kind: str) -> list[LaunchedModel]:
        """Those of one kind, in their order."""
        return [model for model in self.models if model.kind == kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program with its arguments, and the variables that it needs besides the environment's."""

    argv: list[str]
    env: Mapping[str, str] = field(default_factory=dict)

    def shown(self) -> str:
        """For a shell, an argument a line."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.env.items()]
        return " \\\n  ".join([*variables, *map(shlex.quote, self.argv)])


def launched_model(artefact: Artefact, gpu_ids: GpuIds | None = None) -> LaunchedModel:
    """What a launch has to know of a built model."""
    manifest, engine = artefact.manifest, artefact.manifest.engine
    return LaunchedModel(
        name=manifest.name,
        kind=manifest.kind,
        tp_size=1 if engine is None else engine.tp_size,
        pp_size=1 if engine is None else engine.pp_size,
        gpu_ids=gpu_ids,
    )


def command(launch: Launch) -> Command:
    """The command line. Raises LaunchError, which says what would work instead."""
    mode = launch.mode or _best_mode(launch)
    _check(launch, mode)
    match mode:
        case Mode.PLAIN:
            return Command(argv=_server(launch))
        case Mode.LEADER:
            return Command(argv=_leader(launch))
        case Mode.ORCHESTRATOR:
            return _orchestrator(launch)
        case Mode.NODES:
            return Command(argv=_nodes(launch))


def orchestrated(server: Sequence[str], num_gpus: int) -> Command:
    """A tritonserver's command line, under which engines may span that many GPUs."""
    # The spawned workers need the memory that Triton would take on each GPU beforehand.
    memory = ["--pinned-memory-pool-byte-size=0", "--enable-peer-access=false"]
    memory += [f"--cuda-memory-pool-byte-size={gpu}:0" for gpu in range(num_gpus)]
    return Command(
        argv=["mpirun", "--allow-run-as-root", "-n", "1", *server, *memory],
        env={"TRTLLM_ORCHESTRATOR": "1", "TRTLLM_ORCHESTRATOR_SPAWN_PROCESSES": "1"},
    )


def starter(
    models: Sequence[LaunchedModel], num_gpus: int | None = None
) -> tuple[Callable[[list[str]], list[str]], Mapping[str, str]]:
    """What makes of a tritonserver's command line one that can serve these models on one machine,
    and the variables that it needs: for several engines or GPUs an orchestrator."""
    launch = Launch(models=models, repository=Path(), gpus_per_node=num_gpus)
    if not launch.models_of(CPP_KIND) or _best_mode(launch) is not Mode.ORCHESTRATOR:
        return list, {}
    count = _num_gpus(launch)
    return lambda server: orchestrated(server, count).argv, orchestrated([], count).env


def parse_gpus(text: str) -> dict[str, GpuIds]:
    """Which GPUs each model gets, from "llama=0,1 qwen=2". Raises LaunchError."""
    found: dict[str, GpuIds] = {}
    for word in text.split():
        name, _, ids = word.partition("=")
        try:
            gpu_ids = tuple(int(one) for one in ids.split(","))
        except ValueError:
            gpu_ids = ()
        if not name or not gpu_ids or name in found or len(set(gpu_ids)) < len(gpu_ids):
            raise LaunchError(f"{word!r} does not say a model's GPUs: write NAME=0,1 NAME=2")
        found[name] = gpu_ids
    return found


def count_gpus() -> int | None:
    """NVIDIA GPUs of this machine; None where there are none to count."""
    return len(list(Path("/dev").glob("nvidia[0-9]*"))) or None


def gpu_device_ids(gpu_ids: GpuIds | None) -> str:
    """The value of config.pbtxt's `gpu_device_ids`; "" leaves it to the backend."""
    return ",".join(map(str, gpu_ids or ()))


def _best_mode(launch: Launch) -> Mode:
    engines = launch.models_of(CPP_KIND)
    if launch.num_nodes > 1:
        return Mode.NODES
    if not engines:
        return Mode.PLAIN
    # Of several ranks, only an orchestrator can load and unload models while it serves.
    is_large = len(engines) > 1 or engines[0].world_size > 1
    return Mode.ORCHESTRATOR if is_large else Mode.LEADER


def _check(launch: Launch, mode: Mode) -> None:
    engines, llms = launch.models_of(CPP_KIND), launch.models_of(PYTORCH_KIND)
    if not launch.models:
        raise LaunchError("there is no model to serve: name one that is built")
    if engines and llms:
        raise LaunchError(
            f"{engines[0].name} ({CPP_KIND}) runs under mpirun, {llms[0].name} ({PYTORCH_KIND}) "
            "starts processes of its own and must not: serve them by two Tritons"
        )
    if launch.num_nodes > 1 and mode is not Mode.NODES:
        raise LaunchError(f"mode {mode} is of one machine: leave --mode out for several nodes")
    match mode:
        case Mode.PLAIN if engines:
            raise LaunchError(f"{engines[0].name} ({CPP_KIND}) needs mode leader or orchestrator")
        case Mode.LEADER | Mode.ORCHESTRATOR if not engines:
            raise LaunchError(
                f"mode {mode} is for {CPP_KIND} models, {launch.models[0].name} is none: "
                "leave --mode out"
            )
        case Mode.LEADER if len(engines) > 1:
            names = ", ".join(model.name for model in engines)
            raise LaunchError(f"leader mode serves one {CPP_KIND} model, not {names}: "
                              "use orchestrator mode")  # fmt: skip
        case Mode.NODES:
            _check_nodes(launch)
            return
    for model in launch.models:
        _check_gpus(launch, model)
    _check_shares(launch, engines)


def _check_gpus(launch: Launch, model: LaunchedModel) -> None:
    ids = model.gpu_ids
    if ids is not None and len(ids) != model.world_size:
        raise LaunchError(
            f"{model.name} runs on {model.world_size} GPUs (TP {model.tp_size} x PP "
            f"{model.pp_size}) but is given {len(ids)}: {gpu_device_ids(ids)}"
        )
    needed = max(ids) + 1 if ids else model.world_size
    if model.kind in GPU_KINDS and needed > _num_gpus(launch):
        raise LaunchError(
            f"{model.name} needs {needed} GPUs, this machine has {_num_gpus(launch)}: build it "
            "with a smaller tp_size or pp_size"
        )


def _check_shares(launch: Launch, engines: Sequence[LaunchedModel]) -> None:
    """Models that nobody has placed would all take the first GPUs."""
    unplaced = [model.name for model in engines if model.gpu_ids is None]
    if len(engines) > 1 and unplaced and _num_gpus(launch) > 1:
        raise LaunchError(
            f"say which GPUs {', '.join(unplaced)} may use: "
            f"INFLIGHT_GPUS='{' '.join(f'{name}=0,1' for name in unplaced)}', for example"
        )


def _check_nodes(launch: Launch) -> None:
    (model, *others) = launch.models
    if others or model.kind != PYTORCH_KIND:
        raise LaunchError(
            f"several nodes serve one {PYTORCH_KIND} model; "
            + (
                f"{model.name} is {model.kind}"
                if not others
                else f"{len(launch.models)} were named"
            )
        )
    if launch.gpus_per_node is None or launch.num_nodes * launch.gpus_per_node != model.world_size:
        raise LaunchError(
            f"{model.name} runs on {model.world_size} GPUs (TP {model.tp_size} x PP "
            f"{model.pp_size}), not on {launch.num_nodes} nodes with "
            f"{launch.gpus_per_node or 'an unknown number'} each: say --nodes and --gpus"
        )


def _num_gpus(launch: Launch) -> int:
    if launch.gpus_per_node is not None:
        return launch.gpus_per_node
    return max(
        [max(model.gpu_ids) + 1 if model.gpu_ids else model.world_size for model in launch.models]
    )


def _leader(launch: Launch) -> list[str]:
    """Rank 0 serves all models; the others hold their part of the engine and never answer."""
    (engine,) = launch.models_of(CPP_KIND)
    argv = ["mpirun", "--allow-run-as-root", "-n", "1", *_server(launch)]
    for rank in range(1, engine.world_size):
        argv += [":", "-n", "1", *_server(launch, rank=rank, loaded=[engine.name])]
    return argv


def _orchestrator(launch: Launch) -> Command:
    return orchestrated(_server(launch), _num_gpus(launch))


def _nodes(launch: Launch) -> list[str]:
    starter = ["srun", "-N", str(launch.num_nodes), f"--ntasks-per-node={launch.gpus_per_node}"]
    return [*starter, "--mpi=pmix", "trtllm-llmapi-launch", *_server(launch)]


def _server(launch: Launch, rank: int = 0, loaded: Sequence[str] | None = None) -> list[str]:
    names = [model.name for model in launch.models] if loaded is None else loaded
    flags: dict[str, object] = {
        "model-repository": launch.repository,
        "model-control-mode": "explicit",
    }
    if launch.backends is not None:
        flags["backend-directory"] = launch.backends
    for protocol in ("grpc", "http", "metrics"):
        flags[f"{protocol}-address"] = launch.host
        flags[f"{protocol}-port"] = getattr(launch, f"{protocol}_port")
    # of this port and rank: no other server can have it
    flags["backend-config"] = f"python,shm-region-prefix-name=inflight_{launch.grpc_port}_{rank}_"
    flags |= _FLAGS
    if any(model.kind in GPU_KINDS for model in launch.models):
        flags |= _GPU_FLAGS
    argv = [f"--{name}" if value is None else f"--{name}={value}"
            for name, value in flags.items()]  # fmt: skip
    return [str(launch.binary), *argv, *(f"--load-model={name}" for name in names)]
