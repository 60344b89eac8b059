"""Turns a GGUF file into OpenVINO IR: the stateful causal model that the CPU engine loads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from build_engines.checkpoints.gguf_file import field, optional_field
from build_engines.cpu.ir_fusion import fuse
from build_engines.errors import ConversionError, DiskSpaceError

if TYPE_CHECKING:
    from gguf import GGUFReader

MODEL_XML = "openvino_model.xml"
MODEL_BIN = "openvino_model.bin"
ARCHITECTURES = ("llama", "qwen2", "qwen3")  # what the GGUF reader of GenAI 2026.4 knows
_FOREIGN_ERRORS = (RuntimeError, IndexError, ValueError)  # what pybind11 makes of C++'s
_INPUTS = {"input_ids", "attention_mask", "position_ids", "beam_idx"}


def check_architecture(architecture: str) -> None:
    """Raises ConversionError, before any work, for what OpenVINO does not read from GGUF."""
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ConversionError(
            f"OpenVINO does not read {architecture} models from GGUF, only {known}: serve the file "
            "as it is (variant gguf)"
        )


def check_readable(reader: GGUFReader) -> None:
    """Raises ConversionError for what OpenVINO's GGUF reader leaves out without a word.

    Seen with GenAI 2026.4: log-probs of Llama 3.1 that are whole nats off.
    """
    tensors = {tensor.name for tensor in reader.tensors}
    architecture = field(reader, "general.architecture")
    scaling = optional_field(reader, f"{architecture}.rope.scaling.type")
    missing = None
    if "rope_freqs.weight" in tensors or scaling not in (None, "none"):
        missing = "the scaling of its rotary embedding"
    elif any("_exps." in name for name in tensors):
        missing = "its experts"
    if missing is not None:
        raise ConversionError(
            f"OpenVINO does not read {missing} from GGUF: serve the file as it is (--variant gguf) "
            "or build the variant openvino from the Hugging Face checkpoint"
        )


def convert(gguf: Path, directory: Path) -> None:
    """Puts the IR of `gguf` into `directory`.

    GenAI writes it beside the GGUF file, which must therefore be in a directory of its own.
    Raises ConversionError for what OpenVINO cannot read, DiskSpaceError for what it cannot write.
    """
    import openvino_genai

    try:
        openvino_genai.LLMPipeline(
            str(gguf), "CPU", enable_save_ov_model=True, INFERENCE_PRECISION_HINT="f32"
        )
    except _FOREIGN_ERRORS as exc:
        reason = _reason(exc)
        if "iostream error" in reason:  # a write that failed; the file is gone again by now
            raise DiskSpaceError(f"OpenVINO cannot write its model ({reason}): make room") from exc
        raise ConversionError(f"OpenVINO cannot convert {gguf.name}: {reason}") from exc
    _optimize(gguf.parent / MODEL_XML, directory / MODEL_XML)


def _optimize(source: Path, target: Path) -> None:
    """Write a faster IR that computes the same; GenAI's own goes away with its directory."""
    import openvino

    model = openvino.Core().read_model(source)
    fuse(model)
    name_by_place(model)
    try:
        openvino.save_model(model, target, compress_to_fp16=False)
    except _FOREIGN_ERRORS as exc:
        raise DiskSpaceError(f"cannot write OpenVINO's model ({_reason(exc)}): make room") from exc


def name_by_place(model: Any) -> None:
    """Gives the operations of an openvino.Model names that depend on the model alone.

    OpenVINO numbers them through in a process: the second model of a process would get others,
    and its file another hash. Inputs with names of their own keep them: paged attention looks
    for them.
    """
    model.set_friendly_name("model")
    for index, node in enumerate(model.get_ordered_ops()):
        kind = node.get_type_name()
        is_numbered = node.get_friendly_name().startswith(f"{kind}_")
        if is_numbered or kind not in ("Parameter", "Result"):
            node.set_friendly_name(f"{kind}_{index}")


def check(directory: Path) -> int:
    """Size of the IR's vocabulary.

    Raises ConversionError unless it has the inputs, output and state that the engine needs.
    """
    import openvino

    try:
        model = openvino.Core().read_model(directory / MODEL_XML)
    except _FOREIGN_ERRORS as exc:
        raise ConversionError(f"OpenVINO wrote a model that is not whole: {_reason(exc)}") from exc
    inputs = {name for tensor in model.inputs for name in tensor.get_names()}
    outputs = {name for tensor in model.outputs for name in tensor.get_names()}
    if inputs != _INPUTS or outputs != {"logits"}:
        raise ConversionError(
            f"unexpected OpenVINO model: inputs {sorted(inputs)}, outputs {sorted(outputs)}"
        )
    if not model.get_variables():
        raise ConversionError("unexpected OpenVINO model: it has no KV cache state")
    logits = model.outputs[0].get_partial_shape()
    return int(logits[2].get_length())


def _reason(exc: Exception) -> str:
    return str(exc).strip().rpartition("\n")[2]
