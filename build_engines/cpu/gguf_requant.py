"""Rewrites a GGUF file with its matrices in another number format.

Vectors (norms, biases) and metadata stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType
from gguf.quants import dequantize, quantize

from build_engines.errors import ConversionError

TYPES = {
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (GGMLQuantizationType.Q4_0, LlamaFileType.MOSTLY_Q4_0),
}
# These decide every token's logits; llama.cpp's quantizer keeps them finer than four bits too.
_FINER = {"token_embd.weight": "q8_0", "output.weight": "q8_0"}


def requantize(
    reader: GGUFReader,
    target: Path,
    quantization: str,
    on_bytes: Callable[[int, int], None],
) -> None:
    """Writes `reader`'s model to `target`, for OpenVINO's reader; its tokenizer is not for use.

    `on_bytes` hears how many of the source's tensor bytes are done, and how many there are.
    Raises ConversionError for an unknown quantization or a source type that gguf cannot read.
    """
    matrix_type, file_type = _types(quantization)
    writer = GGUFWriter(target, reader.fields["general.architecture"].contents())
    _copy_metadata(reader, writer, file_type)
    total = sum(int(tensor.n_bytes) for tensor in reader.tensors)
    done = 0
    for tensor in reader.tensors:
        _add_tensor(writer, tensor, quantization, matrix_type)
        done += int(tensor.n_bytes)
        on_bytes(done, total)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _types(quantization: str) -> tuple[GGMLQuantizationType, LlamaFileType]:
    if quantization not in TYPES:
        raise ConversionError(
            f"cannot quantize to {quantization}: choose one of {', '.join(TYPES)}"
        )
    return TYPES[quantization]


def _copy_metadata(reader: GGUFReader, writer: GGUFWriter, file_type: LlamaFileType) -> None:
    for key, found in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue  # the writer's own
        if key == "general.file_type":
            writer.add_file_type(file_type)
            continue
        if key == "tokenizer.ggml.model":
            writer.add_tokenizer_model("gpt2")  # OpenVINO's reader gives up on any other
            continue
        value_type = found.types[0]
        element = found.types[-1] if value_type == GGUFValueType.ARRAY else None
        writer.add_key_value(key, found.contents(), value_type, sub_type=element)
    if "tokenizer.ggml.merges" not in reader.fields:
        writer.add_token_merges(["a b"])  # what it cannot do without


def _add_tensor(
    writer: GGUFWriter, tensor: Any, quantization: str, matrix_type: GGMLQuantizationType
) -> None:
    if len(tensor.shape) < 2:
        writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
        return
    try:
        weights = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
    except NotImplementedError as exc:
        raise ConversionError(f"{tensor.name}: cannot read {tensor.tensor_type.name}") from exc
    if quantization == "q4_0" and tensor.name in _FINER:
        matrix_type = TYPES[_FINER[tensor.name]][0]
    writer.add_tensor(tensor.name, quantize(weights, matrix_type), raw_dtype=matrix_type)
