"""What is known of an artefact that is OpenVINO IR and a tokenizer, wherever the IR comes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from build_engines.artefacts.artefact import Limits
from build_engines.checkpoints.source import source_facts
from build_engines.checkpoints.special_tokens import special_tokens
from build_engines.recipe import Order, Produced


def describe_ir(
    order: Order,
    done: Mapping[str, Path],
    ir_stage: str,
    *,
    max_seq_len: int,
    tools: Mapping[str, str],
) -> Produced:
    """Raises ConversionError for IR that the engine cannot run."""
    from build_engines.cpu import openvino_ir

    return Produced(
        format="openvino_ir",
        source=source_facts(order.source, done["fetch"]),
        tools=dict(tools),
        limits=Limits(
            max_seq_len=max_seq_len,
            max_input_len=max_seq_len - 1,  # one token must fit behind the prompt
            vocab_size=openvino_ir.check(done[ir_stage]),
        ),
        tokens=special_tokens(order.spec.tokens, done["tokenizer"]),
    )
