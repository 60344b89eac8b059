"""A BERT sentence encoder a second time, plain in numpy and float64, and small random ones.

Source: "Attention Is All You Need" and "BERT", with sentence-transformers' mean pooling.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordPiece

from build_engines.cpu.bert_ir import BertConfig, Weights

Vector = NDArray[np.float64]

TINY = BertConfig(
    model_type="bert",
    hidden_act="gelu",
    hidden_size=24,
    layer_norm_eps=1e-12,
    max_position_embeddings=40,
    num_attention_heads=3,
    num_hidden_layers=2,
    vocab_size=50,
)
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "cat", "dog", "##s")


def reference_embedding(weights: Weights, config: BertConfig, token_ids: list[int]) -> Vector:
    """The vector of one text, one text at a time, so that no padding is in it."""
    num_tokens = len(token_ids)
    size = config.hidden_size // config.num_attention_heads

    def normalized(states: Vector, name: str) -> Vector:
        centred = states - states.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + config.layer_norm_eps)
        scaled: Vector = centred / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"]
        return scaled

    def dense(states: Vector, name: str) -> Vector:
        product: Vector = states @ weights[f"{name}.weight"].T.astype(np.float64)
        return product + weights[f"{name}.bias"]

    def heads(states: Vector, name: str) -> Vector:
        split = dense(states, name).reshape(num_tokens, config.num_attention_heads, size)
        return split.transpose(1, 0, 2)

    states = weights["embeddings.word_embeddings.weight"][token_ids].astype(np.float64)
    states += weights["embeddings.position_embeddings.weight"][:num_tokens]
    states += weights["embeddings.token_type_embeddings.weight"][0]
    states = normalized(states, "embeddings.LayerNorm")
    for index in range(config.num_hidden_layers):
        layer = f"encoder.layer.{index}"
        query, key, value = (
            heads(states, f"{layer}.attention.self.{name}") for name in ("query", "key", "value")
        )
        scores = np.exp(query @ key.transpose(0, 2, 1) / math.sqrt(size))
        mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ value
        joined = mixed.transpose(1, 0, 2).reshape(num_tokens, config.hidden_size)
        attended = dense(joined, f"{layer}.attention.output.dense")
        states = normalized(states + attended, f"{layer}.attention.output.LayerNorm")
        hidden = dense(states, f"{layer}.intermediate.dense")
        hidden *= 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
        states = normalized(
            states + dense(hidden, f"{layer}.output.dense"), f"{layer}.output.LayerNorm"
        )
    mean: Vector = states.mean(axis=0)
    return mean / np.linalg.norm(mean)


def random_weights(config: BertConfig = TINY, seed: int = 1) -> Weights:
    """Every tensor of a model, with values that make each of them matter."""
    rng = np.random.default_rng(seed)
    size, inner = config.hidden_size, 4 * config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings": (config.vocab_size, size),
        "embeddings.position_embeddings": (config.max_position_embeddings, size),
        "embeddings.token_type_embeddings": (2, size),
        "embeddings.LayerNorm": (size,),
    }
    for index in range(config.num_hidden_layers):
        layer = f"encoder.layer.{index}"
        shapes |= {f"{layer}.attention.self.{n}": (size, size) for n in ("query", "key", "value")}
        shapes |= {
            f"{layer}.attention.output.dense": (size, size),
            f"{layer}.attention.output.LayerNorm": (size,),
            f"{layer}.intermediate.dense": (inner, size),
            f"{layer}.output.dense": (size, inner),
            f"{layer}.output.LayerNorm": (size,),
        }
    weights = {}
    for name, shape in shapes.items():
        weights[f"{name}.weight"] = rng.normal(0.3, 0.5, shape).astype(np.float32)
        weights[f"{name}.bias"] = rng.normal(0.0, 0.5, shape[0]).astype(np.float32)
    return weights


def write_sentence_transformer(folder: Path, weights: Weights, config: BertConfig = TINY) -> Path:
    """Write the folder of a sentence-transformers model; return the file of its weights."""
    (folder / "1_Pooling").mkdir(parents=True)
    kinds = ("Transformer", "Pooling", "Normalize")
    files: dict[str, Any] = {
        "config.json": config,
        "modules.json": [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds],
        "1_Pooling/config.json": {
            "word_embedding_dimension": config.hidden_size,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
        },
    }
    for name, content in files.items():
        (folder / name).write_bytes(msgspec.json.encode(content))
    word_tokenizer().save(str(folder / "tokenizer.json"))
    save_file(weights, folder / "model.safetensors")
    return folder / "model.safetensors"


def word_tokenizer() -> Tokenizer:
    """A WordPiece tokenizer of a few words, with the cuts and the padding of a training."""
    vocab = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=16)
    return tokenizer
