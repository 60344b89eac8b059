"""What can be held of docker/ without a container engine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from compose_spec import PyCompose
from dockerfile_parse import DockerfileParser

from build_engines.tensorrt.toolchain import IMAGE
from frontend.serve import ServeError, check_access
from frontend.settings import PREFIX, Settings, load_settings
from tests.unit.command_lines import check_command

PROJECT = Path(__file__).parents[2]
DOCKER = PROJECT / "docker"
DOCKERFILES = ("frontend.Dockerfile", "triton.Dockerfile")
SETTINGS = {f"{PREFIX}{field.name.upper()}" for field in fields(Settings)}
# where the images' own settings are for one of our containers, and those of compose.yaml itself
OTHERS = {"INFLIGHT_UID", "INFLIGHT_GID"}

Instruction = tuple[str, str]


def tool(name: str) -> Path:
    return Path(sys.executable).parent / name


def instructions(name: str) -> list[Instruction]:
    parser = DockerfileParser(path=str(DOCKER / name))
    return [(one["instruction"], one["value"]) for one in parser.structure]


def values(name: str, instruction: str) -> list[str]:
    return [value for found, value in instructions(name) if found == instruction]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_linter_of_dockerfiles_finds_nothing(name: str) -> None:
    subprocess.run([tool("hadolint"), DOCKER / name], check=True)


def test_a_linter_of_shell_scripts_finds_nothing() -> None:
    scripts = [
        path
        for folder in (PROJECT / "scripts", DOCKER)
        for path in sorted(folder.iterdir())
        if path.is_file()
        and path.read_bytes().startswith((b"#!/usr/bin/env bash", b"# shellcheck"))
    ]
    assert DOCKER / "build-engine" in scripts
    assert len(scripts) >= 5
    options = ("--external-sources", "--severity=warning")
    subprocess.run([tool("shellcheck"), *options, *map(str, scripts)], check=True, cwd=PROJECT)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_stands_on_a_pinned_one_and_is_not_run_by_root(name: str) -> None:
    for base in values(name, "FROM"):
        assert re.search(r":\d+\.\d+(\.\d+)?-[\w-]+", base), base
    last_stage = instructions(name)
    (user,) = [value for found, value in last_stage if found == "USER"]
    assert user == "1000:1000"
    assert len(values(name, "HEALTHCHECK")) == 1


def test_engines_are_built_and_served_by_the_same_image() -> None:
    assert values("triton.Dockerfile", "FROM") == [IMAGE]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_is_copied_is_there_and_is_sent_to_the_builder(name: str) -> None:
    ignored = (PROJECT / ".dockerignore").read_text().split("\n")
    kept = [line[1:] for line in ignored if line.startswith("!")]
    assert "*" in ignored  # else secrets and caches would be sent, too
    for value in values(name, "COPY"):
        *sources, _ = [word for word in value.split() if not word.startswith("--")]
        for source in sources if "--from=" not in value else []:
            assert (PROJECT / source).exists(), source
            assert any(fnmatch(source, one) for one in kept), source


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_has_all_our_packages_and_what_they_import(name: str) -> None:
    copied = " ".join(values(name, "COPY"))
    for package in ("frontend", "triton_models", "build_engines"):
        assert f" /opt/inflight/{package}" in copied
    assert "docker/frontend.lock" in copied
    assert any("--require-hashes" in run for run in values(name, "RUN"))


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_an_image_runs_is_a_command_of_ours(name: str) -> None:
    entry = [word for value in values(name, "ENTRYPOINT") for word in json.loads(value)]
    (command,) = [json.loads(value) for value in values(name, "CMD")]
    words = [*entry, *command]
    assert words[1:3] == ["-m", "frontend"]
    check_command(words[3:])


def locked(path: Path) -> dict[str, list[str]]:
    """Name -> versions (which may differ by Python's version)."""
    found: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", path.read_text(), re.MULTILINE):
        found.setdefault(name.lower().replace("_", "-"), []).append(version)
    return found


def test_the_images_have_the_versions_that_are_tested() -> None:
    everything = locked(PROJECT / "requirements.lock")
    image = locked(DOCKER / "frontend.lock")
    assert {name: everything.get(name) for name in image} == image
    assert "nvidia-pytriton" not in image
    assert "openvino" not in image


def test_the_frontend_runs_with_what_its_image_has() -> None:
    """All of it is imported where whatever is not in the image's lock cannot be."""
    image = locked(DOCKER / "frontend.lock")
    missing = sorted(
        module
        for module, packages in metadata.packages_distributions().items()
        if not any(one.lower().replace("_", "-") in image for one in packages)
    )
    assert "openvino" in missing
    script = (
        "import importlib, pkgutil, sys\n"
        f"for name in {missing!r}: sys.modules[name] = None\n"
        "import frontend, build_engines.pipeline, build_engines.verify.run, build_engines.cli\n"
        "for module in pkgutil.walk_packages(frontend.__path__, 'frontend.'):\n"
        "    if not module.name.startswith(('frontend.bench.', 'frontend.__main__')):\n"
        "        importlib.import_module(module.name)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=PROJECT)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """compose.yaml, valid by the Compose Specification, with its variables' defaults."""
    text = (DOCKER / "compose.yaml").read_text()
    text = text.replace("$HOME", "/home/me")
    filled = re.sub(
        r"\$\{\w+(?::-([^}]*)|:\?[^}]*)\}",
        lambda match: "x" if match[1] is None else match[1] or '""',
        text,
    )
    assert "$" not in filled
    found: dict[str, Any] = PyCompose.from_yaml(filled).to_dict()
    return found


def test_triton_gets_the_gpus_the_memory_and_no_port(compose: dict[str, Any]) -> None:
    triton = compose["services"]["triton"]
    (device,) = triton["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert triton["shm_size"] in ("2gb", "2GB", 2 * 2**30)
    assert triton["ulimits"] == {"memlock": -1, "stack": 67108864}
    assert "ports" not in triton
    assert compose["networks"]["engines"]["internal"] is True


def test_the_frontend_waits_for_a_healthy_triton_and_shares_its_home(
    compose: dict[str, Any],
) -> None:
    frontend, triton = compose["services"]["frontend"], compose["services"]["triton"]
    assert frontend["depends_on"]["triton"]["condition"] == "service_healthy"
    assert frontend["environment"]["INFLIGHT_TRITON_URL"] == "triton:8001"
    assert frontend["volumes"] == triton["volumes"]
    assert frontend["user"] == triton["user"] == "1000:1000"


def test_every_variable_is_a_setting(compose: dict[str, Any]) -> None:
    text = (DOCKER / "compose.yaml").read_text()
    texts = [text, *("\n".join(values(name, "ENV")) for name in DOCKERFILES)]
    used = {name for one in texts for name in re.findall(r"INFLIGHT_\w+", one)}
    assert used - SETTINGS == OTHERS
    for service in compose["services"].values():
        assert service["environment"].keys() <= SETTINGS


def test_the_frontend_asks_for_keys_and_may_be_told_not_to(compose: dict[str, Any]) -> None:
    """It listens on all addresses, so it would not start without either."""
    environment: dict[str, str] = compose["services"]["frontend"]["environment"]
    said = {name: str(value) for name, value in environment.items()}
    (command,) = [json.loads(value) for value in values("frontend.Dockerfile", "CMD")]
    host = command[command.index("--host") + 1]

    def check(**variables: str) -> None:
        check_access(load_settings({"host": host}, environ={**said, **variables}))

    check()
    with pytest.raises(ServeError):
        check(INFLIGHT_AUTHENTICATION="off")
    check(INFLIGHT_AUTHENTICATION="off", INFLIGHT_LISTEN_WITHOUT_AUTHENTICATION="true")


def test_commands_in_comments_are_taken() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    (words,) = re.findall(r"run --rm --no-deps frontend (.*)", text)
    check_command(words.split())


def test_the_engine_builder_runs_our_build_command(tmp_path: Path) -> None:
    """A stand-in for docker writes down what it is told; paths are given to the container."""
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/$1\n')
    docker.chmod(0o755)
    checkpoint, texts = (tmp_path / name for name in ("checkpoint", "texts"))
    for folder in (checkpoint, texts):
        folder.mkdir()
    (checkpoint / "my.toml").touch()
    subprocess.run(
        [DOCKER / "build-engine", "llama-2-7b-chat", "--variant", "fp8",
         "--checkpoint", "checkpoint", "--spec", "checkpoint/my.toml"],
        check=True,
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path),
             "INFLIGHT_CALIBRATION_DATA": str(texts)},
    )  # fmt: skip
    built = (tmp_path / "build").read_text().splitlines()
    assert built == [
        "build", "--file", "docker/triton.Dockerfile", "--tag", "inflight-triton:0.1.0", ".",
    ]  # fmt: skip
    told = (tmp_path / "run").read_text().splitlines()
    assert told[:4] == ["run", "--rm", "--gpus", "all"]
    assert f"{tmp_path}/.local/share/inflight:/var/lib/inflight" in told
    for folder in (checkpoint, texts):  # once: docker refuses to show one twice
        assert told.count(f"{folder}:{folder}:ro") == 1
    assert f"INFLIGHT_CALIBRATION_DATA={texts}" in told
    words = told[told.index("inflight-triton:0.1.0") + 1 :]
    assert words[:3] == ["python3", "-m", "frontend"]
    check_command(words[3:])
