"""Token ids with a meaning: the spec's, else the checkpoint's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from build_engines.artefact import SpecialTokens
from build_engines.checkpoint import Checkpoint
from build_engines.errors import SourceError
from build_engines.spec import TokenOptions

GENERATION_CONFIG = "generation_config.json"


def special_tokens(
    options: TokenOptions, checkpoint: Checkpoint | None, tokenizer: Path | None = None
) -> SpecialTokens:
    """What the spec leaves out is read from the written tokenizer, else from the checkpoint.

    Raises SourceError where neither says what ends an answer.
    """
    found = _found(checkpoint) if checkpoint else {}
    if tokenizer is not None:
        found |= _read_json(tokenizer / GENERATION_CONFIG)
    eos_ids = options.eos_ids or _ids(found.get("eos_token_id"))
    if not eos_ids:
        raise SourceError(
            "neither the spec nor the checkpoint says which token ends an answer: "
            "write [tokens] eos_ids into a spec and give it by --spec"
        )
    bos_ids, pad_ids = _ids(found.get("bos_token_id")), _ids(found.get("pad_token_id"))
    return SpecialTokens(
        bos_id=options.bos_id if options.bos_id is not None else next(iter(bos_ids), None),
        eos_ids=eos_ids,
        pad_id=options.pad_id if options.pad_id is not None else next(iter(pad_ids), None),
        fill_in_middle=options.fill_in_middle,
    )


def _found(checkpoint: Checkpoint) -> dict[str, Any]:
    """bos_token_id, eos_token_id and pad_token_id as Hugging Face spells them."""
    config = checkpoint.config
    if checkpoint.format == "gguf":
        prefix = "tokenizer.ggml"
        # eot ends a turn, eos a document, where a file has both
        ends = [config.get(f"{prefix}.{name}_token_id") for name in ("eot", "eos")]
        return {
            "bos_token_id": config.get(f"{prefix}.bos_token_id"),
            "eos_token_id": list(dict.fromkeys(end for end in ends if end is not None)),
            "pad_token_id": config.get(f"{prefix}.padding_token_id"),
        }
    named = {key: value for key, value in config.items() if key.endswith("_token_id")}
    generation = _read_json(checkpoint.path / GENERATION_CONFIG)
    return {**named, **{key: value for key, value in generation.items() if value is not None}}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        return {}
    except msgspec.DecodeError as exc:
        raise SourceError(f"{path}: {exc}") from exc


def _ids(value: object) -> list[int]:
    if isinstance(value, int):
        return [value]
    return [entry for entry in value if isinstance(entry, int)] if isinstance(value, list) else []
