"""Writes the tokenizer of a checkpoint into an artefact: three plain files that need no code.

tokenizer.json, tokenizer_config.json and, for a chat model, chat_template.jinja.
"""

from __future__ import annotations

from pathlib import Path

import orjson
from gguf import GGUFReader

from build_engines.artefact import SpecialTokens
from build_engines.tokenizers.ends import end_ids
from build_engines.tokenizers.found import DEFAULT_TEMPLATE, FoundTokenizer
from build_engines.tokenizers.gguf import read_gguf

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"


def write_tokenizer(checkpoint: GGUFReader, directory: Path, *, max_seq_len: int) -> SpecialTokens:
    """Makes `directory` and fills it; returns the ids that have a meaning to the engine.

    Raises:
        ConversionError: the tokenizer is of a family that is not supported, or broken.
    """
    found = read_gguf(checkpoint)
    directory.mkdir(parents=True, exist_ok=True)
    found.tokenizer.save(str(directory / TOKENIZER_FILE))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_seq_len,
        "clean_up_tokenization_spaces": False,
        **found.roles,
    }
    (directory / CONFIG_FILE).write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2))
    _write_templates(found, directory)
    return _special_tokens(found)


def _write_templates(found: FoundTokenizer, directory: Path) -> None:
    template = found.templates.get(DEFAULT_TEMPLATE)
    if template is not None:
        (directory / TEMPLATE_FILE).write_text(template, encoding="utf-8")


def _special_tokens(found: FoundTokenizer) -> SpecialTokens:
    def id_of(role: str) -> int | None:
        token = found.roles.get(role)
        return None if token is None else found.tokenizer.token_to_id(token)

    return SpecialTokens(
        bos_id=id_of("bos_token"),
        eos_ids=end_ids(found.tokenizer, found.end_ids),
        pad_id=id_of("pad_token"),
    )
