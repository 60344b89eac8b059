"""What the READMEs say of keys, limits and usage, held to the code: examples, routes, names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from frontend.access.identity import DEFAULT_SCOPES, Scope
from frontend.access.issuers import Issuer, load_issuers
from frontend.api.cors import EXPOSED
from frontend.api.route import Route
from frontend.errors import ServingError
from frontend.limits.policy import DEFAULT_LIMITS
from frontend.limits.policy_file import load_policy
from frontend.protocol.usage import UsageQuery
from frontend.routes import ROUTES
from frontend.settings import load_settings
from frontend.usage.sums import GROUPS
from tests.unit.test_readme import PAIRS, PROJECT, blocks, text_of

MAIN, ACCESS = PAIRS[0], PAIRS[2]
BOTH = (*MAIN, *ACCESS)
EXAMPLE = "docker/limits.example.toml"


def pattern(path: str) -> str:
    """A path with its parameters unnamed: READMEs and routes may call them differently."""
    return re.sub(r"\{[^}]*\}|<[^>]*>", "{}", path)


def found_route(method: str, path: str) -> Route | None:
    """Of a path with values, or with names, in place of its parameters."""
    for route in ROUTES:
        wanted = re.escape(pattern(route.path)).replace(r"\{\}", r"[^/]+")
        if route.method == method and re.fullmatch(wanted, path):
            return route
    return None


def table_row(name: str, first_cell: str) -> str:
    (row,) = re.findall(rf"^\| `{re.escape(first_cell)}` \| (.*) \|$", text_of(name), re.MULTILINE)
    return str(row)


def named_routes(text: str) -> set[tuple[str, str]]:
    """`GET /a`, and `GET`, `POST /a`: a method without a path has the next one's."""
    found = re.findall(r"((?:`[A-Z]+`[,、] ?)*)`([A-Z]+) (/[^`\s]*)`", text)
    return {
        (one, path) for more, last, path in found for one in [*re.findall("[A-Z]+", more), last]
    }


def test_examples_of_limits_can_be_used(tmp_path: Path) -> None:
    shown = [text for name in BOTH for text in blocks(name, "toml") if "[keys]" in text]
    assert len(shown) == 4
    for text in (*shown, (PROJECT / EXAMPLE).read_text()):
        (tmp_path / "limits.toml").write_text(text)
        policy = load_policy(tmp_path / "limits.toml")
        assert policy.budget("acme")
        assert policy.price("gemma-2b")


def test_a_line_that_the_example_leaves_out_could_be_taken(tmp_path: Path) -> None:
    text = re.sub(r"^# (?=\w+ = )", "", (PROJECT / EXAMPLE).read_text(), flags=re.MULTILINE)
    (tmp_path / "limits.toml").write_text(text)
    budget = load_policy(tmp_path / "limits.toml").budget("any")
    assert budget is not None
    assert budget.money


@pytest.mark.parametrize("name", ACCESS)
def test_the_example_of_an_issuer_can_be_used(name: str, tmp_path: Path) -> None:
    (text,) = [text for text in blocks(name, "toml") if "[[issuers]]" in text]
    path = tmp_path / "issuers.toml"
    path.write_text(text)
    (issuer,) = load_issuers(path)
    assert issuer.scope_names == {"llm.use": Scope.INFERENCE}
    path.write_text(re.sub(r"^# ", "", text, flags=re.MULTILINE))
    assert load_issuers(path) == (issuer,), "the line that is left out says the default"
    told = re.findall(r"`(\w+_s)` ?[(（](\d+)[)）]", text_of(name))
    defaults = {one.name: one.default for one in msgspec.structs.fields(Issuer)}
    assert {field: float(value) for field, value in told} == {
        field: defaults[field] for field in ("refresh_s", "max_staleness_s", "leeway_s")
    }


@pytest.mark.parametrize("name", ACCESS)
def test_examples_of_settings_can_be_used(name: str, tmp_path: Path) -> None:
    shown = [text for text in blocks(name, "toml") if "config.toml" in text]
    assert len(shown) == 2
    for text in shown:
        (tmp_path / "config.toml").write_text(text)
        load_settings({"home": tmp_path}, environ={})


@pytest.mark.parametrize("name", BOTH)
def test_every_route_that_is_named_is_there(name: str) -> None:
    named = named_routes(text_of(name))
    assert named
    assert [one for one in named if found_route(*one) is None] == []


@pytest.mark.parametrize("name", MAIN)
def test_every_route_is_named(name: str) -> None:
    """`.../x` stands for what is below the path before it, or beside it."""
    named = {pattern(path) for _, path in named_routes(text_of(name))}
    ends = set(re.findall(r"`\.\.\.(/\w+)`", text_of(name)))
    named |= {path + end for path in named for end in ends}
    named |= {path.rpartition("/")[0] + end for path in named for end in ends}
    assert {pattern(route.path) for route in ROUTES} <= named


@pytest.mark.parametrize("name", ACCESS)
def test_scopes_have_the_routes_that_are_told(name: str) -> None:
    listed = re.findall(r"^\| `([a-z:]+)` \|", text_of(name), re.MULTILINE)
    assert set(listed) == set(Scope)
    for scope in (Scope.MODELS_READ, Scope.MODELS_WRITE, Scope.METRICS):
        told = [found_route(*one) for one in named_routes(table_row(name, scope))]
        own = [route for route in ROUTES if route.scope is scope]
        if scope is Scope.MODELS_READ:  # what lists models shows one of them as well
            own = [route for route in own if route.path != "/v1/models/<model_name>"]
        assert {route.name for route in told if route} == {route.name for route in own}
    admins = {route.path for route in ROUTES if route.scope is Scope.ADMIN}
    assert all(path.startswith("/api/v1/keys") for path in admins)
    usual = re.search(r"^(?:A new key has|新密钥有) ([^.。]*)", text_of(name), re.MULTILINE)
    assert usual is not None
    assert set(re.findall(r"`([\w:]+)`", usual[1])) == DEFAULT_SCOPES


@pytest.mark.parametrize("name", ACCESS)
def test_what_is_open_is_told(name: str) -> None:
    told = next(line for line in text_of(name).splitlines() if line.startswith("`GET /health`"))
    is_open = {(route.method, route.path) for route in ROUTES if route.scope is None}
    assert named_routes(told) == is_open


@pytest.mark.parametrize("name", ACCESS)
def test_headers_have_the_names_that_are_told(name: str) -> None:
    told = re.findall(r"`((?:x-ratelimit|retry|x-should)[\w-]+)`", text_of(name), re.IGNORECASE)
    sent = {one for one in EXPOSED.split(", ") if "ratelimit" in one or "retry" in one}
    assert {one.lower() for one in told} == sent
    for most in (DEFAULT_LIMITS.requests_per_minute, DEFAULT_LIMITS.tokens_per_minute):
        assert f"{most:,}" in text_of(name)


def errors(kind: type[ServingError] = ServingError) -> Iterator[type[ServingError]]:
    yield kind
    for one in kind.__subclasses__():
        yield from errors(one)


@pytest.mark.parametrize("name", ACCESS)
def test_errors_have_the_status_that_is_told(name: str) -> None:
    told = re.findall(r"\b(4\d\d|5\d\d) `(\w+)`", text_of(name))
    assert len(set(told)) >= 9
    assert set(told) <= {(str(one.status), one.code) for one in errors()}


def curl_lines(name: str) -> list[list[str]]:
    """The arguments of each."""
    found: list[list[str]] = []
    for block in blocks(name, "bash"):
        for command in re.split(r"^(?=\w)", block, flags=re.MULTILINE):
            if command.startswith("curl "):
                found.append(shlex.split(command, comments=True)[1:])
    return found


@pytest.mark.parametrize("name", BOTH)
def test_requests_that_are_shown_are_taken(name: str) -> None:
    """Not whether what they name is there: a route takes them, and what is in their bodies."""
    lines = curl_lines(name)
    assert lines
    for words in lines:
        (url,) = [word for word in words if word.startswith("http://")]
        body = words[words.index("-d") + 1] if "-d" in words else None
        method = words[words.index("-X") + 1] if "-X" in words else "POST" if body else "GET"
        route = found_route(method, urlsplit(url).path)
        assert route is not None, words
        if body is not None:
            assert route.body is not None
            assert msgspec.json.decode(body, type=route.body)
        if query := urlsplit(url).query:
            assert route.query is UsageQuery
            UsageQuery.read(parse_qs(query))


@pytest.mark.parametrize("name", ACCESS)
def test_what_usage_can_be_summed_up_by_is_told(name: str) -> None:
    assert set(re.findall(r"`(\w+)`", text_of(name))) >= set(GROUPS)


@pytest.mark.parametrize("name", ACCESS)
def test_prometheus_is_shown_the_way(name: str) -> None:
    (text,) = blocks(name, "yaml")
    path = re.search(r"metrics_path: (\S+)", text)
    assert path is not None
    route = found_route("GET", path[1])
    assert route is not None
    assert f"--scope {route.scope}" in text_of(name)
