"""Writes what the C++ backend compiles grammars with: the vocabulary, in xgrammar's form.

The keys are what `model_instance_state.cc` of tensorrtllm_backend reads; upstream makes the file by
examples/generate_xgrammar_tokenizer_info.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

FILE_NAME = "xgrammar_tokenizer_info.json"


def write_tokenizer_info(
    tokenizer_json: Path, eos_ids: Sequence[int], vocab_size: int, target: Path
) -> None:
    """Writes the file for a tokenizer.json. An id without a token gets an empty one.

    `vocab_size` is the engine's, which may be larger than the tokenizer's.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    ids = tokenizer.get_vocab(with_added_tokens=True)
    vocabulary = [""] * max(vocab_size, max(ids.values(), default=-1) + 1)
    for token, index in ids.items():
        vocabulary[index] = token
    content = {
        "encoded_vocab": vocabulary,
        "tokenizer_str": tokenizer.to_str(),
        "stop_token_ids": list(eos_ids),
    }
    target.write_bytes(msgspec.json.encode(content))
