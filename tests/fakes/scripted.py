"""Publishes models of the `scripted` kind, which say what a test wants behind a real Triton.

triton_models/scripted/README.md tells what the fields of a Scenario do.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from build_engines.artefacts.artefact import Artefact, describe_files, publish
from triton_models.scripted.script import Scenario, ScriptFile
from triton_models.scripted.service import SCRIPT_FILE

VARIANT = "scripted"


def write_scripted_model(
    home: Path,
    name: str,
    scenarios: Sequence[Scenario],
    chat_template: str | None = None,
    *,
    tokenizer_from: Artefact,
) -> Artefact:
    """Publish a model that plays the scenarios; its tokenizer and limits are another model's.

    `POST /api/v1/models/{name}/load`, or ModelRepository.load, makes Triton serve it.

    Args:
        chat_template: Jinja, in place of the other model's.
    """
    built = home / "building" / name
    # not the links of a test's home folder: what is published is a model's own
    shutil.copytree(tokenizer_from.path / "tokenizer", built / "tokenizer", symlinks=False)
    if chat_template is not None:
        (built / "tokenizer" / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
    (built / SCRIPT_FILE).write_bytes(msgspec.json.encode(ScriptFile(scenarios=list(scenarios))))
    files = describe_files(built)
    manifest = replace(
        tokenizer_from.manifest,
        name=name,
        variant=VARIANT,
        kind="scripted",
        format="script",
        quantization="none",
        source={},
        tools={},
        files=files,
        size_bytes=sum(entry.size_bytes for entry in files.values()),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        memory_bytes=None,
    )
    return publish(home, built, manifest)
