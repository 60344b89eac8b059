"""Builds the OpenVINO IR of a BERT sentence encoder from its weights, without torch.

The graph takes padded token ids and gives one vector a row: the mean of the last layer's states
over the row's tokens, scaled to length 1. Source: Hugging Face's modeling_bert.py and
sentence-transformers' Pooling and Normalize.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import openvino as ov
import openvino.opset13 as ops
from numpy.typing import NDArray

from build_engines.errors import ConversionError

Weights = dict[str, NDArray[np.float32]]


class BertConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of Hugging Face's config.json."""

    model_type: str
    hidden_act: str
    hidden_size: int
    layer_norm_eps: float
    max_position_embeddings: int
    num_attention_heads: int
    num_hidden_layers: int
    vocab_size: int
    position_embedding_type: str = "absolute"


@dataclass(frozen=True, slots=True)
class _Layer:
    """The weights below one prefix."""

    weights: Weights
    prefix: str

    def __call__(self, name: str) -> NDArray[np.float32]:
        full_name = f"{self.prefix}{name}"
        try:
            return self.weights[full_name]
        except KeyError:
            raise ConversionError(f"the weights have no tensor {full_name}") from None

    def below(self, name: str) -> _Layer:
        return _Layer(self.weights, f"{self.prefix}{name}.")


def read_config(path: Path) -> BertConfig:
    """Reads config.json. Raises ConversionError for a model that is not built here."""
    try:
        config = msgspec.json.decode(path.read_bytes(), type=BertConfig)
    except (OSError, msgspec.DecodeError) as exc:
        raise ConversionError(f"{path.name}: {exc}") from exc
    for name, expected in (
        ("model_type", "bert"),
        ("hidden_act", "gelu"),
        ("position_embedding_type", "absolute"),
    ):
        if (found := getattr(config, name)) != expected:
            raise ConversionError(f"{path.name}: {name} {found} is not supported, only {expected}")
    return config


def check_pooling(directory: Path) -> None:
    """Raises ConversionError unless sentence-transformers' files say mean and normalize."""
    try:
        modules = msgspec.json.decode((directory / "modules.json").read_bytes())
        pooling = msgspec.json.decode((directory / "1_Pooling/config.json").read_bytes())
    except (OSError, msgspec.DecodeError) as exc:
        raise ConversionError(f"not a sentence-transformers model: {exc}") from exc
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    if kinds != ["Transformer", "Pooling", "Normalize"]:
        raise ConversionError(f"modules {', '.join(kinds)} are not supported")
    modes = [name for name, is_used in pooling.items() if is_used is True]
    if modes != ["pooling_mode_mean_tokens"]:
        raise ConversionError(f"pooling by {', '.join(modes)} is not supported, only by the mean")


def read_weights(path: Path) -> Weights:
    """All tensors of a safetensors file, in float32. Raises ConversionError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        loaded = load_file(path)
    except (OSError, SafetensorError) as exc:
        raise ConversionError(f"{path.name}: {exc}") from exc
    return {name: np.asarray(tensor, np.float32) for name, tensor in loaded.items()}


def build_graph(weights: Weights, config: BertConfig) -> ov.Model:
    """Inputs input_ids and attention_mask, int64 [rows, longest row]; output embeddings, float32
    [rows, hidden_size]. Raises ConversionError for a tensor that is missing."""
    token_ids = ops.parameter([-1, -1], np.int64, name="input_ids")
    mask = ops.parameter([-1, -1], np.int64, name="attention_mask")
    root = _Layer(weights, "")
    is_token = ops.unsqueeze(ops.unsqueeze(ops.convert(mask, "boolean"), _ints(1)), _ints(1))
    states = _embed(token_ids, root.below("embeddings"), config)
    for index in range(config.num_hidden_layers):
        states = _encode(states, is_token, root.below(f"encoder.layer.{index}"), config)
    output = ops.normalize_l2(_mean(states, mask), _ints(1), 1e-12, "max")
    for node, name in ((token_ids, "input_ids"), (mask, "attention_mask"), (output, "embeddings")):
        node.output(0).set_names({name})
    return ov.Model([output], [token_ids, mask], "bert")


def _embed(token_ids: Any, layer: _Layer, config: BertConfig) -> Any:
    words = ops.gather(_const(layer("word_embeddings.weight")), token_ids, _ints(0))
    # one text a row: all tokens are of type 0, whose vector is the same for every position
    positions = layer("position_embeddings.weight") + layer("token_type_embeddings.weight")[0]
    length = ops.gather(ops.shape_of(token_ids), _ints([1]), _ints(0))
    first = ops.slice(_const(positions), _ints([0]), length, _ints([1]), _ints([0]))
    return _normalize(ops.add(words, first), layer.below("LayerNorm"), config)


def _encode(states: Any, is_token: Any, layer: _Layer, config: BertConfig) -> Any:
    attention = layer.below("attention")
    heads = [
        _split_heads(_dense(states, attention.below(f"self.{name}")), config)
        for name in ("query", "key", "value")
    ]
    attended = ops.scaled_dot_product_attention(*heads, is_token)
    joined = ops.reshape(ops.transpose(attended, _ints([0, 2, 1, 3])), _ints([0, 0, -1]), True)
    output = _dense(joined, attention.below("output.dense"))
    states = _normalize(ops.add(output, states), attention.below("output.LayerNorm"), config)
    hidden = ops.gelu(_dense(states, layer.below("intermediate.dense")), "erf")
    output = _dense(hidden, layer.below("output.dense"))
    return _normalize(ops.add(output, states), layer.below("output.LayerNorm"), config)


def _split_heads(states: Any, config: BertConfig) -> Any:
    """[rows, length, hidden] -> [rows, heads, length, hidden / heads]"""
    size = config.hidden_size // config.num_attention_heads
    shape = _ints([0, 0, config.num_attention_heads, size])
    return ops.transpose(ops.reshape(states, shape, True), _ints([0, 2, 1, 3]))


def _mean(states: Any, mask: Any) -> Any:
    """Over the tokens of each row."""
    weights = ops.unsqueeze(ops.convert(mask, "f32"), _ints(2))
    total = ops.reduce_sum(ops.multiply(states, weights), _ints(1))
    return ops.divide(total, ops.reduce_sum(weights, _ints(1)))


def _dense(states: Any, layer: _Layer) -> Any:
    product = ops.matmul(states, _const(layer("weight")), False, True)
    return ops.add(product, _const(layer("bias")))


def _normalize(states: Any, layer: _Layer, config: BertConfig) -> Any:
    normalized = ops.mvn(states, _ints([-1]), True, config.layer_norm_eps, "inside_sqrt")
    return ops.add(ops.multiply(normalized, _const(layer("weight"))), _const(layer("bias")))


def _const(values: NDArray[np.float32]) -> Any:
    return ops.constant(np.ascontiguousarray(values, np.float32))


def _ints(values: int | list[int]) -> Any:
    return ops.constant(values, dtype=np.int64)
