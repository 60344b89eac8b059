"""The command lines of `inflight triton`, compared with ones written out."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from build_engines.errors import LaunchError
from build_engines.gpu.launch import (
    Command,
    Launch,
    LaunchedModel,
    Mode,
    command,
    gpu_device_ids,
    parse_gpus,
    starter,
)
from frontend.triton.installation import find_installation, triton_environment

# What every tritonserver gets, rank and models left open.
SERVER = (
    "/opt/tritonserver/bin/tritonserver --model-repository=/home/repository "
    "--model-control-mode=explicit "
    "--grpc-address=127.0.0.1 --grpc-port=8001 --http-address=127.0.0.1 --http-port=8003 "
    "--metrics-address=127.0.0.1 --metrics-port=8002 "
    "--backend-config=python,shm-region-prefix-name=inflight_8001_{rank}_ "
    "--disable-auto-complete-config --exit-on-error=false --strict-readiness=false "
    "--grpc-infer-allocation-pool-size=256 "
    "--grpc-keepalive-time=60000 --grpc-keepalive-timeout=20000 "
    "--grpc-keepalive-permit-without-calls=1 --grpc-http2-max-pings-without-data=0 "
    "--grpc-http2-min-recv-ping-interval-without-data=10000 "
    "--metrics-config=histogram_latencies=true --exit-timeout-secs=60 {gpu}{models}"
)
ORCHESTRATED = "--pinned-memory-pool-byte-size=0 --enable-peer-access=false"


def engine(
    name: str, tp: int = 1, pp: int = 1, gpus: tuple[int, ...] | None = None
) -> LaunchedModel:
    return LaunchedModel(name=name, kind="tensorrt_llm", tp_size=tp, pp_size=pp, gpu_ids=gpus)


def llm(name: str, tp: int = 1, pp: int = 1) -> LaunchedModel:
    return LaunchedModel(name=name, kind="llm_api", tp_size=tp, pp_size=pp)


def launch(*models: LaunchedModel, **values: object) -> Launch:
    base = Launch(models=models, repository=Path("/home/repository"))
    return replace(base, **values)  # type: ignore[arg-type]


def server(*names: str, rank: int = 0, gpu: str = "--grpc-infer-thread-count=4 ") -> str:
    models = " ".join(f"--load-model={name}" for name in names)
    return SERVER.format(rank=rank, gpu=gpu, models=models)


def line(found: Command) -> str:
    return " ".join(found.argv)


def test_an_engine_on_one_gpu() -> None:
    found = command(launch(engine("llama")))
    assert line(found) == f"mpirun --allow-run-as-root -n 1 {server('llama')}"
    assert found.env == {}


def test_leader_mode_has_a_server_a_rank_and_the_others_load_the_engine_alone() -> None:
    models = (engine("llama", tp=2), LaunchedModel(name="embed", kind="embedding"))
    found = command(launch(*models, mode=Mode.LEADER))
    assert line(found) == (
        f"mpirun --allow-run-as-root -n 1 {server('llama', 'embed')}"
        f" : -n 1 {server('llama', rank=1)}"
    )


def test_pipeline_parallelism_needs_a_rank_for_each_part_too() -> None:
    found = command(launch(engine("llama", tp=2, pp=2), mode=Mode.LEADER))
    assert line(found) == f"mpirun --allow-run-as-root -n 1 {server('llama')}" + "".join(
        f" : -n 1 {server('llama', rank=rank)}" for rank in (1, 2, 3)
    )


def test_an_engine_on_several_gpus_is_orchestrated_so_that_it_can_be_loaded_and_unloaded() -> None:
    found = command(launch(engine("llama", tp=2)))
    assert line(found) == (
        f"mpirun --allow-run-as-root -n 1 {server('llama')} {ORCHESTRATED} "
        "--cuda-memory-pool-byte-size=0:0 --cuda-memory-pool-byte-size=1:0"
    )
    assert found.env == {"TRTLLM_ORCHESTRATOR": "1", "TRTLLM_ORCHESTRATOR_SPAWN_PROCESSES": "1"}


def test_several_engines_are_orchestrated_on_the_gpus_that_each_was_given() -> None:
    models = (engine("llama", tp=2, gpus=(0, 1)), engine("qwen", gpus=(2,)))
    found = command(launch(*models, gpus_per_node=4))
    assert line(found) == (
        f"mpirun --allow-run-as-root -n 1 {server('llama', 'qwen')} {ORCHESTRATED} "
        + " ".join(f"--cuda-memory-pool-byte-size={gpu}:0" for gpu in range(4))
    )


def test_the_llm_api_starts_its_own_processes_on_one_machine() -> None:
    assert line(command(launch(llm("gpt-oss", tp=4)))) == server("gpt-oss")


def test_the_llm_api_on_several_machines() -> None:
    found = command(launch(llm("deepseek", tp=8, pp=2), num_nodes=2, gpus_per_node=8))
    assert line(found) == (
        "srun -N 2 --ntasks-per-node=8 --mpi=pmix trtllm-llmapi-launch " + server("deepseek")
    )


def test_without_gpus_it_is_one_plain_server() -> None:
    cpu = LaunchedModel(name="smollm2", kind="cpu")
    assert line(command(launch(cpu))) == server("smollm2", gpu="")


def test_the_address_and_the_ports_are_the_users() -> None:
    found = line(command(launch(llm("a"), host="0.0.0.0", grpc_port=9001, backends=Path("/b"))))
    assert "--grpc-address=0.0.0.0 --grpc-port=9001" in found
    assert "inflight_9001_0_" in found
    assert "--backend-directory=/b" in found


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (launch(), "there is no model to serve"),
        (launch(engine("a"), llm("b")), "serve them by two Tritons"),
        (
            launch(engine("a", gpus=(0,)), engine("b", gpus=(1,)), mode=Mode.LEADER),
            "one tensorrt_llm model, not a, b: use orchestrator mode",
        ),
        (launch(engine("a"), mode=Mode.PLAIN), "needs mode leader or orchestrator"),
        (launch(llm("a"), mode=Mode.ORCHESTRATOR), "for tensorrt_llm models, a is none"),
        (launch(engine("a", tp=4), gpus_per_node=2), "a needs 4 GPUs, this machine has 2"),
        (launch(llm("a", tp=4), gpus_per_node=2), "a needs 4 GPUs, this machine has 2"),
        (launch(engine("a", tp=2, gpus=(0, 1, 2))), r"on 2 GPUs \(TP 2 x PP 1\) but is given 3"),
        (launch(engine("a", gpus=(7,)), gpus_per_node=4), "a needs 8 GPUs, this machine has 4"),
        (
            launch(engine("a", tp=2), engine("b", gpus=(2,)), gpus_per_node=4),
            "say which GPUs a may use: INFLIGHT_GPUS='a=0,1'",
        ),
        (
            launch(engine("a", tp=16), num_nodes=2, gpus_per_node=8),
            "several nodes serve one llm_api model; a is tensorrt_llm",
        ),
        (
            launch(llm("a", tp=8), llm("b", tp=8), num_nodes=2, gpus_per_node=8),
            "several nodes serve one llm_api model; 2 were named",
        ),
        (
            launch(llm("a", tp=8), num_nodes=2, gpus_per_node=8),
            "on 8 GPUs .*, not on 2 nodes with 8 each",
        ),
        (launch(llm("a", tp=8), num_nodes=2), "2 nodes with an unknown number each"),
        (
            launch(engine("a", tp=2), num_nodes=2, mode=Mode.LEADER),
            "mode leader is of one machine",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_what_would(refused: Launch, reason: str) -> None:
    with pytest.raises(LaunchError, match=reason):
        command(refused)


def test_one_gpu_may_be_shared_without_saying_so() -> None:
    assert command(launch(engine("a"), engine("b"), gpus_per_node=1)).argv


def test_gpus_of_models_are_read_and_written() -> None:
    placed = parse_gpus("llama=0,1 qwen=2")
    assert placed == {"llama": (0, 1), "qwen": (2,)}
    assert gpu_device_ids(placed["llama"]) == "0,1"
    assert gpu_device_ids(None) == ""
    assert parse_gpus("") == {}


@pytest.mark.parametrize("text", ["llama", "llama=", "=0", "llama=0,0", "a=0 a=1", "a=x"])
def test_gpus_that_say_nothing_are_refused(text: str) -> None:
    with pytest.raises(LaunchError, match="does not say a model's GPUs: write NAME=0,1"):
        parse_gpus(text)


def test_a_server_of_its_own_is_orchestrated_where_an_engine_needs_it() -> None:
    cpu = LaunchedModel(name="c", kind="cpu")
    for models in ([cpu], [cpu, llm("a", tp=4)], [cpu, engine("a")]):
        wrap, variables = starter(models)
        assert (wrap(["t", "-x"]), variables) == (["t", "-x"], {})
    for models in ([engine("a", tp=2)], [engine("a"), engine("b")]):
        wrap, variables = starter(models, 2)
        assert wrap(["t", "-x"])[:6] == ["mpirun", "--allow-run-as-root", "-n", "1", "t", "-x"]
        assert variables["TRTLLM_ORCHESTRATOR"] == "1"


def test_what_is_shown_can_be_pasted_into_a_shell() -> None:
    shown = Command(argv=["mpirun", "--a=b c"], env={"X": "1"}).shown()
    assert shown == "X=1 \\\n  mpirun \\\n  '--a=b c'"


@pytest.mark.parametrize("model", [engine("a", tp=2), llm("a"), replace(llm("a"), kind="cpu")])
def test_triton_has_every_flag(model: LaunchedModel) -> None:
    """The wheel's own, which is older than NVIDIA's image and lacks one that is not for it."""
    argv = command(launch(model)).argv
    given = {word.partition("=")[0] for word in argv if word.startswith("--")}
    starter = {"--allow-run-as-root", "--grpc-infer-thread-count"}
    assert given - starter - known_flags() == set()


@cache
def known_flags() -> set[str]:
    installation = find_installation()
    listing = subprocess.run(
        [installation.binary, "--help"],
        env=triton_environment(installation),
        capture_output=True,
        text=True,
        check=False,
    )
    return set(re.findall(r"^  (--[a-z0-9-]+)", listing.stdout + listing.stderr, re.MULTILINE))
