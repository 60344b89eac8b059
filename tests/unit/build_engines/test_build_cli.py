from __future__ import annotations

import shlex
import subprocess
import tomllib
from pathlib import Path

import msgspec
import pytest
from typer import Typer
from typer.testing import CliRunner, Result

from build_engines import cli, pipeline, plan
from build_engines import spec as spec_module
from build_engines.artefacts.artefact import artefact_dir, find_artefact
from build_engines.ordering import is_gguf, order_for
from build_engines.spec import load_spec, read_spec, spec_names
from tests.unit.build_engines.build_fakes import CONFIG, FakeRecipe, build_tiny, write_checkpoint

MODEL = "smollm2-135m-instruct"


def run(*arguments: str | Path, env: dict[str, str] | None = None) -> Result:
    app = Typer()
    app.command()(cli.build_command)
    return CliRunner(env=env or {}).invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> FakeRecipe:
    """What builds all kinds in this test."""
    fake = FakeRecipe()
    for kind in ("cpu", "optimum", "tensorrt_llm", "llm_api", "llama_cpp"):
        monkeypatch.setitem(pipeline.RECIPES, kind, fake)
    return fake


def test_the_list_shows_what_can_be_built_and_what_is_built(tmp_path: Path) -> None:
    build_tiny(tmp_path)
    result = run("--list", "--home", tmp_path)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert {
        "all-minilm-l6-v2\tf16 (default)\tnot built",
        f"{MODEL}\tf16\tnot built",
        f"{MODEL}\tq8_0 (default)\tnot built",
        "tiny\tq8_0\t0 MB (no spec)",
    } <= set(lines)
    assert {line.partition("\t")[0] for line in lines} == {*spec_names(), "tiny"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "error: which model? choose one of all-minilm-l6-v2, "),
        (("gpt-5",), "error: there is no model gpt-5: choose one of all-minilm-l6-v2, "),
        ((MODEL, "-v", "q3"), f"error: {MODEL} has no variant q3: choose one of f16, q8_0, q4_0"),
        ((MODEL, "--name", "../x"), "error: '../x' cannot be the name of a model"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = run(*arguments, "--home", tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_a_failed_build_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    variant_dir = artefact_dir(tmp_path, MODEL, "q8_0")
    variant_dir.mkdir(parents=True)
    (variant_dir / "current").symlink_to("1")
    result = run(MODEL, "--home", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: the artefact in ")
    assert result.stderr.count("\n") == 1


def test_a_home_that_is_no_directory_is_one_line(tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.write_text("")
    result = run(MODEL, "--home", home)
    assert result.exit_code == 1
    assert result.stderr == f"error: {home / 'state' / 'locks'}: Not a directory\n"


def test_the_home_comes_from_the_environment_and_the_option_wins(tmp_path: Path) -> None:
    build_tiny(tmp_path)
    env = {"INFLIGHT_HOME": str(tmp_path)}
    assert "no spec" in run("--list", env=env).stdout
    assert "no spec" not in run("--list", "--home", tmp_path / "other", env=env).stdout


def test_a_checkpoint_is_built_under_the_name_of_its_folder(
    tmp_path: Path, recipe: FakeRecipe
) -> None:
    checkpoint = write_checkpoint(tmp_path / "My Model")
    result = run("--checkpoint", checkpoint, "--home", tmp_path)
    assert result.exit_code == 0, result.stderr
    artefact = find_artefact(tmp_path, "my-model", "openvino")  # what runs without a GPU
    assert artefact is not None
    assert result.stdout.strip() == str(artefact.path)
    assert (artefact.manifest.family, artefact.manifest.kind) == ("llama", "cpu")
    assert artefact.manifest.source == {"path": str(checkpoint)}


def test_another_checkpoint_of_the_same_name_is_built_the_same_one_is_not(
    tmp_path: Path, recipe: FakeRecipe
) -> None:
    checkpoint = write_checkpoint(tmp_path / "model")
    arguments = ("--checkpoint", checkpoint, "-v", "q8_0", "--home", tmp_path)
    run("first", *arguments)
    assert run("first", *arguments).exit_code == 0
    assert len(recipe.runs) == 3
    (checkpoint / "config.json").write_bytes(msgspec.json.encode(CONFIG | {"vocab_size": 4}))
    assert run("first", *arguments).exit_code == 0
    assert len(recipe.runs) == 6


@pytest.mark.parametrize("is_shipped", [True, False])
def test_a_changed_spec_is_built_anew_and_an_unchanged_one_is_not(
    tmp_path: Path, recipe: FakeRecipe, monkeypatch: pytest.MonkeyPatch, is_shipped: bool
) -> None:
    monkeypatch.setattr(spec_module, "SPECS_DIR", tmp_path)
    checkpoint = write_checkpoint(tmp_path / "model")
    spec = tmp_path / "mine.toml"
    which = ("mine",) if is_shipped else ("--spec", spec)
    source = f'[source]\npath = "{checkpoint}"\n'
    versions = []
    for text in (source, source, f'tool_parser = "hermes"\n{source}'):
        spec.write_text('name = "mine"\n' + text)
        result = run(*which, "-v", "q8_0", "--home", tmp_path / "home")
        assert result.exit_code == 0, result.stderr
        versions.append(Path(result.stdout.strip()).name)
        planned = run(*which, "-v", "q8_0", "--home", tmp_path / "home", "--plan").stdout
        assert "is published: nothing is to be done" in planned
    assert versions == ["1", "1", "2"]
    artefact = find_artefact(tmp_path / "home", "mine", "q8_0")
    assert artefact is not None
    assert artefact.manifest.tool_parser == "hermes"


def test_a_spec_of_ones_own_is_built(tmp_path: Path, recipe: FakeRecipe) -> None:
    checkpoint = write_checkpoint(tmp_path / "model")
    spec = tmp_path / "anything.toml"
    spec.write_text(f'name = "mine"\n[source]\npath = "{checkpoint}"\n[variants.int4_awq]\n')
    result = run("--spec", spec, "--home", tmp_path)
    assert result.exit_code == 0, result.stderr
    found = find_artefact(tmp_path, "mine", "int4_awq")
    assert found is not None
    assert found.manifest.kind == "tensorrt_llm"
    other = run("yours", "--spec", spec, "--home", tmp_path)
    assert (other.exit_code, other.stderr) == (2, f"error: {spec} is of mine, not of yours\n")


def test_a_checkpoint_of_another_family_than_the_specs_is_refused(
    tmp_path: Path, recipe: FakeRecipe
) -> None:
    config = CONFIG | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
    checkpoint = write_checkpoint(tmp_path / "model", config)
    result = run(MODEL, "--checkpoint", checkpoint, "--home", tmp_path)
    assert result.exit_code == 2
    assert "is of the family llama" in result.stderr
    assert "is Qwen2ForCausalLM: give the checkpoint of this model" in result.stderr


def test_the_plan_shows_what_is_done_what_is_needed_and_what_runs(
    tmp_path: Path, recipe: FakeRecipe
) -> None:
    checkpoint = write_checkpoint(tmp_path / "model")
    arguments = ("--checkpoint", checkpoint, "-v", "q8_0", "--home", tmp_path)
    planned = run(*arguments, "--plan")
    assert planned.exit_code == 0, planned.stderr
    assert recipe.runs == []
    assert not (tmp_path / "builds").exists()
    lines = planned.stdout.splitlines()
    assert lines[0] == "model/q8_0: kind cpu, q8_0"
    assert [line.split()[:3] for line in lines if " to do " in line] == [
        [name, "to", "do"] for name in ("fetch", "tokenizer", "convert", "verify")
    ]
    assert (
        lines[1] == f"from {checkpoint}; context of 64 tokens; chat template the checkpoint's own"
    )
    assert lines[lines.index("# convert") + 1] == "make-convert --of q8_0"
    assert lines[lines.index("Fit") + 2].split() == ["none", "0"]

    run(*arguments)
    again = run(*arguments, "--plan").stdout
    assert "version 1 is published: nothing is to be done" in again


def test_a_plan_for_another_machine_says_what_this_one_lacks(
    tmp_path: Path, recipe: FakeRecipe
) -> None:
    recipe.needed_memory_bytes = 10**15
    checkpoint = write_checkpoint(tmp_path / "model")
    planned = run("--checkpoint", checkpoint, "-v", "q8_0", "--plan", "--home", tmp_path)
    assert planned.exit_code == 0
    lines = planned.stdout.splitlines()
    lack = lines[lines.index("Not on this machine, so far") + 1]
    assert lack.startswith("  the build needs 1000000.0 GB of memory")


def test_a_long_command_is_a_shells_over_several_lines() -> None:
    words = ["tool", *(f"--option-{i}=a b" for i in range(20)), "--last", "it's", "end"]
    lines = list(plan._wrapped(shlex.join(words)))
    assert len(lines) > 3
    assert max(map(len, lines)) <= 110
    assert lines[-1].endswith(shlex.join(["--last", "it's", "end"]))
    printed = "\n".join(lines)
    shown = subprocess.run(
        ["sh", "-c", printed.replace("tool", "printf '%s\\n' tool", 1)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.splitlines() == words


@pytest.mark.parametrize("model", spec_names())
def test_every_variant_that_a_spec_lists_has_a_plan_with_aligned_sizes(
    tmp_path: Path, model: str
) -> None:
    spec = load_spec(model)
    assert spec.source is not None
    for variant in spec.variants:
        order = order_for(spec, variant, tmp_path)
        needs_file = order.variant.recipe in ("llama_cpp", "cpu") and not is_gguf(spec.source)
        if needs_file:  # the user's own: --checkpoint FILE.gguf
            assert variant != spec.default_variant
            continue
        lines = list(plan.plan_lines(order))
        start, end = lines.index("Stages") + 1, next(i for i, x in enumerate(lines) if "free" in x)
        column = lines[start].index("disk") + len("disk")
        assert all(line[column - 1] != " " for line in lines[start : end + 1]), lines
    assert list(tmp_path.iterdir()) == []


def test_a_plan_that_cannot_be_built_is_refused_as_the_build_would_be(tmp_path: Path) -> None:
    result = run("--checkpoint", tmp_path / "nothing", "--plan", "--home", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: there is no checkpoint {tmp_path / 'nothing'}: give")


def test_a_drafted_spec_builds_as_it_is(tmp_path: Path, recipe: FakeRecipe) -> None:
    checkpoint = write_checkpoint(tmp_path / "model")
    drafted = run("--init", checkpoint, "--name", "mine")
    assert drafted.exit_code == 0, drafted.stderr
    raw = tomllib.loads(drafted.stdout)
    assert (raw["name"], raw["family"], raw["max_seq_len"]) == ("mine", "llama", 64)
    assert raw["source"] == {"path": str(checkpoint)}
    assert {"fp16", "int4_awq", "openvino"} <= raw["variants"].keys()

    spec = tmp_path / "mine.toml"
    spec.write_text(drafted.stdout)
    assert read_spec(spec).name == "mine"
    for variant in raw["variants"]:
        result = run("--spec", spec, "-v", variant, "--home", tmp_path)
        assert result.exit_code == 0, result.stderr
