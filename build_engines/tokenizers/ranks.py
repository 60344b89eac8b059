"""Reads the vocabularies of tiktoken: byte strings and their ranks, which are merges and ids.

Qwen-1's `qwen.tiktoken`, GLM-4's `tokenizer.model` and Mistral's `tekken.json`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from tokenizers import Tokenizer, normalizers

from build_engines.errors import SourceError
from build_engines.tokenizers.byte_level import all_merges, as_letters, byte_level
from build_engines.tokenizers.cuts import CUTS
from build_engines.tokenizers.found import SpecialToken, add_tokens

# Source: tokenization_qwen.py of Qwen-7B-Chat.
QWEN_SPECIAL_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *(f"<|extra_{index}|>" for index in range(205)),
)
# Source: mistral-common, tokens/tokenizers/tekken.py; newer files list their own.
_TEKKEN_SPECIAL_TOKENS = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]"),
    *("[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    "[TOOL_CONTENT]",
)


def read_ranks(path: Path) -> list[bytes]:
    """The tokens of a tiktoken file by rank. Raises SourceError for another file."""
    found: dict[int, bytes] = {}
    try:
        for line in path.read_bytes().split(b"\n"):
            if line.strip():
                token, rank = line.split()
                found[int(rank)] = base64.b64decode(token, validate=True)
    except (ValueError, binascii.Error) as exc:
        raise SourceError(f"{path} is not a vocabulary of tiktoken: {exc}") from exc
    if set(found) != set(range(len(found))):
        raise SourceError(f"{path} leaves out ranks: it is not whole")
    return [found[rank] for rank in range(len(found))]


def is_ranks(path: Path) -> bool:
    """Whether a file begins as tiktoken's do: SentencePiece's have the same name in GLM-4."""
    with path.open("rb") as file:
        first = file.readline(200).split()
    return len(first) == 2 and first[1] == b"0"


def qwen_tokenizer(path: Path) -> Tokenizer:
    """Raises SourceError for a broken file."""
    ranks = read_ranks(path)
    special = {len(ranks) + index: text for index, text in enumerate(QWEN_SPECIAL_TOKENS)}
    tokenizer = _from_ranks(ranks, special, CUTS["qwen2"])
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def glm4_tokenizer(path: Path, special: Mapping[int, str]) -> Tokenizer:
    """`special`: id -> token. Raises SourceError for a broken file."""
    return _from_ranks(read_ranks(path), special, CUTS["glm4"])


def tekken_tokenizer(path: Path) -> Tokenizer:
    """Raises SourceError for a broken file."""
    try:
        file = orjson.loads(path.read_bytes())
        config = file["config"]
        num_special = config["default_num_special_tokens"]
        num_ranks = config["default_vocab_size"] - num_special
        ranks = [base64.b64decode(entry["token_bytes"]) for entry in file["vocab"][:num_ranks]]
        special = _tekken_special_tokens(file, num_special)
        return _from_ranks(ranks, special, (config["pattern"],), first_id=num_special)
    except (KeyError, TypeError, ValueError) as exc:
        raise SourceError(f"{path} is not a tokenizer of Mistral's: {exc!r}") from exc


def _tekken_special_tokens(file: Mapping[str, Any], num_special: int) -> dict[int, str]:
    fillers = {index: f"<SPECIAL_{index}>" for index in range(num_special)}
    listed = file.get("special_tokens")
    if listed is None:
        return fillers | dict(enumerate(_TEKKEN_SPECIAL_TOKENS[:num_special]))
    return fillers | {entry["rank"]: entry["token_str"] for entry in listed}


def _from_ranks(
    ranks: Sequence[bytes],
    special: Mapping[int, str],
    expressions: tuple[str, ...],
    *,
    first_id: int = 0,
) -> Tokenizer:
    letters = [as_letters(token) for token in ranks]
    vocabulary = {text: first_id + rank for rank, text in enumerate(letters)}
    vocabulary |= {text: token_id for token_id, text in special.items()}
    tokenizer = byte_level(vocabulary, all_merges(letters), expressions, keeps_words=True)
    add_tokens(tokenizer, (SpecialToken(text=text) for text in special.values()))
    return tokenizer
