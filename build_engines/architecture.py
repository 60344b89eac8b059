"""The numbers of a transformer that its memory, its commands and its limits follow from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from build_engines.errors import UnknownArchitectureError

if TYPE_CHECKING:
    from gguf import GGUFReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One model's shape. Sizes are numbers of values, lengths are tokens."""

    hf_architecture: str
    model_type: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool = False

    @property
    def num_parameters(self) -> int:
        """All weights, of a plain dense transformer."""
        attention = 2 * self.hidden_size * self.head_size * (self.num_heads + self.num_kv_heads)
        layer = attention + 3 * self.hidden_size * self.intermediate_size
        embeddings = (1 if self.tie_word_embeddings else 2) * self.vocab_size * self.hidden_size
        return self.num_layers * layer + embeddings

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Architecture:
        """From a config.json. Raises UnknownArchitectureError."""
        names = config.get("architectures") or ["none"]
        try:
            return cls(
                hf_architecture=names[0],
                model_type=config["model_type"],
                num_layers=config["num_hidden_layers"],
                hidden_size=config["hidden_size"],
                num_heads=config["num_attention_heads"],
                num_kv_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
                head_size=config["hidden_size"] // config["num_attention_heads"],
                intermediate_size=config["intermediate_size"],
                vocab_size=config["vocab_size"],
                max_position_embeddings=config["max_position_embeddings"],
                tie_word_embeddings=config.get("tie_word_embeddings", False),
            )
        except KeyError as exc:
            raise UnknownArchitectureError(
                f"the architecture in config.json ({names[0]}) is not known: it has no {exc}"
            ) from exc

    @classmethod
    def from_gguf(cls, reader: GGUFReader) -> Architecture:
        """From a GGUF file's header."""
        from build_engines.gguf_file import field, optional_field

        kind = field(reader, "general.architecture")
        heads = field(reader, f"{kind}.attention.head_count")
        size = field(reader, f"{kind}.embedding_length")
        return cls(
            hf_architecture="",
            model_type=kind,
            num_layers=field(reader, f"{kind}.block_count"),
            hidden_size=size,
            num_heads=heads,
            num_kv_heads=optional_field(reader, f"{kind}.attention.head_count_kv") or heads,
            head_size=size // heads,
            intermediate_size=field(reader, f"{kind}.feed_forward_length"),
            vocab_size=len(field(reader, "tokenizer.ggml.tokens")),
            max_position_embeddings=field(reader, f"{kind}.context_length"),
        )
