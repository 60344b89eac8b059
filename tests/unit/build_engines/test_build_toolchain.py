"""Finding and running TensorRT-LLM's tools, and what is said where they cannot run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from build_engines.errors import ToolError
from build_engines.gpu.local import local_gpus
from build_engines.tensorrt.tool_process import run_logged
from build_engines.tensorrt.toolchain import (
    IMAGE,
    InContainer,
    InPlace,
    Job,
    ToolSettings,
    find_toolchain,
)
from build_engines.tensorrt.xgrammar_info import write_tokenizer_info
from tests.fakes.trtllm.install import FakeTools, install_tools


def use(monkeypatch: pytest.MonkeyPatch, tools: FakeTools) -> None:
    for name, value in tools.environment.items():
        monkeypatch.setenv(name, value)


def job(tmp_path: Path, *command: str, reads: tuple[Path, ...] = ()) -> Job:
    return Job(command=command, reads=reads, writes=(tmp_path,), cwd=tmp_path, log=tmp_path / "log")


def test_installed_tools_come_before_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, install_tools(tmp_path / "here"))
    assert isinstance(find_toolchain(ToolSettings()), InPlace)
    use(monkeypatch, install_tools(tmp_path / "there", in_place=False))
    assert isinstance(find_toolchain(ToolSettings()), InContainer)


def test_python_is_the_one_that_the_tools_are_installed_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, install_tools(tmp_path / "here"))
    shown = InPlace(settings=ToolSettings()).show(job(tmp_path, "python3", "script.py"))
    assert shown == (sys.executable, "script.py")


def test_without_docker_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="no docker here: install Docker and the NVIDIA Container"):
        find_toolchain(ToolSettings()).open(tmp_path, tmp_path / "log")


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, install_tools(tmp_path / "here", version="1.1.0"))
    with pytest.raises(ToolError, match=r"TensorRT-LLM 1\.1\.0 is installed.*26\.07-trtllm"):
        find_toolchain(ToolSettings()).open(tmp_path, tmp_path / "log")


def test_missing_examples_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, install_tools(tmp_path / "here"))
    settings = ToolSettings(examples=tmp_path / "nowhere")
    with pytest.raises(ToolError, match=r"not in .*nowhere: check out the tag v1\.2\.1"):
        find_toolchain(settings).open(tmp_path, tmp_path / "log")


def test_the_examples_that_are_named_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for in_place in (True, False):
        tools = install_tools(tmp_path / str(in_place), in_place=in_place)
        use(monkeypatch, tools)
        monkeypatch.setenv("INFLIGHT_TRTLLM_EXAMPLES", str(tools.examples))
        settings = ToolSettings.from_env()
        assert find_toolchain(settings).open(tmp_path, tmp_path / "log") == tools.examples


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("could not select device driver with capabilities: [[gpu]]", "Container Toolkit"),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock", "start its daemon"),
        ("Unable to find image 'x'\npull access denied for x", "pull it by hand"),
        ("dial tcp: lookup nvcr.io: no such host", "without a network"),
        ("invalid reference format", "could not start .*invalid reference format"),
    ],
)
def test_what_docker_says_becomes_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, advice: str
) -> None:
    use(monkeypatch, install_tools(tmp_path / "there", in_place=False))
    monkeypatch.setenv("FAKE_DOCKER_PROBLEM", said)
    with pytest.raises(ToolError, match=advice) as caught:
        find_toolchain(ToolSettings()).open(tmp_path, tmp_path / "log")
    assert "\n" not in str(caught.value)


def test_the_container_gets_gpus_folders_and_no_network(tmp_path: Path) -> None:
    cache, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    for folder in (cache, snapshot):
        folder.mkdir()
    (cache / "abc").write_text("weights")
    (snapshot / "model.safetensors").symlink_to(cache / "abc")
    work = tmp_path / "work"
    container = InContainer(settings=ToolSettings(), user=(1000, 1001))
    command = container.show(
        Job(
            command=("trtllm-build",),
            reads=(snapshot,),
            writes=(work / "build.partial",),
            cwd=work,
            log=work / "log",
        )
    )
    words = " ".join(command)
    assert words.startswith("docker run --rm --init --name inflight-build-")
    assert words.endswith(f"--workdir {work} {IMAGE} trtllm-build")
    for flag in (
        "--gpus all",
        "--network none",
        "--shm-size 2g",
        "--ulimit memlock=-1",
        "--user 1000:1001",
        "--env HF_HUB_OFFLINE=1",
        f"--volume {cache}:{cache}:ro",
        f"--volume {snapshot}:{snapshot}:ro",
        f"--volume {work}:{work}",
    ):
        assert flag in words


def test_a_container_that_a_killed_build_left_is_removed_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, install_tools(tmp_path / "there", in_place=False))
    monkeypatch.setenv("FAKE_DOCKER_CALLS", str(tmp_path / "calls"))
    find_toolchain(ToolSettings()).run(job(tmp_path, "true"))
    first, second = (tmp_path / "calls").read_text().splitlines()
    name = first.split()[-1]
    assert first == f"rm --force {name}"
    assert f"--name {name}" in second


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; print('a'); print('b'); sys.exit(3)", r"failed \(exit 3\): b "),
        ("import os; os.kill(os.getpid(), 9)", "was killed, probably for want of memory"),
        ("import os; os.kill(os.getpid(), 11)", "ended by signal 11"),
        ("import sys; sys.exit(137)", "want of memory"),
    ],
)
def test_how_a_tool_ended_is_said(tmp_path: Path, code: str, words: str) -> None:
    command = (sys.executable, "-c", code)
    failure = run_logged(command, cwd=tmp_path, env={}, log=tmp_path / "log")
    assert failure is not None
    message = failure.message(command)
    assert "\n" not in message
    with pytest.raises(ToolError, match=words):
        raise ToolError(message)


def test_a_program_that_is_not_there_is_said(tmp_path: Path) -> None:
    failure = run_logged(("no-such-tool",), cwd=tmp_path, env={}, log=tmp_path / "log")
    assert failure is not None
    assert "No such file" in failure.message(("no-such-tool",))


def test_an_interrupt_ends_the_tool_and_what_it_started(tmp_path: Path) -> None:
    child = "import subprocess, sys, time; p = subprocess.Popen(['sleep', '60']); "
    child += "open(sys.argv[1], 'w').write(str(p.pid)); time.sleep(60)"
    pid_file = tmp_path / "pid"

    def interrupt() -> None:
        deadline = time.monotonic() + 20
        while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    # A shell lets what it runs in the background ignore it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt).start()
    command = (sys.executable, "-c", child, str(pid_file))
    try:
        with pytest.raises(KeyboardInterrupt):
            run_logged(command, cwd=tmp_path, env={}, log=tmp_path / "l")
    finally:
        signal.signal(signal.SIGINT, before)
    grandchild = int(pid_file.read_text())
    deadline = time.monotonic() + 10
    while subprocess.run(["kill", "-0", str(grandchild)], capture_output=True).returncode == 0:
        state = Path(f"/proc/{grandchild}/stat")
        if state.exists() and state.read_text().split(") ")[1][0] == "Z":
            break
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_gpus_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert local_gpus() == []
    listed = "NVIDIA A100-SXM4-80GB, 8.0, 81920\nNVIDIA H100 80GB HBM3, 9.0, 81559\n"
    use(monkeypatch, install_tools(tmp_path / "tools", gpus=listed))
    ampere, hopper = local_gpus()
    assert (ampere.name, ampere.sm, ampere.memory_bytes) == (
        "NVIDIA A100-SXM4-80GB", 80, 81920 << 20,
    )  # fmt: skip
    assert (hopper.sm, hopper.bandwidth_bytes_s) == (90, 3350 * 10**9)


def test_grammars_get_the_vocabulary_by_id(tmp_path: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, models

    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    tokenizer.add_special_tokens([AddedToken("<end>", special=True)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    write_tokenizer_info(tmp_path / "tokenizer.json", [2], 6, tmp_path / "info.json")
    found = json.loads((tmp_path / "info.json").read_text())
    assert found.keys() == {"encoded_vocab", "tokenizer_str", "stop_token_ids"}
    assert found["encoded_vocab"] == ["a", "b", "<end>", "", "", ""]  # as long as the engine's
    assert found["stop_token_ids"] == [2]
    assert json.loads(found["tokenizer_str"])["model"]["vocab"]["a"] == 0
