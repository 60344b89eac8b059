"""Writes the tokenizer of a checkpoint into an artefact: plain files that need no code.

tokenizer.json, tokenizer_config.json, generation_config.json (what ends an answer) and, for a chat
model, chat_template.jinja.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import orjson
from gguf import GGUFReader

from build_engines.artefacts.artefact import SpecialTokens
from build_engines.checkpoints.gguf_file import open_gguf
from build_engines.checkpoints.special_tokens import write_special_tokens
from build_engines.tokenizers.ends import end_ids
from build_engines.tokenizers.found import DEFAULT_TEMPLATE, FoundTokenizer
from build_engines.tokenizers.gguf import read_gguf
from build_engines.tokenizers.huggingface import read_huggingface
from build_engines.tokenizers.templates import read_template

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"
MORE_TEMPLATES = "additional_chat_templates"


def write_tokenizer(
    checkpoint: Path | GGUFReader,
    directory: Path,
    *,
    max_seq_len: int,
    chat_template: str | None = None,
) -> SpecialTokens:
    """Makes `directory` and fills it; returns the ids that have a meaning to the engine.

    Args:
        checkpoint: a Hugging Face checkpoint's directory, or a GGUF file.
        chat_template: name of one of ours; None: the checkpoint's own, if it has one.

    Raises:
        SpecError: there is no template of that name.
        ConversionError: the tokenizer is of a family that is not supported.
        SourceError: its files are broken.
    """
    found = _read(checkpoint)
    templates = found.templates
    if chat_template is not None:
        templates = {DEFAULT_TEMPLATE: read_template(chat_template)}
    directory.mkdir(parents=True, exist_ok=True)
    found.tokenizer.save(str(directory / TOKENIZER_FILE))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_seq_len,
        "clean_up_tokenization_spaces": False,
        **found.roles,
    }
    tokens = _special_tokens(found)
    (directory / CONFIG_FILE).write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2))
    write_special_tokens(tokens, directory)
    _write_templates(templates, directory)
    return tokens


def _read(checkpoint: Path | GGUFReader) -> FoundTokenizer:
    if isinstance(checkpoint, Path):
        if checkpoint.is_dir():
            return read_huggingface(checkpoint)
        checkpoint = open_gguf(checkpoint)
    return read_gguf(checkpoint)


def _write_templates(templates: Mapping[str, str], directory: Path) -> None:
    """In the places where transformers looks for them."""
    for name, template in templates.items():
        path = directory / TEMPLATE_FILE
        if name != DEFAULT_TEMPLATE:
            path = directory / MORE_TEMPLATES / f"{Path(name).name}.jinja"
            path.parent.mkdir(exist_ok=True)
        path.write_bytes(template.encode())


def _special_tokens(found: FoundTokenizer) -> SpecialTokens:
    def id_of(role: str) -> int | None:
        token = found.roles.get(role)
        return None if token is None else found.tokenizer.token_to_id(token)

    return SpecialTokens(
        bos_id=id_of("bos_token"),
        eos_ids=end_ids(found.tokenizer, found.end_ids),
        pad_id=id_of("pad_token"),
    )
