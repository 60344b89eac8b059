"""Token ids with a meaning: the spec's, else those that the tokenizer stage has found."""

from __future__ import annotations

from pathlib import Path

import msgspec

from build_engines.artefacts.artefact import SpecialTokens
from build_engines.errors import SourceError
from build_engines.spec import TokenOptions

FILE_NAME = "generation_config.json"  # as Hugging Face spells and names it


class _GenerationConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    bos_token_id: int | None = None
    eos_token_id: list[int] = []
    pad_token_id: int | None = None


def write_special_tokens(tokens: SpecialTokens, directory: Path) -> None:
    """Leaves beside a tokenizer what `special_tokens` reads."""
    content = _GenerationConfig(
        bos_token_id=tokens.bos_id, eos_token_id=tokens.eos_ids, pad_token_id=tokens.pad_id
    )
    (directory / FILE_NAME).write_bytes(msgspec.json.format(msgspec.json.encode(content)))


def special_tokens(options: TokenOptions, tokenizer: Path | None) -> SpecialTokens:
    """What the spec leaves out is read from the written tokenizer's directory, if there is one.

    Raises SourceError where neither says what ends an answer.
    """
    found = _GenerationConfig()
    if tokenizer is not None:
        found = msgspec.json.decode((tokenizer / FILE_NAME).read_bytes(), type=_GenerationConfig)
    eos_ids = options.eos_ids or found.eos_token_id
    if not eos_ids:
        raise SourceError(
            "neither the spec nor the checkpoint says which token ends an answer: "
            "write [tokens] eos_ids into a spec and give it by --spec"
        )
    return SpecialTokens(
        bos_id=found.bos_token_id if options.bos_id is None else options.bos_id,
        eos_ids=eos_ids,
        pad_id=found.pad_token_id if options.pad_id is None else options.pad_id,
        fill_in_middle=options.fill_in_middle,
    )
