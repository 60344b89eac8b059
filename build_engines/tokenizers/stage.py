"""The stage that makes a model's tokenizer, for every kind; done again when our part of it changes.

Cheap to import: the libraries are large and come when the stage runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from build_engines.recipe import Order
from build_engines.stages import Stage, StageContext, code_hash
from build_engines.tokenizers.templates import template_hash

TOKENIZER = "tokenizer"
_REQUIRED_BYTES = 64 << 20

WriteTokenizer = Callable[..., object]  # as tokenizers.write.write_tokenizer


def write_tokenizer(checkpoint: Path, directory: Path, **options: Any) -> None:
    """`tokenizers.write.write_tokenizer`, imported when it is called."""
    from build_engines.tokenizers import write

    write.write_tokenizer(checkpoint, directory, **options)


def tokenizer_inputs(order: Order, max_seq_len: int) -> dict[str, Any]:
    """What a tokenizer is made from beside the checkpoint: the template's text and our code too.

    Raises SpecError for a template that there is not.
    """
    name = order.spec.chat_template
    return {
        "max_seq_len": max_seq_len,
        "chat_template": None if name is None else template_hash(name),
        "code": code_hash(Path(__file__).parent),
    }


def tokenizer_stage(
    order: Order,
    *,
    max_seq_len: int,
    tools: Mapping[str, str],
    write: WriteTokenizer = write_tokenizer,
    required_bytes: int = 0,
) -> Stage:
    """The tokenizer of the checkpoint, as its files; `required_bytes` are on top of its own."""

    def run(out: Path, context: StageContext) -> None:
        assert order.fetched is not None
        write(
            order.fetched,
            out,
            max_seq_len=max_seq_len,
            chat_template=order.spec.chat_template,
        )

    return Stage(
        name=TOKENIZER,
        inputs={**tokenizer_inputs(order, max_seq_len), "tools": dict(tools)},
        run=run,
        required_bytes=_REQUIRED_BYTES + required_bytes,
    )
