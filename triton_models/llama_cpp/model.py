"""A GGUF file in llama.cpp: loading it, one step of it, and the memory of its keys and values.

Knows the C API's ways; which slot holds whose tokens is told by the caller. Knows nothing about
sampling or scheduling.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from triton_models.llama_cpp.abi import (
    GGML_TYPE_BF16,
    GGML_TYPE_F16,
    GGML_TYPE_F32,
    GGML_TYPE_Q8_0,
    LOAD_MODE_MMAP,
    MAX_SEQUENCES,
    Batch,
    Llama,
    ProgressCallback,
    load_library,
)

# llama.cpp rounds the size of a context up to it
CELL_PADDING = 256
_NO_SLOT = 1  # what llama_decode returns when no cells are left

# Types of keys and values. For f16 and f32 llama.cpp's attention has three ways to compute, chosen
# by the number of tokens in the step and of cells in use: what else is in the batch would change a
# request's numbers. With one of another type it has one way, which sums up in f32.
_KV_TYPES = {
    "f16": (GGML_TYPE_F16, GGML_TYPE_BF16),
    "f32": (GGML_TYPE_F32, GGML_TYPE_F32),
    "q8_0": (GGML_TYPE_Q8_0, GGML_TYPE_Q8_0),
}


class LlamaModelError(RuntimeError):
    """llama.cpp cannot load or run the file; the message has its words."""


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens of one slot, to be computed in one step."""

    slot: int
    token_ids: Seq[int]
    start: int  # position of token_ids[0]
    num_rows: int  # of logits that are wanted: of the last so many tokens


class Model(Protocol):
    """What LlamaBackend needs of a model."""

    vocab_size: int
    num_cells: int  # each holds the keys and values of one token
    num_slots: int
    can_share: bool  # parts of a slot can be copied and removed

    def forward(self, spans: Seq[Span]) -> NDArray[np.float32]:
        """Logits [rows, vocab], the rows that the spans want, in their order; valid until the next
        call. Releases the GIL while it computes."""
        ...

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Gives the first tokens of a slot to an empty one, without a copy of their contents."""
        ...

    def truncate(self, slot: int, num_tokens: int) -> None:
        """Removes all tokens of a slot from that position on."""
        ...

    def has_window(self, slot: int, num_tokens: int) -> bool:
        """Whether all of the slot's first tokens that the next one attends to are still there: a
        model of sliding windows lets go of what is behind them."""
        ...

    def close(self) -> None:
        """Frees everything; nothing is called afterwards."""
        ...


class LlamaModel:
    """Implements `Model` with a file, in shards or not (then `path` is the first of them)."""

    def __init__(
        self,
        path: Path,
        *,
        kv_cache_bytes: int,
        kv_cache_precision: str,
        max_seq_len: int,
        max_num_sequences: int,
        max_num_tokens: int,
        num_resident: int,
        num_threads: int,
        on_progress: Callable[[float], None] = lambda fraction: None,
    ) -> None:
        """`num_resident` slots are for sequences that have ended. `on_progress` hears of the part
        that is loaded, from 0 to 1. Raises LlamaModelError and LlamaAbiError."""
        self._llama = llama = load_library()
        self._model: int | None = _load(llama, path, on_progress)
        self._context: int | None = None
        try:
            is_recurrent = llama.model_is_recurrent(self._model)
            self.can_share = not (is_recurrent or llama.model_is_hybrid(self._model))
            self.num_slots = max_num_sequences + (num_resident if self.can_share else 0)
            self.num_slots = min(self.num_slots, MAX_SEQUENCES)
            if max_num_sequences > self.num_slots:
                raise LlamaModelError(f"max_num_sequences is above llama.cpp's {MAX_SEQUENCES}")
            self.vocab_size = int(llama.vocab_n_tokens(llama.model_get_vocab(self._model)))
            self._num_threads = num_threads or len(os.sched_getaffinity(0))
            if kv_cache_precision not in _KV_TYPES:
                names = ", ".join(_KV_TYPES)
                raise LlamaModelError(f"kv_cache_precision {kv_cache_precision!r}: not of {names}")
            self._kv_types = _KV_TYPES[kv_cache_precision]
            self._window = int(llama.model_n_swa(self._model))
            cell_bytes, slot_bytes = self._measure()
            room = kv_cache_bytes - slot_bytes * self.num_slots
            num_cells = min(max_seq_len * max_num_sequences, room // cell_bytes)
            num_cells = max(num_cells, 1) // CELL_PADDING * CELL_PADDING or CELL_PADDING
            if room < num_cells * cell_bytes:
                needed = kv_cache_bytes - room + num_cells * cell_bytes
                raise LlamaModelError(f"kv_cache_bytes is below the {needed} that it needs")
            self._context = self._make_context(num_cells, max_num_tokens, self.num_slots)
            self.num_cells = int(llama.n_ctx(self._context))
            self._memory = llama.get_memory(self._context)
            if self._memory is None:
                raise LlamaModelError(f"{path.name}: an encoder, which generates no text")
            self._step = _Step(max_num_tokens)
        except BaseException:
            self.close()
            raise

    def forward(self, spans: Seq[Span]) -> NDArray[np.float32]:
        """See Model."""
        batch, num_rows = self._step.fill(spans)
        self._decode(self._context, batch)
        if num_rows == 0:
            return np.empty((0, self.vocab_size), np.float32)
        logits = self._llama.get_logits(self._context)
        return np.ctypeslib.as_array(logits, (num_rows, self.vocab_size))

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """See Model."""
        if num_tokens:
            self._llama.memory_seq_cp(self._memory, source, target, 0, num_tokens)

    def truncate(self, slot: int, num_tokens: int) -> None:
        """See Model."""
        start = num_tokens or -1  # removing a whole slot never fails
        if not self._llama.memory_seq_rm(self._memory, slot, start, -1):
            raise LlamaModelError(f"slot {slot} cannot be cut to {num_tokens} tokens")

    def has_window(self, slot: int, num_tokens: int) -> bool:
        """See Model."""
        if not self._window:
            return True
        first = int(self._llama.memory_seq_pos_min(self._memory, slot))
        return 0 <= first <= max(0, num_tokens - self._window)

    def close(self) -> None:
        """See Model."""
        if self._context is not None:
            self._llama.free(self._context)
        if self._model is not None:
            self._llama.model_free(self._model)
        self._context = self._model = None

    def _measure(self) -> tuple[int, int]:
        """Bytes of a cell and of a slot, as a small context has them: the architecture, its layers
        and their kinds of attention are all in it. Also brings the weights into memory."""
        context = self._make_context(CELL_PADDING, 2, 1)
        try:
            step = _Step(2)
            sizes = []
            for position in range(2):
                batch, _ = step.fill([Span(0, [0], position, 1)])
                self._decode(context, batch)
                sizes.append(int(self._llama.state_seq_get_size(context, 0)))
        finally:
            self._llama.free(context)
        cell_bytes = max(1, sizes[1] - sizes[0])
        return cell_bytes, max(0, sizes[0] - cell_bytes)

    def _make_context(self, num_cells: int, max_num_tokens: int, num_slots: int) -> int:
        params = self._llama.context_default_params()
        params.n_ctx = num_cells
        params.n_batch = params.n_ubatch = max_num_tokens
        params.n_seq_max = num_slots
        params.n_threads = params.n_threads_batch = self._num_threads
        params.type_k, params.type_v = self._kv_types
        params.kv_unified = True
        params.swa_full = True  # else what is shared holds up the cells of a small window
        context: int | None = self._llama.init_from_model(self._model, params)
        if context is None and params.type_k != params.type_v:
            # multi-head latent attention (DeepSeek) keeps one vector for both
            params.type_k = params.type_v
            context = self._llama.init_from_model(self._model, params)
        if context is None:
            raise LlamaModelError(self._llama.why())
        return context

    def _decode(self, context: int | None, batch: Batch) -> None:
        code = self._llama.decode(context, batch)
        if code != 0:
            why = "no cells are left" if code == _NO_SLOT else self._llama.why()
            raise LlamaModelError(f"llama_decode returned {code}: {why}")


class _Step:
    """The arrays of a llama_batch, made once."""

    def __init__(self, max_num_tokens: int) -> None:
        self._tokens = np.zeros(max_num_tokens, np.int32)
        self._positions = np.zeros(max_num_tokens, np.int32)
        self._slots = np.zeros(max_num_tokens, np.int32)
        self._wanted = np.zeros(max_num_tokens, np.int8)
        self._ones = np.ones(max_num_tokens, np.int32)
        # llama_batch wants a list of slots for each token: all have one entry
        first = self._slots.ctypes.data
        self._slot_lists = first + self._slots.itemsize * np.arange(max_num_tokens, dtype=np.uint64)
        self._batch = Batch(
            token=self._tokens.ctypes.data,
            pos=self._positions.ctypes.data,
            n_seq_id=self._ones.ctypes.data,
            seq_id=self._slot_lists.ctypes.data,
            logits=self._wanted.ctypes.data,
        )

    def fill(self, spans: Seq[Span]) -> tuple[Batch, int]:
        """The batch for a step, valid until the next call, and its number of rows of logits."""
        end = num_rows = 0
        self._wanted[:] = 0
        for span in spans:
            begin, end = end, end + len(span.token_ids)
            self._tokens[begin:end] = span.token_ids
            self._positions[begin:end] = np.arange(span.start, span.start + end - begin)
            self._slots[begin:end] = span.slot
            self._wanted[end - span.num_rows : end] = 1
            num_rows += span.num_rows
        self._batch.n_tokens = end
        return self._batch, num_rows


def _load(llama: Llama, path: Path, on_progress: Callable[[float], None]) -> int:
    params = llama.model_default_params()
    params.n_gpu_layers = 0
    params.load_mode = LOAD_MODE_MMAP

    def report(fraction: float, _: Any) -> bool:
        on_progress(fraction)
        return True

    callback = ProgressCallback(report)
    params.progress_callback = callback
    model: int | None = llama.model_load_from_file(str(path).encode(), params)
    if model is None:
        raise LlamaModelError(f"{path.name}: {llama.why()}")
    has_text = llama.model_has_decoder(model) and not llama.model_has_encoder(model)
    if not has_text or llama.model_is_diffusion(model):
        llama.model_free(model)
        raise LlamaModelError(f"{path.name}: not a model that writes text token by token")
    return model
