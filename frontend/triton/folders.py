"""The folders of Triton's repository: one a model, rendered from `triton_models/`.

    repository/<name>/config.pbtxt     names the load's number as its only version
                      <number>/        model.py, for kinds that run Python

It knows artefacts and files; nothing of Triton's answers.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from build_engines.artefacts.artefact import Artefact
from frontend.errors import ModelLoadFailed
from frontend.settings import Settings
from frontend.triton.capabilities import TOKENIZER_HASH, VOCABULARY
from frontend.triton.kinds import undeclared, values_of_kind
from triton_models.render import model_file, render_config

_CONFIG = "config.pbtxt"
_MODEL = "model.py"
_TOKENIZER = "tokenizer/tokenizer.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """The files of one model's folder.

    Every load has a version number of its own, and its configuration names it as the only one: a
    request that was prepared for another load is refused by Triton.
    """

    number: int
    config: bytes
    model: bytes | None  # None: the backend brings its own code


def write_model_folder(settings: Settings, artefact: Artefact) -> Path:
    """Render repository/<name>/ for an artefact; each file changes atomically. Return the folder.

    What was there for another load stays beside it until that one has succeeded.

    Raises:
        ModelLoadFailed: there is no engine of the artefact's kind here.
    """
    manifest = artefact.manifest
    try:
        values = {
            "model_name": manifest.name,
            "variant": manifest.variant,
            "artefact_dir": str(artefact.path),
            "max_seq_len": manifest.limits.max_seq_len,
            "max_input_len": manifest.limits.max_input_len,
            "vocab_size": manifest.limits.vocab_size,
            **values_of_kind(settings, artefact),
        }
        config = render_config(manifest.kind, values, undeclared=undeclared(artefact))
    except (ValueError, KeyError, OSError) as exc:
        raise ModelLoadFailed(model=manifest.name, reason=str(exc)) from exc
    number = 1 + max(_version_numbers(settings.home, manifest.name), default=0)
    source = model_file(manifest.kind)
    folder = ModelFolder(
        number=number,
        config=(config + _own_settings(number, artefact)).encode(),
        model=None if source is None else source.read_bytes(),
    )
    return restore_model_folder(settings.home, manifest.name, folder)


def _own_settings(number: int, artefact: Artefact) -> str:
    """What the frontend reads back of every kind, behind the template's own settings."""
    tokenizer = [
        f"{path} {entry.sha256}"
        for path, entry in sorted(artefact.manifest.files.items())
        if path.startswith("tokenizer/")
    ]
    tokenizer_hash = hashlib.sha256("\n".join(tokenizer).encode()).hexdigest()[:16]
    return (
        f"version_policy {{ specific {{ versions: [ {number} ] }} }}\n"
        f'parameters {{ key: "{TOKENIZER_HASH}" '
        f'value: {{ string_value: "{tokenizer_hash}" }} }}\n'
        f'parameters {{ key: "{VOCABULARY}" '
        f'value: {{ string_value: "{_vocabulary(artefact)}" }} }}\n'
    )


def _vocabulary(artefact: Artefact) -> str:
    """A hash of the pieces of text and their ids; tokens that were added to them do not count.

    Models of a family have tokenizers that differ in little things (templates, added tokens), and
    can guess for each other. Empty: the tokenizer has no such list.
    """
    if _TOKENIZER not in artefact.manifest.files:
        return ""
    model = msgspec.json.decode((artefact.path / _TOKENIZER).read_bytes()).get("model", {})
    pieces = model.get("vocab") or []
    if isinstance(pieces, dict):
        pieces = sorted(pieces.items())
    return hashlib.sha256(msgspec.json.encode(pieces)).hexdigest()[:16] if pieces else ""


def served_artefact_dir(home: Path, name: str) -> Path | None:
    """The artefact's directory that a model's folder names; None: the model has no folder."""
    config = _config(home, name)
    return None if config is None else Path(config.parameters["artefact_dir"].string_value)


def read_model_folder(home: Path, name: str) -> ModelFolder | None:
    folder = home / "repository" / name
    numbers = _version_numbers(home, name)
    if not numbers or not (folder / _CONFIG).is_file():
        return None
    number = max(numbers)
    model = folder / str(number) / _MODEL
    return ModelFolder(
        number=number,
        config=(folder / _CONFIG).read_bytes(),
        model=model.read_bytes() if model.is_file() else None,
    )


def restore_model_folder(home: Path, name: str, contents: ModelFolder) -> Path:
    folder = home / "repository" / name
    version = folder / str(contents.number)
    version.mkdir(parents=True, exist_ok=True)
    if contents.model is not None:
        _replace(version / _MODEL, contents.model)
    _replace(folder / _CONFIG, contents.config)
    return folder


def _version_numbers(home: Path, name: str) -> list[int]:
    folder = home / "repository" / name
    return [int(one.name) for one in folder.glob("[0-9]*") if one.name.isdecimal()]


def remove_other_versions(home: Path, name: str) -> None:
    """Keep the one that the configuration names; Triton has read the others to their end."""
    config = _config(home, name)
    kept = [] if config is None else list(config.version_policy.specific.versions)
    for number in _version_numbers(home, name):
        if number not in kept:
            shutil.rmtree(home / "repository" / name / str(number))


def _config(home: Path, name: str) -> Any:
    """A model_config_pb2.ModelConfig, or None."""
    try:
        text = (home / "repository" / name / _CONFIG).read_text("utf-8")
    except FileNotFoundError:
        return None
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def _replace(path: Path, contents: bytes) -> None:
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_bytes(contents)
    new.replace(path)
