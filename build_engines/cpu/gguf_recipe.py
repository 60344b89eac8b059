"""Makes artefacts of the `llama_cpp` kind: a GGUF file as it is, and a tokenizer made from it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from build_engines.artefacts.artefact import Limits
from build_engines.checkpoints.shards import shard_paths
from build_engines.checkpoints.source import source_facts
from build_engines.checkpoints.special_tokens import special_tokens
from build_engines.ordering import require_gguf
from build_engines.recipe import BuildPlan, Order, Produced, Section
from build_engines.tokenizers.stage import tokenizer_stage
from build_engines.verify.stage import verify_stage

if TYPE_CHECKING:
    from build_engines.verify.oracle import Oracle

_TOOLS = ("gguf", "tokenizers", "xllamacpp")
# The fetched files keep their names: llama.cpp finds the shards of a split file by them
_LAYOUT = {"fetch": "", "tokenizer": "tokenizer"}


class GgufRecipe:
    """tokenizer -> verify. The weights become links to the fetched files, where they can."""

    def plan(self, order: Order) -> BuildPlan:
        """See Recipe."""
        require_gguf(order)
        max_seq_len = _max_seq_len(order)
        tools = {name: metadata.version(name) for name in _TOOLS}
        weights = shard_paths(order.fetched) if order.fetched is not None else []
        num_bytes = sum(path.stat().st_size for path in weights)
        is_copied = any(path.stat().st_dev != _device(order.home) for path in weights)
        tokenizer = tokenizer_stage(
            order,
            max_seq_len=max_seq_len,
            tools=tools,
            required_bytes=num_bytes if is_copied else 0,
        )

        def describe(done: Mapping[str, Path]) -> Produced:
            return _describe(order, done, max_seq_len, tools)

        verify = verify_stage(
            order,
            layout=_LAYOUT,
            describe=describe,
            find_oracle=lambda done: _same_file(order),
            required_memory_bytes=2 * num_bytes,  # llama.cpp repacks some quantizations
        )
        return BuildPlan(stages=(tokenizer, verify), layout=_LAYOUT, describe=describe)

    def sections(self, order: Order) -> list[Section]:
        """Nothing beside the stages."""
        return []


def _device(home: Path) -> int:
    return next(path for path in (home, *home.parents) if path.exists()).stat().st_dev


def _max_seq_len(order: Order) -> int:
    """What is asked for, and no more than the file's context."""
    given = order.max_seq_len or 0
    if order.checkpoint is None:
        return given
    return min(given, order.checkpoint.architecture.max_position_embeddings) or given


def _same_file(order: Order) -> Oracle:
    """Held to llama.cpp alone: what remains is what we do."""
    from build_engines.verify.oracle import Oracle, OracleFormat

    assert order.fetched is not None
    name = order.fetched.name
    return Oracle(
        format=OracleFormat.GGUF,
        path=order.fetched,
        description=f"llama.cpp on {name}",
        has_same_weights=True,
    )


def _describe(
    order: Order, done: Mapping[str, Path], max_seq_len: int, tools: dict[str, str]
) -> Produced:
    from build_engines.checkpoints import gguf_file

    assert order.fetched is not None
    reader = gguf_file.open_gguf(order.fetched)
    return Produced(
        format="gguf",
        quantization=gguf_file.quantization(reader),
        source=source_facts(order.source, done["fetch"]),
        tools=tools,
        limits=Limits(
            max_seq_len=max_seq_len,
            max_input_len=max_seq_len - 1,  # one token must fit behind the prompt
            vocab_size=len(gguf_file.field(reader, "tokenizer.ggml.tokens")),
        ),
        tokens=special_tokens(order.spec.tokens, done["tokenizer"]),
    )
