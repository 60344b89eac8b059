"""The language model on OpenVINO: one call computes one step of the in-flight batch.

Knows graphs, tensors and the memory of the keys and values; which block holds whose tokens is told
by the caller. Knows nothing about sampling or scheduling.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import openvino as ov
import openvino.opset13 as opset
from numpy.typing import NDArray
from openvino._offline_transformations import paged_attention_transformation

from triton_models.batching.backend import nothing

_KV_CACHES = ("key_cache", "value_cache")

# By default u8 keys are quantized by channel, and the whole block is quantized again with each
# token that is added to it: the more steps, the more its contents drift.
_KV_CONFIG = {
    "f32": {"KV_CACHE_PRECISION": "f32"},
    "f16": {"KV_CACHE_PRECISION": "f16"},
    "u8": {"KV_CACHE_PRECISION": "u8", "KEY_CACHE_QUANT_MODE": "BY_TOKEN"},
}

# A step of one token alone has a graph of its own as long as that is cheap: it is a second copy of
# the weights. Those of f16 and f32 the CPU plugin keeps as f32, and once more in the order that its
# kernels read: 1.07 GB of a file of 0.27 GB.
MAX_SECOND_COPY_BYTES = 1 << 30
_COPIED_BYTES = {"f16": 4, "bf16": 4, "f32": 2}  # of each byte; else 1

_HUGE_PAGE_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens of one sequence, to be computed in one step.

    `block_ids` are the sequence's blocks from its first token on, up to the last of `token_ids`.
    """

    token_ids: Seq[int]
    start: int  # position of token_ids[0]
    block_ids: Seq[int]
    num_rows: int  # of logits that are wanted: of the last so many tokens


class Model(Protocol):
    """What PagedBackend needs of a model."""

    block_size: int  # tokens
    num_blocks: int
    vocab_size: int

    def forward(
        self, spans: Seq[Span], while_computing: Callable[[], None] = nothing
    ) -> NDArray[np.float32]:
        """Logits [rows, vocab], the rows that the spans want, in their order.

        Valid until the next call. Releases the GIL while it computes. A sequence may have several
        spans in one call, each of which sees the ones before it. `while_computing` is called once
        the computing has begun.
        """
        ...


class OpenVinoModel:
    """A stateful OpenVINO IR, turned into a paged-attention graph when loaded.

    A row's logits are the same to the last bit whatever else is in the step, and however a prompt
    is cut into spans of two or more tokens. Three things make it so: `_KV_CONFIG`, no step of one
    token (OpenVINO has another kernel for that), and single-token spans for generated tokens.
    """

    def __init__(
        self, ir_path: Path, *, kv_cache_bytes: int, kv_cache_precision: str, num_threads: int
    ) -> None:
        core = ov.Core()
        graph = core.read_model(ir_path)
        paged_attention_transformation(graph)
        _gather_rows_before_lm_head(graph)
        config = {
            "INFERENCE_NUM_THREADS": num_threads or len(os.sched_getaffinity(0)),
            # bf16, the default where the CPU has it, changes greedy texts
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            **_KV_CONFIG[kv_cache_precision],
        }
        compiled = core.compile_model(graph, "CPU", config)
        self._request = compiled.create_infer_request()
        kv_tensors, self.block_size = _allocate_kv(compiled, kv_cache_bytes)
        self._kv_tensors = kv_tensors  # a request does not keep their memory
        for name, tensor in kv_tensors.items():
            self._request.set_tensor(name, tensor)
        num_blocks = next(iter(kv_tensors.values())).shape[0]
        self.num_blocks = num_blocks - 1
        self._padding = Span([0], 0, [num_blocks - 1], 0)
        self.vocab_size = compiled.outputs[0].get_partial_shape()[-1].get_length()
        self._single_step: _SingleStep | None = None
        if _copied_bytes(graph) <= MAX_SECOND_COPY_BYTES:
            self._single_step = _SingleStep(core, graph, config, kv_tensors)

    def forward(
        self, spans: Seq[Span], while_computing: Callable[[], None] = nothing
    ) -> NDArray[np.float32]:
        """See Model."""
        if len(spans) == 1 and len(spans[0].token_ids) == 1:
            spans = [*spans, self._padding]
            if self._single_step is not None and spans[0].num_rows:
                return self._single_step.forward(_inputs(spans), while_computing).reshape(1, -1)
        for name, values in _inputs(spans).items():
            self._request.set_tensor(name, ov.Tensor(values))
        return _run(self._request, while_computing).reshape(-1, self.vocab_size)


class _SingleStep:
    """The step of one sampled token and the padding row, compiled with their shapes.

    OpenVINO then has next to nothing to find out about a step before it computes: with the 800
    nodes of a model of 135M parameters 14 % less time, and the same bits.
    """

    def __init__(
        self, core: Any, graph: Any, config: dict[str, Any], kv_tensors: dict[str, Any]
    ) -> None:
        graph = graph.clone()
        graph.reshape(
            {
                "input_ids": [2],
                "position_ids": [2],
                "past_lens": [2],
                "subsequence_begins": [3],
                "block_indices_begins": [3],
                "sampled_rows": [1],
            }
        )
        self._request = core.compile_model(graph, "CPU", config).create_infer_request()
        for name, tensor in kv_tensors.items():
            self._request.set_tensor(name, tensor)
        self._fixed = {
            port.get_any_name(): self._request.get_tensor(port).data
            for port in graph.inputs
            if port.get_partial_shape().is_static
        }

    def forward(
        self, inputs: dict[str, NDArray[Any]], while_computing: Callable[[], None]
    ) -> NDArray[np.float32]:
        """Logits of the one row that is sampled."""
        for name, values in inputs.items():
            if name in self._fixed:
                self._fixed[name][...] = values
            else:
                self._request.set_tensor(name, ov.Tensor(values))
        return _run(self._request, while_computing)


def _copied_bytes(graph: Any) -> int:
    """What compiling the graph once more takes of memory."""
    weights = [op for op in graph.get_ops() if op.get_type_name() == "Constant"]
    return sum(
        op.get_byte_size() * _COPIED_BYTES.get(op.get_element_type().get_type_name(), 1)
        for op in weights
    )


def _run(request: Any, while_computing: Callable[[], None]) -> NDArray[np.float32]:
    request.start_async()
    while_computing()
    request.wait()
    logits: NDArray[np.float32] = request.get_output_tensor(0).data
    return logits


def _allocate_kv(compiled: Any, kv_cache_bytes: int) -> tuple[dict[str, Any], int]:
    """Makes the tensors of keys and values, [blocks, heads, block_size, bytes of a head], by name;
    returns the block size too."""
    caches = [i for i in compiled.inputs if i.get_any_name().startswith(_KV_CACHES)]
    shapes = [[i.get_partial_shape()[d].get_length() for d in (1, 2, 3)] for i in caches]
    block_bytes = sum(
        int(np.prod(shape)) * cache.get_element_type().size
        for cache, shape in zip(caches, shapes, strict=True)
    )
    num_blocks = kv_cache_bytes // block_bytes
    if num_blocks < 2:
        raise ValueError(f"kv_cache_bytes is below the {2 * block_bytes} bytes of two blocks")
    tensors = {
        cache.get_any_name(): _huge_page_tensor(cache.get_element_type(), [num_blocks, *shape])
        for cache, shape in zip(caches, shapes, strict=True)
    }
    # a quantized key_cache has more rows, for its scales; value_cache has one for each token
    values = [name.startswith("value_cache") for name in tensors].index(True)
    return tensors, shapes[values][1]


def _huge_page_tensor(element_type: Any, shape: Seq[int]) -> Any:
    """Zeros. A step reads blocks from all over it: with pages of 4 kB it is 3 % slower."""
    num_bytes = int(np.prod(shape)) * element_type.size
    memory = mmap.mmap(-1, num_bytes + _HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE)
    memory.madvise(mmap.MADV_HUGEPAGE)
    start = -np.frombuffer(memory, np.uint8).ctypes.data % _HUGE_PAGE_BYTES
    values = np.frombuffer(memory, np.uint8, num_bytes, start).view(element_type.to_dtype())
    return ov.Tensor(values.reshape(shape), shared_memory=True)


def _inputs(spans: Seq[Span]) -> dict[str, NDArray[Any]]:
    """The tensors that describe a step; names are OpenVINO's."""
    token_ids: list[int] = []
    positions: list[int] = []
    past_lens: list[int] = []
    begins = [0]
    block_ids: list[int] = []
    block_begins = [0]
    rows: list[int] = []
    max_len = 0
    for span in spans:
        end = span.start + len(span.token_ids)
        token_ids += span.token_ids
        positions += range(span.start, end)
        past_lens.append(span.start)
        begins.append(len(token_ids))
        block_ids += span.block_ids
        block_begins.append(len(block_ids))
        max_len = max(max_len, end)
        if span.num_rows:
            rows += range(len(token_ids) - span.num_rows, len(token_ids))
    return {
        "input_ids": np.array(token_ids, np.int64),
        "position_ids": np.array(positions, np.int64),
        "past_lens": np.array(past_lens, np.int32),
        "subsequence_begins": np.array(begins, np.int32),
        "block_indices": np.array(block_ids, np.int32),
        "block_indices_begins": np.array(block_begins, np.int32),
        "max_context_len": np.array(max_len, np.int32),
        "sampled_rows": np.array(rows, np.int64),
    }


def _gather_rows_before_lm_head(graph: Any) -> None:
    """Adds the input `sampled_rows`: the costly last MatMul is computed for those rows only."""
    matmul = graph.outputs[0].get_node().input_value(0).get_node()
    while matmul.get_type_name() != "MatMul":
        matmul = matmul.input_value(0).get_node()
    rows = opset.parameter([-1], np.int64, name="sampled_rows")
    rows.output(0).set_names({"sampled_rows"})
    axis = opset.constant(0, dtype=np.int64)
    gathered = opset.gather(matmul.input_value(0), rows, axis)
    matmul.input(0).replace_source_output(gathered.output(0))
    graph.add_parameters([rows])
    graph.validate_nodes_and_infer_types()
