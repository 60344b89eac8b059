"""OpenVINO from Hugging Face checkpoints, with a stand-in for the Python that exports."""

from __future__ import annotations

import json
import shlex
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from build_engines.checkpoints.checkpoint import Checkpoint, open_checkpoint
from build_engines.cpu.optimum_recipe import PYTHON_VARIABLE, REQUIREMENTS, OptimumRecipe
from build_engines.errors import BuildError, ChoiceError, ToolError
from build_engines.ordering import order_for
from build_engines.recipe import Order
from build_engines.spec import PathSource, load_spec
from build_engines.stages import StageContext
from tests.unit.build_engines.build_fakes import CONFIG, tiny_spec

VERSIONS = dict.fromkeys(("optimum-intel", "transformers", "torch", "openvino", "nncf"), "1")


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python with all tools, which writes its arguments and environment instead of a model."""
    path = tmp_path / "python"
    program = (
        "import json, os, sys; from pathlib import Path\n"
        f"if sys.argv[1] == '-c': print({json.dumps(VERSIONS)!r}); sys.exit()\n"
        f"Path({str(tmp_path / 'called.json')!r}).write_text(json.dumps([sys.argv[1:], "
        "os.environ.get('HF_HUB_OFFLINE')])); sys.exit(3)\n"
    )
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -c {shlex.quote(program)} "$@"\n')
    path.chmod(0o755)
    monkeypatch.setenv(PYTHON_VARIABLE, str(path))
    return path


def order(tmp_path: Path, variant: str = "openvino", **config: str | list[str]) -> Order:
    """For the tiny checkpoint, its config.json changed."""
    spec = tiny_spec(tmp_path / "checkpoint")
    folder = tmp_path / "checkpoint"
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    checkpoint = open_checkpoint(folder)
    assert spec.source is not None
    return Order(
        spec=spec,
        variant=spec.variant(variant),
        source=spec.source,
        home=tmp_path,
        fetched=folder,
        checkpoint=checkpoint,
    )


def test_without_optimum_intel_the_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable)
    with pytest.raises(ToolError, match=r"pip install optimum-intel==\S+ .*INFLIGHT_EXPORT_PYTHON"):
        OptimumRecipe().plan(order(tmp_path))


def test_the_error_for_no_python_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(ToolError, match=rf"{PYTHON_VARIABLE} is .*No such file"):
        OptimumRecipe().plan(order(tmp_path))


@pytest.mark.usefixtures("python")
def test_a_gguf_file_is_refused_with_what_works(tmp_path: Path) -> None:
    wanted = order(tmp_path)
    assert wanted.checkpoint is not None
    gguf: Checkpoint = replace(wanted.checkpoint, format="gguf")
    with pytest.raises(ChoiceError, match="build the variant gguf"):
        OptimumRecipe().plan(replace(wanted, checkpoint=gguf))


@pytest.mark.usefixtures("python")
@pytest.mark.parametrize(
    ("architecture", "model_type"),
    [("ChatGLMModel", "chatglm"), ("Gemma2ForCausalLM", "gemma2")],
)
def test_what_needs_its_own_code_or_loses_something_is_refused_with_what_works(
    tmp_path: Path, architecture: str, model_type: str
) -> None:
    wanted = order(tmp_path, architectures=[architecture], model_type=model_type)
    message = rf"{model_type} models cannot be exported .*--variant gguf"
    with pytest.raises(ChoiceError, match=message):
        OptimumRecipe().plan(wanted)


def test_it_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    wanted = order_for(load_spec("gemma-2-9b-it"), "openvino", tmp_path)
    with pytest.raises(ChoiceError, match="gemma2 models cannot be exported"):
        OptimumRecipe().plan(wanted)


@pytest.mark.usefixtures("python")
def test_int8_is_made_of_the_exported_model(tmp_path: Path) -> None:
    names = {
        variant: [stage.name for stage in OptimumRecipe().plan(order(tmp_path, variant)).stages]
        for variant in ("openvino", "openvino_int8")
    }
    assert names["openvino"] == ["tokenizer", "export", "verify"]
    assert names["openvino_int8"] == ["tokenizer", "export", "convert", "verify"]


@pytest.mark.usefixtures("python")
def test_the_export_never_runs_the_checkpoints_code_nor_asks_the_hub(tmp_path: Path) -> None:
    (export,) = (s for s in OptimumRecipe().plan(order(tmp_path)).stages if s.name == "export")
    (tmp_path / "out").mkdir()
    log = tmp_path / "build.log"
    context = StageContext(done={}, report=lambda done, total: None, log=log)
    with pytest.raises(BuildError, match=r"failed \(exit 3\).*build.log"):
        export.run(tmp_path / "out", context)
    arguments, offline = json.loads((tmp_path / "called.json").read_text())
    assert "--trust-remote-code" not in arguments
    assert offline == "1"
    assert export.commands[0].split()[1:-1] == arguments[:-1]


def test_what_the_error_says_to_install_is_what_is_declared_and_tested() -> None:
    root = Path(__file__).parents[3]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert tuple(project["optional-dependencies"]["openvino-export"]) == REQUIREMENTS
    locked = (root / "tests/e2e/clients/reference/requirements.lock").read_text()
    for requirement in REQUIREMENTS:
        assert f"\n{requirement} " in locked


def test_a_plan_is_made_before_anything_is_there(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path / "checkpoint")
    wanted = Order(
        spec=spec,
        variant=spec.variant("openvino"),
        source=PathSource(path="/nowhere"),
        home=tmp_path,
    )
    assert "CHECKPOINT" in OptimumRecipe().plan(wanted).stages[1].commands[0]
