"""Finds a Triton and makes it run here: files and environment.

It is the one of a setting, else NVIDIA's where this runs inside their image, else the one of the
nvidia-pytriton wheel.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class TritonStartError(Exception):
    """The embedded Triton cannot run; the message is one line and says what to do."""


NVIDIA_BINARY = Path("/opt/tritonserver/bin/tritonserver")  # of NVIDIA's images


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """The parts of a Triton that are used."""

    binary: Path
    python_backend: Path  # the folder with libtriton_python.so
    stub: Path  # of the running Python version
    libraries: Path | None = None  # what the binary needs besides the system's
    backends: Path | None = None  # all backends, ready to be used; None: only Python's, in parts


def find_installation(binary: Path | None = None) -> Installation:
    """Find the Triton to start; `binary` is the one that a setting names.

    Raises:
        TritonStartError: it is not there, or has no Python backend for this Python.
    """
    if binary is not None:
        return _installed_at(binary)
    return _installed_at(NVIDIA_BINARY) if NVIDIA_BINARY.is_file() else _in_the_wheel()


def _installed_at(binary: Path) -> Installation:
    """A Triton as NVIDIA's images lay it out: bin/ and backends/ side by side."""
    backends = binary.parent.parent / "backends"
    python_backend = backends / "python"
    stub = python_backend / "triton_python_backend_stub"
    for path in (binary, stub):
        if not path.is_file():
            raise TritonStartError(
                f"there is no {path}: INFLIGHT_TRITON_BINARY names a tritonserver"
            )
    return Installation(binary=binary, python_backend=python_backend, stub=stub, backends=backends)


def _in_the_wheel() -> Installation:
    """Without importing it: that would start things."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise TritonStartError("the package nvidia-pytriton is not installed")
    package = Path(spec.origin).parent
    server = package / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = Installation(
        binary=server / "bin" / "tritonserver",
        libraries=package.parent / "nvidia_pytriton.libs",
        python_backend=server / "backends" / "python",
        stub=server / "python_backend_stubs" / version / "triton_python_backend_stub",
    )
    if not found.stub.is_file():
        raise TritonStartError(f"nvidia-pytriton has no Python backend for Python {version}")
    if not found.binary.is_file():
        raise TritonStartError(f"nvidia-pytriton has no tritonserver at {found.binary}")
    return found


def make_backend_directory(installation: Installation, directory: Path) -> Path:
    """Where the backends are: put the wheel's Python backend and the stub of this Python together.

    The wheel has them apart, and its own folder may not be ours to write to.
    """
    if installation.backends is not None:
        return installation.backends
    target = directory / "python"
    target.mkdir(parents=True, exist_ok=True)
    sources = (
        installation.python_backend / "libtriton_python.so",
        installation.python_backend / "triton_python_backend_utils.py",
        installation.stub,
    )
    for source in sources:
        new = target / f".{source.name}.{os.getpid()}"
        new.unlink(missing_ok=True)
        new.symlink_to(source)
        new.replace(target / source.name)
    return directory


def triton_environment(
    installation: Installation, environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment in which the binary and the stubs find what they need.

    The stub ignores PYTHONPATH: it takes the python3 that is first in PATH for itself, and with
    it that one's packages. A wrong one brings numpy 2, with which every output is empty.
    """
    env = dict(os.environ if environ is None else environ)
    # not resolved: a virtual environment's python3 is a link to the one it was made of
    env["PATH"] = f"{Path(sys.executable).parent}:{env.get('PATH', os.defpath)}"
    env.pop("PYTHONHOME", None)
    libraries = [str(sysconfig.get_config_var("LIBDIR"))]
    if installation.libraries is not None:
        libraries.insert(0, str(installation.libraries))
    if env.get("LD_LIBRARY_PATH"):
        libraries.append(env["LD_LIBRARY_PATH"])
    env["LD_LIBRARY_PATH"] = ":".join(libraries)
    return env


def check_loadable(installation: Installation, env: Mapping[str, str]) -> None:
    """See that the binary and the stub find their shared libraries.

    Raises:
        TritonStartError: one is missing; for libpython with the Debian package that has it.
    """
    ldd = shutil.which("ldd")
    if ldd is None:
        return
    for program in (installation.binary, installation.stub):
        listing = subprocess.run(
            [ldd, program], env=env, capture_output=True, text=True, check=False
        )
        missing = [line.split()[0] for line in listing.stdout.splitlines() if "not found" in line]
        if missing:
            raise TritonStartError(_advice(program, missing))


def _advice(program: Path, missing: list[str]) -> str:
    text = f"{program.name} needs {', '.join(missing)}"
    if any(name.startswith("libpython") for name in missing):
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        text += f"; on Debian and Ubuntu: apt-get install libpython{version}"
    return text
