"""A stand-in for `docker`: runs the command here, and only with what a container would see of it.

Each file that the command names must be in a mounted folder, what links point to included; what it
writes must be in one that is not read-only. FAKE_DOCKER_PROBLEM is what it fails with.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

VALUE_FLAGS = {"--name", "--gpus", "--network", "--shm-size", "--ulimit", "--user", "--env",
               "--volume", "--workdir"}  # fmt: skip
SWITCHES = {"--rm", "--init"}
OUTPUTS = {"--output_dir", "--output-model-dir"}


def main() -> None:
    """`docker run` and `docker rm --force NAME`."""
    _, verb, *rest = sys.argv
    if calls := os.environ.get("FAKE_DOCKER_CALLS"):
        with Path(calls).open("a") as file:
            file.write(" ".join(sys.argv[1:]) + "\n")
    if verb == "rm":
        sys.exit(f"Error response from daemon: No such container: {rest[-1]}")
    if problem := os.environ.get("FAKE_DOCKER_PROBLEM"):
        sys.stderr.write(problem + "\n")
        sys.exit(125)
    flags, image, command = _parse(rest)
    if not image.startswith("nvcr.io/nvidia/tritonserver:26.07"):
        sys.stderr.write(f"Unable to find image; pull access denied for {image}\n")
        sys.exit(125)
    _check_visible(flags["--volume"], command)
    environment = dict(pair.split("=", 1) for pair in flags["--env"])
    if flags["--gpus"] != ["all"] or flags["--network"] != ["none"]:
        sys.exit("the container must have GPUs and no network")
    if command[0] == "python3":
        command[0] = sys.executable
    finished = subprocess.run(
        command, cwd=flags["--workdir"][0], env={**os.environ, **environment}, check=False
    )
    sys.exit(finished.returncode)


def _parse(words: list[str]) -> tuple[dict[str, list[str]], str, list[str]]:
    flags: dict[str, list[str]] = {name: [] for name in VALUE_FLAGS}
    while words and words[0].startswith("--"):
        name = words.pop(0)
        if name in VALUE_FLAGS:
            flags[name].append(words.pop(0))
        elif name not in SWITCHES:
            sys.exit(f"unknown flag: {name}")
    return flags, words[0], words[1:]


def _check_visible(volumes: list[str], command: list[str]) -> None:
    mounted = {}
    for volume in volumes:
        outside, inside, *mode = volume.split(":")
        assert outside == inside
        mounted[Path(outside)] = mode == ["ro"]
    for before, word in itertools.pairwise(command):
        if not word.startswith("/") or not Path(word).exists():
            continue
        own = [Path(word), *(path for path in Path(word).rglob("*") if path.is_symlink())]
        for path in own:
            at = [root for root in mounted if path.resolve().is_relative_to(root.resolve())]
            if not at:
                sys.exit(f"FileNotFoundError: {path} is not in the container")
            if before in OUTPUTS and all(mounted[root] for root in at):
                sys.exit(f"Read-only file system: {path}")


if __name__ == "__main__":
    main()
