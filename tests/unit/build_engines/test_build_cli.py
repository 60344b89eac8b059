from __future__ import annotations

from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner, Result

from build_engines import cli
from build_engines.artefact import artefact_dir
from tests.unit.build_engines.build_fakes import build_tiny

MODEL = "smollm2-135m-instruct"


def run(*arguments: str | Path, env: dict[str, str] | None = None) -> Result:
    app = Typer()
    app.command()(cli.build_command)
    return CliRunner(env=env or {}).invoke(app, [str(argument) for argument in arguments])


def test_the_list_shows_what_can_be_built_and_what_is_built(tmp_path: Path) -> None:
    build_tiny(tmp_path)
    result = run("--list", "--home", tmp_path)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "all-minilm-l6-v2\tf16 (default)\tnot built",
        "all-minilm-l6-v2\tf32\tnot built",
        f"{MODEL}\tf16\tnot built",
        f"{MODEL}\tq8_0 (default)\tnot built",
        f"{MODEL}\tq4_0\tnot built",
        "tiny\tq8_0\t0 MB (no spec)",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), f"error: which model? choose one of all-minilm-l6-v2, {MODEL}\n"),
        (
            ("gpt-5",),
            f"error: there is no model gpt-5: choose one of all-minilm-l6-v2, {MODEL}, or name "
            "your own with --spec or --checkpoint\n",
        ),
        ((MODEL, "-v", "q3"), f"error: {MODEL} has no variant q3: choose one of f16, q8_0, q4_0\n"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = run(*arguments, "--home", tmp_path)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", message)


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
