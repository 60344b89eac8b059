"""Reads the tokenizer of a Hugging Face checkpoint; never runs the code in it.

tokenizer.json as it is; else the files of SentencePiece, Qwen-1, ChatGLM3, GLM-4 and Mistral.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
from tokenizers import Tokenizer

from build_engines.errors import ConversionError, SourceError
from build_engines.tokenizers.found import (
    DEFAULT_TEMPLATE,
    ROLES,
    FoundTokenizer,
    SpecialToken,
    add_tokens,
    surround,
)
from build_engines.tokenizers.ranks import (
    glm4_tokenizer,
    is_ranks,
    qwen_tokenizer,
    tekken_tokenizer,
)
from build_engines.tokenizers.sentencepiece import SPACE, Piece, sentencepiece_bpe
from build_engines.tokenizers.sentencepiece_file import Kind, read_sentencepiece_file

_FILES = ("tokenizer.json", "tokenizer.model", "qwen.tiktoken", "tekken.json")
# Source: tokenization_chatglm.py of ChatGLM3-6B.
CHATGLM3_SPECIAL_TOKENS = (
    *("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
)
# What the code of the checkpoints says, by the file that holds the vocabulary.
_DEFAULT_ROLES = {
    "qwen.tiktoken": {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
    "tekken.json": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
}


class _Checkpoint:
    """The small files of a checkpoint's directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.model = self._read("config.json")
        self.config = self._read("tokenizer_config.json")
        self.special_map = self._read("special_tokens_map.json")
        self.generation = self._read("generation_config.json")
        self.added: dict[int, Mapping[str, Any]] = {
            **dict(sorted(self._more_tokens())),
            **{
                int(key): value
                for key, value in self.config.get("added_tokens_decoder", {}).items()
            },
        }

    def _more_tokens(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for text, index in self._read("added_tokens.json").items():
            yield index, {"content": text}

    def _read(self, name: str) -> dict[str, Any]:
        """An object's file; nothing if it is missing. Raises SourceError for a broken one."""
        path = self.directory / name
        if not path.is_file():
            return {}
        try:
            found = orjson.loads(path.read_bytes())
        except orjson.JSONDecodeError as exc:
            raise SourceError(f"{path} is not JSON: {exc}") from exc
        if not isinstance(found, dict):
            raise SourceError(f"{path} is not a JSON object")
        return found

    @property
    def is_chatglm3(self) -> bool:
        return self.model.get("model_type") == "chatglm"

    def special_tokens(self) -> Iterator[SpecialToken]:
        for token in self.added.values():
            yield SpecialToken(
                text=token["content"],
                is_control=bool(token.get("special", True)),
                strips_right=bool(token.get("rstrip", False)),
            )


def read_huggingface(directory: Path) -> FoundTokenizer:
    """
    Raises:
        ConversionError: there is no tokenizer that can be read without remote code.
        SourceError: one of its files is broken.
    """
    checkpoint = _Checkpoint(directory)
    source = next((name for name in _FILES if (directory / name).is_file()), None)
    if source is None:
        raise ConversionError(f"{directory} has no tokenizer: none of {', '.join(_FILES)}")
    tokenizer = _tokenizer(checkpoint, source)
    roles = {**_DEFAULT_ROLES.get(source, {}), **_sentencepiece_roles(tokenizer, source)}
    roles |= dict(_roles(checkpoint))
    roles = {role: text for role, text in roles.items() if tokenizer.token_to_id(text) is not None}
    if source != "tokenizer.json":
        adds_bos = checkpoint.config.get("add_bos_token", source != "qwen.tiktoken")
        surround(
            tokenizer,
            begin=roles.get("bos_token") if adds_bos and not checkpoint.is_chatglm3 else None,
            end=roles.get("eos_token") if checkpoint.config.get("add_eos_token") else None,
        )
    return FoundTokenizer(
        tokenizer=tokenizer,
        roles=roles,
        end_ids=tuple(dict.fromkeys(_declared_ends(checkpoint, tokenizer, roles))),
        templates=_templates(checkpoint),
    )


def _tokenizer(checkpoint: _Checkpoint, source: str) -> Tokenizer:
    path = checkpoint.directory / source
    if source == "tokenizer.json":
        return _plain_tokenizer(checkpoint, path)
    if source == "qwen.tiktoken":
        return qwen_tokenizer(path)
    if source == "tekken.json":
        return tekken_tokenizer(path)
    if is_ranks(path):
        if not checkpoint.is_chatglm3:
            raise ConversionError(f"{path} is a vocabulary of tiktoken: only GLM-4's is known")
        return glm4_tokenizer(
            path, {key: value["content"] for key, value in checkpoint.added.items()}
        )
    return _sentencepiece_tokenizer(checkpoint, path)


def _plain_tokenizer(checkpoint: _Checkpoint, path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as exc:  # the library has no type for it
        raise SourceError(f"{path} is not a tokenizer: {exc}") from exc
    tokenizer.no_truncation()  # some keep the cuts and the padding of their training
    tokenizer.no_padding()
    unknown = [
        token for token in checkpoint.special_tokens() if tokenizer.token_to_id(token.text) is None
    ]
    tokenizer.add_tokens([token.text for token in unknown])
    add_tokens(tokenizer, unknown)
    for index, token in checkpoint.added.items():
        found = tokenizer.token_to_id(token["content"])
        if found != index:
            raise SourceError(
                f"{path} has token {token['content']} at {found}, the files beside it at {index}"
            )
    return tokenizer


def _sentencepiece_tokenizer(checkpoint: _Checkpoint, path: Path) -> Tokenizer:
    file = read_sentencepiece_file(path)
    added = {index: token["content"] for index, token in checkpoint.added.items()}
    if checkpoint.is_chatglm3:
        added = dict(enumerate(CHATGLM3_SPECIAL_TOKENS, len(file.pieces)))
    pieces = [*file.pieces]
    for index in range(len(pieces), max(added, default=-1) + 1):
        text = added.get(index, f"[PAD{index}]")
        pieces.append(Piece(text=text, score=0.0, is_mergeable=False))
    kinds = dict(enumerate(file.kinds))
    unknown = next((file.pieces[i].text for i, kind in kinds.items() if kind == Kind.UNKNOWN), None)
    tokenizer = sentencepiece_bpe(pieces, file.normalization, unknown=unknown)
    special = {Kind.UNKNOWN, Kind.CONTROL, Kind.USER_DEFINED}
    add_tokens(
        tokenizer,
        [
            *(
                SpecialToken(
                    text=file.pieces[i].text,
                    is_control=kind != Kind.USER_DEFINED,
                    is_normalized=SPACE in file.pieces[i].text,
                )
                for i, kind in kinds.items()
                if kind in special and i not in checkpoint.added
            ),
            *(checkpoint.special_tokens()),
            *(SpecialToken(text=text) for text in added.values() if checkpoint.is_chatglm3),
        ],
    )
    return tokenizer


def _sentencepiece_roles(tokenizer: Tokenizer, source: str) -> dict[str, str]:
    if source != "tokenizer.model":
        return {}
    names = {"bos_token": ("<s>", "<bos>"), "eos_token": ("</s>", "<eos>"), "unk_token": ("<unk>",)}
    ids = {token.content: token.special for token in tokenizer.get_added_tokens_decoder().values()}
    return {role: text for role, texts in names.items() for text in texts if ids.get(text)}


def _roles(checkpoint: _Checkpoint) -> Iterator[tuple[str, str]]:
    for settings in (checkpoint.special_map, checkpoint.config):
        for role in ROLES:
            found = settings.get(role)
            text = found.get("content") if isinstance(found, dict) else found
            if isinstance(text, str) and text:
                yield role, text


def _declared_ends(
    checkpoint: _Checkpoint, tokenizer: Tokenizer, roles: Mapping[str, str]
) -> Iterator[int]:
    eos = tokenizer.token_to_id(roles.get("eos_token", ""))
    if eos is not None:
        yield eos
    for settings in (checkpoint.generation, checkpoint.model):
        found = settings.get("eos_token_id")
        for index in found if isinstance(found, list) else [found]:
            if isinstance(index, int) and tokenizer.id_to_token(index) is not None:
                yield index


def _templates(checkpoint: _Checkpoint) -> dict[str, str]:
    """Those in tokenizer_config.json, and the files, which are newer and win."""
    listed = checkpoint.config.get("chat_template") or []
    if isinstance(listed, str):
        listed = [{"name": DEFAULT_TEMPLATE, "template": listed}]
    templates = {entry["name"]: entry["template"] for entry in listed}
    for path in sorted((checkpoint.directory / "additional_chat_templates").glob("*.jinja")):
        templates[path.stem] = path.read_text(encoding="utf-8")
    default = checkpoint.directory / "chat_template.jinja"
    if default.is_file():
        templates[DEFAULT_TEMPLATE] = default.read_text(encoding="utf-8")
    return templates
