"""What may import what, and what only one place may do (STYLE: imports point one way)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PACKAGES = ("frontend", "triton_models", "build_engines")

# Who may use a library: a folder ends in a slash.
ALLOWED = {
    "sanic": ("frontend/api/", "frontend/app.py", "frontend/context.py", "frontend/worker.py"),
    "grpc": ("frontend/triton/",),
    "google": ("frontend/triton/",),
    "tritonclient": ("frontend/triton/",),
    "hpack": ("frontend/triton/",),
    "triton_models.grammars": ("frontend/guides.py",),
    "numpy": ("frontend/triton/",),
    "transformers": ("frontend/text/tokenizer.py",),
    "tokenizers": ("frontend/text/tokenizer.py",),
    "prometheus_client": ("frontend/telemetry/metrics.py", "frontend/processes.py"),
    "sqlalchemy": ("frontend/store/",),
    "alembic": ("frontend/store/",),
    "jwt": ("frontend/access/tokens.py", "frontend/access/verification_keys.py"),
    "cryptography": ("frontend/access/verification_keys.py",),
    "aiohttp": ("frontend/access/jwks.py",),
    "lmdb": ("frontend/limits/lmdb_table.py",),
    "redis": ("frontend/limits/redis_store.py",),
    "typer": (
        "frontend/cli.py",
        "frontend/triton_command.py",
        "frontend/bench/",
        "frontend/manage/",
    ),
    "rich": ("frontend/cli.py", "frontend/serve.py", "frontend/bench/", "frontend/manage/"),
}
# Who may read the environment, and why.
ENVIRONMENT = {
    "build_engines/tensorrt/toolchain.py": "where its examples, image and calibration data are",
    "build_engines/tensorrt/tool_process.py": "hands its own on to the tools",
    "frontend/settings.py": "the one reader of settings",
    "frontend/processes.py": "hands its own on to the workers",
    "frontend/telemetry/metrics.py": "prometheus-client's PROMETHEUS_MULTIPROC_DIR",
    "frontend/triton/installation.py": "hands its own on to Triton",
    "frontend/bench/servers.py": "hands its own on to the server that it measures",
    "triton_models/llama_cpp/abi.py": "tells libgomp how threads wait, before it is loaded",
    "build_engines/verify/oracle.py": "hands its own on to the unquantized model's process",
    "build_engines/cpu/optimum_recipe.py": "which Python it is that exports to OpenVINO",
    "build_engines/verify/texts.py": "quietens transformers before it is imported",
    "frontend/bench/command.py": "quietens transformers before it is imported",
}
PURE = ("frontend/text/", "frontend/protocol/", "frontend/types.py", "frontend/errors.py",
        "frontend/messages.py", "frontend/limits/buckets.py", "frontend/limits/gcra.py",
        "frontend/limits/headers.py", "frontend/usage/record.py", "frontend/usage/prices.py",
        "frontend/usage/sums.py")  # fmt: skip


def sources(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((PROJECT / package).rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


def imports_of(path: Path) -> set[str]:
    """Full names of all that a file imports, those inside functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def uses(path: Path, module: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for name in imports_of(path))


def is_among(path: Path, places: tuple[str, ...]) -> bool:
    return any(
        name_of(path).startswith(p) if p.endswith("/") else name_of(path) == p for p in places
    )


def offenders(places: list[Path], *modules: str) -> list[str]:
    return [f"{name_of(path)} -> {m}" for path in places for m in modules if uses(path, m)]


@pytest.mark.parametrize("library", ALLOWED)
def test_a_library_is_used_in_its_place_only(library: str) -> None:
    others = [path for path in sources("frontend") if not is_among(path, ALLOWED[library])]
    assert offenders(others, library) == []


def test_the_engines_and_builders_know_nothing_of_the_frontend() -> None:
    # verify serves a staged model as the frontend will, and asks it as the frontend does
    own = [path for path in sources("build_engines") if "verify" not in path.parts]
    assert offenders(sources("triton_models") + own, "frontend", "sanic") == []
    inner = ("frontend.api", "frontend.app", "frontend.serve", "frontend.cli", "frontend.worker",
             "frontend.context", "frontend.prepare", "frontend.generate", "sanic")  # fmt: skip
    assert offenders(sources("build_engines"), *inner) == []
    assert offenders(sources("triton_models"), "build_engines") == []


@pytest.mark.parametrize(
    ("library", "place"),
    [
        ("tensorrt_llm", "triton_models/llm_api/upstream.py"),
        ("modelopt", "build_engines/llm_api/ptq/quantize.py"),
    ],
)
def test_what_is_in_nvidias_image_only_is_imported_in_one_place(library: str, place: str) -> None:
    assert {user.split(" ")[0] for user in offenders(sources(*PACKAGES), library)} == {place}


def test_no_program_knows_the_tests() -> None:
    assert offenders(sources(*PACKAGES), "tests") == []


def test_the_frontend_takes_only_the_contract_of_the_engines() -> None:
    # bench runs the bare batcher to compare with it
    own = [path for path in sources("frontend") if "bench" not in path.parts]
    engines = ("triton_models.cpu", "triton_models.llama_cpp", "triton_models.batching",
               "triton_models.llm_api.engine", "triton_models.llm_api.upstream")  # fmt: skip
    libraries = ("openvino", "openvino_genai", "llguidance", "xllamacpp", "tensorrt_llm", "torch")
    assert offenders(own, *engines, *libraries) == []


def test_imports_point_from_the_surface_to_the_inside() -> None:
    upper = ("frontend.api", "frontend.app", "frontend.serve", "frontend.cli", "frontend.worker")
    assert offenders(sources("frontend/api"), "frontend.app", "frontend.serve") == []
    assert offenders(sources("frontend/api"), "frontend.triton.client") == []
    middle = [PROJECT / "frontend" / name for name in ("generate.py", "prepare.py", "catalog.py")]
    assert offenders(middle, *upper, "frontend.context", "frontend.triton") == []
    assert offenders(sources("frontend/triton"), *upper, "frontend.text", "frontend.protocol",
                     "frontend.prepare", "frontend.generate", "frontend.catalog") == []  # fmt: skip
    assert offenders(sources("frontend/protocol"), *upper, "frontend.triton", "frontend.prepare",
                     "frontend.engine", "frontend.catalog") == []  # fmt: skip
    assert offenders(sources("frontend/store"), *upper, "frontend.triton", "frontend.text",
                     "frontend.protocol", "frontend.responses", "frontend.prepare",
                     "frontend.generate", "frontend.catalog") == []  # fmt: skip
    assert offenders(sources("frontend/access"), *upper, "frontend.triton", "frontend.text",
                     "frontend.protocol", "frontend.responses", "frontend.prepare",
                     "frontend.generate", "frontend.catalog", "frontend.context") == []  # fmt: skip
    assert offenders(sources("frontend/limits"), *upper, "frontend.context", "frontend.triton",
                     "frontend.protocol", "frontend.store") == []  # fmt: skip
    assert offenders(sources("frontend/usage"), *upper, "frontend.context", "frontend.triton",
                     "frontend.protocol", "frontend.store", "frontend.meter") == []  # fmt: skip
    assert offenders(sources("frontend/responses"), *upper, "frontend.context",
                     "frontend.triton") == []  # fmt: skip
    assert offenders(sources("frontend/text"), *upper, "frontend.triton", "frontend.protocol",
                     "frontend.engine", "frontend.errors") == []  # fmt: skip


def test_what_is_pure_does_no_waiting_and_no_input_or_output() -> None:
    pure = [path for path in sources("frontend") if is_among(path, PURE)]
    assert len(pure) > 10
    assert offenders(pure, "asyncio", "socket", "subprocess", "os", "threading", "httpx") == []


def environment_readers() -> Iterator[str]:
    for path in sources(*PACKAGES):
        for node in ast.walk(ast.parse(path.read_text())):
            names = {"environ", "getenv", "environb"}
            is_read = isinstance(node, ast.Attribute) and node.attr in names
            is_import = isinstance(node, ast.ImportFrom) and node.module == "os"
            if is_read or (is_import and names & {alias.name for alias in node.names}):  # type: ignore[attr-defined]
                yield name_of(path)


def test_the_environment_is_read_in_the_settings_only() -> None:
    assert set(environment_readers()) == ENVIRONMENT.keys()


def test_nothing_prints() -> None:
    printing = [
        f"{name_of(path)}:{node.lineno}"
        for path in sources(*PACKAGES)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("print", "pprint")
    ]
    assert printing == []


def test_importing_a_module_starts_nothing() -> None:
    """No calls at the top of a module but what makes constants, types and command tables."""
    starters = {"run", "main", "start", "serve", "create_app", "open", "Popen"}
    found = []
    for path in sources("frontend"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                func = node.value.func
                name = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
                if name in starters:
                    found.append(f"{name_of(path)}:{node.lineno}")
    assert found == []
