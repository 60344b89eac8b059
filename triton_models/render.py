"""Renders a kind's config.pbtxt from its template, its defaults.toml and an artefact's values.

Knows templates; knows nothing about artefacts, Triton or what the values mean.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from string import Template

from triton_models.contract import KINDS

Value = str | int | float | bool

_ROOT = Path(__file__).parent
_TENSORS = re.compile(r"^(input|output) \[\n(.*?)^\]\n", re.MULTILINE | re.DOTALL)
_TENSOR = re.compile(r'^  \{\n    name: "(\w+)"\n.*?^  \}', re.MULTILINE | re.DOTALL)


class RenderError(ValueError):
    """The values do not fit the template: one is missing, or one has no place in it."""


def model_file(kind: str) -> Path | None:
    """The `1/model.py` of a Python-backend kind; None where the backend brings its own code."""
    path = _ROOT / kind / "1" / "model.py"
    return path if path.is_file() else None


def defaults(kind: str) -> dict[str, Value]:
    """The values of `kind`'s template that need no choice."""
    _check(kind)
    return dict(tomllib.loads((_ROOT / kind / "defaults.toml").read_text(encoding="utf-8")))


def render_config(
    kind: str, values: Mapping[str, Value], *, undeclared: frozenset[str] = frozenset()
) -> str:
    """The text of config.pbtxt for `kind`.

    `values` come before the kind's defaults. A placeholder without a value and a value without a
    placeholder are errors, so a misspelt setting never falls back to a default in silence.
    `undeclared` are tensors that this model cannot honour though its kind can: who sends one is
    refused.
    """
    merged = defaults(kind) | dict(values)
    text = (_ROOT / kind / "config.pbtxt").read_text(encoding="utf-8")
    template = Template(_without(text, undeclared) if undeclared else text)
    names = set(template.get_identifiers())
    if unknown := sorted(set(merged) - names):
        raise RenderError(f"no such placeholder in {kind}/config.pbtxt: {', '.join(unknown)}")
    if missing := sorted(names - set(merged)):
        raise RenderError(f"no value for {kind}/config.pbtxt: {', '.join(missing)}")
    return template.substitute({name: _text(value) for name, value in merged.items()})


def _without(text: str, names: frozenset[str]) -> str:
    """The template without the blocks of these tensors."""

    def keep(tensors: re.Match[str]) -> str:
        kept = [one[0] for one in _TENSOR.finditer(tensors[2]) if one[1] not in names]
        return f"{tensors[1]} [\n" + ",\n".join(kept) + "\n]\n"

    return _TENSORS.sub(keep, text)


def _check(kind: str) -> None:
    if kind not in KINDS:
        raise RenderError(f"no such kind: {kind} (kinds: {', '.join(sorted(KINDS))})")


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    # inside quotes in the protobuf text format
    return str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
