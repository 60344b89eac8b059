"""What the READMEs say that can be held to the code: commands, specs, variables, links, figures."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from build_engines.spec import read_spec, spec_names
from build_engines.variants import GPU_QUANTIZATIONS, implicit_options
from build_engines.verify.thresholds import tolerance_of
from frontend.settings import Settings
from tests.unit.command_lines import check_command

PROJECT = Path(__file__).parents[2]
PAIRS = (
    ("README.md", "README.zh.md"),
    ("build_engines/README.md", "build_engines/README.zh.md"),
    ("frontend/access/README.md", "frontend/access/README.zh.md"),
)
READMES = tuple(name for pair in PAIRS for name in pair)
BUILDING = PAIRS[1]
COMMAND = re.compile(
    r"(\w+=(\S*|\"[^\"]*\") )*(?P<program>inflight|docker/build-engine) (?P<words>.*)"
)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def text_of(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return [text for found, text in BLOCK.findall(text_of(name)) if found == language]


def command_lines(name: str) -> list[list[str]]:
    """What is behind `inflight`, in blocks, prompts and running text; `build-engine` is a build."""
    lines = [line for block in blocks(name, "bash") for line in block.splitlines()]
    lines += re.findall(r"^\$ (.*)$", text_of(name), re.MULTILINE)
    lines += re.findall(r"`(inflight \w[^`]*)`", text_of(name))
    found = []
    for line in lines:
        if shown := COMMAND.fullmatch(line):
            words = shlex.split(shown["words"].partition(" > ")[0], comments=True)
            found.append(words if shown["program"] == "inflight" else ["build", *words])
    return found


@pytest.mark.parametrize("name", READMES)
def test_every_command_line_is_taken(name: str) -> None:
    commands = [words for words in command_lines(name) if len(words) > 1]
    assert len(commands) >= 4
    for words in commands:
        check_command(words)
        if words[0] == "build" and not {"--spec", "--checkpoint", "--list", "--init"} & {*words}:
            assert words[1] in spec_names()
        if "--variant" in words:
            assert implicit_options(words[words.index("--variant") + 1]), words


@pytest.mark.parametrize("pair", PAIRS)
def test_both_languages_show_the_same_commands_variables_and_links(pair: tuple[str, str]) -> None:
    english, chinese = pair
    assert command_lines(english) == command_lines(chinese)
    for pattern in (r"INFLIGHT_[A-Z_]+", r"^#+(?= )", r"^\|(?= )"):
        first, second = (re.findall(pattern, text_of(one), re.MULTILINE) for one in pair)
        assert sorted(first) == sorted(second), pattern


@pytest.mark.parametrize("name", READMES)
def test_links_lead_to_files(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", text_of(name))
    assert links
    for link in links:
        assert ((PROJECT / name).parent / link).exists(), link


@pytest.mark.parametrize("name", READMES)
def test_links_within_a_page_lead_to_its_sections(name: str) -> None:
    headings = re.findall(r"^#+ (.*)$", text_of(name), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", one).lower().replace(" ", "-") for one in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", text_of(name))) <= anchors


@pytest.mark.parametrize("name", READMES)
def test_every_variable_is_read_somewhere(name: str) -> None:
    code = [path for top in ("build_engines", "frontend") for path in (PROJECT / top).rglob("*.py")]
    code += [path for top in ("docker", "scripts") for path in (PROJECT / top).iterdir()]
    read = {one for path in code for one in re.findall(r"INFLIGHT_[A-Z_]+", path.read_text())}
    settings = re.findall(r"^    (\w+): ", text_of("frontend/settings.py"), re.MULTILINE)
    known = {*read, *(f"INFLIGHT_{one.upper()}" for one in settings)}
    assert set(re.findall(r"INFLIGHT_[A-Z_]+", text_of(name))) <= known


@pytest.mark.parametrize("name", READMES)
def test_defaults_are_those_of_the_settings(name: str) -> None:
    """In the table of options, and in brackets behind a variable."""
    told = re.findall(r"\| `--[\w-]+` \| `INFLIGHT_(\w+)` \| `?([^|`]*)`? \|", text_of(name))
    told += re.findall(r"`INFLIGHT_(\w+)` ?[(（](\d+)[)）]", text_of(name))
    defaults = {one.name: one.default for one in fields(Settings)}
    for variable, value in told:
        default = defaults[variable.lower()]
        shown = "" if default is None else f"{default:g}" if isinstance(default, float) else default
        assert str(shown) == value.strip(), variable


@pytest.mark.parametrize("name", BUILDING)
def test_the_specs_shown_can_be_read(name: str, tmp_path: Path) -> None:
    shown = blocks(name, "toml")
    assert len(shown) == 2
    for text in shown:
        (tmp_path / "spec.toml").write_text(text, encoding="utf-8")
        assert read_spec(tmp_path / "spec.toml").variants


@pytest.mark.parametrize("name", BUILDING)
def test_every_spec_and_variant_is_named(name: str) -> None:
    words = set(re.findall(r"`([\w.-]+)`", text_of(name)))
    assert words >= {*spec_names(), *GPU_QUANTIZATIONS}


@pytest.mark.parametrize("name", BUILDING)
def test_the_thresholds_are_those_of_the_table(name: str) -> None:
    rows = re.findall(r"^\| (`.*`) \| (0\.\d+) \|$", text_of(name), re.MULTILINE)
    told = {one: float(value) for names, value in rows for one in re.findall(r"`(\w+)`", names)}
    assert len(told) == 11
    assert told == {one: tolerance_of(one) for one in told}
