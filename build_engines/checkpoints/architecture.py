"""The numbers of a transformer that its memory, its commands and its limits follow from.

Reads Hugging Face's config.json in every spelling that the families use, and the header of a GGUF
file. Knows nothing of what can be built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from build_engines.errors import SourceError, UnknownArchitectureError

if TYPE_CHECKING:
    from gguf import GGUFReader

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What the code of a class fixes, and its configuration does not say or may leave out."""

    qkv_bias: bool = False
    output_bias: bool = False  # of the attention's output projection
    mlp_bias: bool = False
    head_bias: bool = False
    qk_norm: bool = False
    gated_mlp: bool = True
    norms_per_layer: int = 2
    norm_bias: bool = False
    full_attention_every: int = 0  # where a window is set; 0: every layer has it
    defaults: Config = field(default_factory=dict)  # as in transformers' configuration class


_GEMMA = {"tie_word_embeddings": True, "head_dim": 256}
_GEMMA3 = {
    **_GEMMA,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 262_208,
    "max_position_embeddings": 131_072,
    "sliding_window": 4096,
}
# The classes in config.json whose numbers are read here.
CLASSES: Mapping[str, Traits] = {
    "LlamaForCausalLM": Traits(),
    "MistralForCausalLM": Traits(),
    "Mistral3ForConditionalGeneration": Traits(),
    "MixtralForCausalLM": Traits(),
    "QWenLMHeadModel": Traits(qkv_bias=True),
    "Qwen2ForCausalLM": Traits(qkv_bias=True),
    "Qwen2MoeForCausalLM": Traits(qkv_bias=True),
    "Qwen3ForCausalLM": Traits(qk_norm=True),
    "Qwen3MoeForCausalLM": Traits(qk_norm=True),
    "GemmaForCausalLM": Traits(defaults=_GEMMA),
    "Gemma2ForCausalLM": Traits(
        norms_per_layer=4, full_attention_every=2, defaults={**_GEMMA, "sliding_window": 4096}
    ),
    "Gemma3ForCausalLM": Traits(
        norms_per_layer=4, qk_norm=True, full_attention_every=6, defaults=_GEMMA3
    ),
    "Gemma3ForConditionalGeneration": Traits(
        norms_per_layer=4, qk_norm=True, full_attention_every=6, defaults=_GEMMA3
    ),
    "PhiForCausalLM": Traits(
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        head_bias=True,
        gated_mlp=False,
        norms_per_layer=1,
        norm_bias=True,
    ),
    "Phi3ForCausalLM": Traits(),
    "PhiMoEForCausalLM": Traits(qkv_bias=True, output_bias=True, head_bias=True, norm_bias=True),
    "ChatGLMModel": Traits(qkv_bias=True),
    "ChatGLMForConditionalGeneration": Traits(qkv_bias=True),
    "GlmForCausalLM": Traits(qkv_bias=True),
    "Glm4ForCausalLM": Traits(qkv_bias=True, norms_per_layer=4),
    "Glm4MoeForCausalLM": Traits(qkv_bias=True),
    "GptOssForCausalLM": Traits(
        qkv_bias=True, output_bias=True, mlp_bias=True, full_attention_every=2
    ),
    "DeepseekV2ForCausalLM": Traits(),
    "DeepseekV3ForCausalLM": Traits(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One model's shape. Sizes are numbers of values, lengths are tokens."""

    hf_architecture: str  # the class in config.json; "" for a GGUF file of a class not known here
    model_type: str  # as in config.json, or general.architecture of a GGUF file
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    intermediate_size: int  # of a dense layer's MLP
    vocab_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool = False
    # mixture of experts; 0 experts: every layer is dense
    num_experts: int = 0
    num_experts_per_token: int = 0
    moe_intermediate_size: int = 0  # of one expert
    shared_expert_intermediate_size: int = 0  # of what every token goes through, in all
    num_dense_layers: int = 0  # layers without experts in such a model
    # multi-head latent attention (DeepSeek); 0: the model has none
    kv_lora_rank: int = 0
    q_lora_rank: int = 0
    qk_rope_head_size: int = 0
    qk_nope_head_size: int = 0
    v_head_size: int = 0
    # None: every layer sees everything. Else every `full_attention_every`-th does; 0: none does.
    sliding_window: int | None = None
    full_attention_every: int = 0

    @classmethod
    def from_config(cls, config: Config) -> Architecture:
        """From a config.json. Raises UnknownArchitectureError; SourceError for a bad number."""
        name = _class_name(config)
        nested = config.get("text_config")
        text = nested if isinstance(nested, Mapping) else config
        values = {**CLASSES[name].defaults, **text}
        model_type = str(text.get("model_type") or config.get("model_type") or "")
        return _from_numbers(name, model_type, Numbers(values, "config.json"))

    @classmethod
    def from_gguf(cls, reader: GGUFReader) -> Architecture:
        """From the header of a GGUF file of whatever architecture. Raises SourceError."""
        from build_engines.checkpoints.architecture_gguf import read_architecture

        return read_architecture(reader)

    @property
    def traits(self) -> Traits:
        """What follows from the class."""
        return CLASSES.get(self.hf_architecture, Traits())

    @property
    def num_parameters(self) -> int:
        """All weights, e.g. 6_738_415_616 for Llama-2-7B."""
        from build_engines.checkpoints.parameters import count_parameters

        return count_parameters(self).total

    @property
    def num_moe_layers(self) -> int:
        """Layers with experts."""
        return self.num_layers - self.num_dense_layers if self.num_experts else 0

    @property
    def num_full_attention_layers(self) -> int:
        """Layers whose KV cache grows with the whole context."""
        if self.sliding_window is None:
            return self.num_layers
        return self.num_layers // self.full_attention_every if self.full_attention_every else 0

    def attention_windows(self, max_seq_len: int) -> tuple[int, ...]:
        """The repeating pattern of windows, layer by layer; () where every layer sees everything.

        What `max_attention_window_size` of the C++ backend wants (Gemma's README).
        """
        if self.sliding_window is None or self.sliding_window >= max_seq_len:
            return ()
        if self.full_attention_every == 0:
            return (self.sliding_window,)
        return (self.sliding_window,) * (self.full_attention_every - 1) + (max_seq_len,)


class Numbers:
    """The checked values of a configuration, each under the first of its names that is there."""

    def __init__(self, values: Config, where: str) -> None:
        self.values = values
        self._where = where

    def required(self, *names: str) -> int:
        """Raises SourceError where no name has a positive whole number."""
        found = self.optional(*names)
        if not found:
            raise SourceError(f"{self._where} has no {names[0]}: is it a language model's?")
        return found

    def optional(self, *names: str) -> int:
        """0 where there is none. Raises SourceError for what is not a whole number."""
        for name in names:
            value = self.values.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise SourceError(f"{self._where}: {name} is {value!r}, not a whole number")
            return value
        return 0

    def names(self, name: str) -> list[Any]:
        """Empty where there is none. Raises SourceError for what is not a list."""
        value = self.values.get(name) or []
        if not isinstance(value, list):
            raise SourceError(f"{self._where}: {name} is {value!r}, not a list")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """`default` where there is none."""
        value = self.values.get(name)
        return default if value is None else bool(value)


def _class_name(config: Config) -> str:
    names = config.get("architectures")
    classes = [str(name) for name in names] if isinstance(names, list) else []
    for name in classes:
        if name in CLASSES:
            return name
    found = ", ".join(classes) or str(config.get("model_type") or "none is named")
    raise UnknownArchitectureError(
        f"the architecture in config.json is not known here ({found}): a GGUF file of the model "
        "can be served as it is, by `inflight build --checkpoint FILE.gguf --variant gguf`"
    )


def _from_numbers(name: str, model_type: str, read: Numbers) -> Architecture:
    heads, hidden = read.required("num_attention_heads"), read.required("hidden_size")
    wide = read.optional("intermediate_size", "ffn_hidden_size") or 4 * hidden
    # Qwen-1 counts both halves of its gated MLP
    wide = wide // 2 if name == "QWenLMHeadModel" else wide
    return Architecture(
        hf_architecture=name,
        model_type=model_type,
        num_layers=read.required("num_hidden_layers", "num_layers"),
        hidden_size=hidden,
        num_heads=heads,
        num_kv_heads=_num_kv_heads(heads, read),
        intermediate_size=wide,
        vocab_size=read.required("padded_vocab_size", "vocab_size"),
        # where both are there (Qwen-1), the second counts on dynamic NTK, which no engine here does
        max_position_embeddings=read.required("seq_length", "max_position_embeddings"),
        tie_word_embeddings=read.flag("tie_word_embeddings"),
        **_experts(wide, read),
        **_latent(heads, hidden, read),
        **_windows(name, read),
    )


def _num_kv_heads(heads: int, read: Numbers) -> int:
    if read.flag("multi_query_attention"):  # ChatGLM
        return read.required("multi_query_group_num")
    return read.optional("num_key_value_heads") or heads


def _experts(wide: int, read: Numbers) -> dict[str, Any]:
    experts = read.optional("n_routed_experts", "num_local_experts", "num_experts")
    if not experts:
        return {}
    layers = read.required("num_hidden_layers", "num_layers")
    each = read.optional("moe_intermediate_size") or wide
    shared = read.optional("shared_expert_intermediate_size")
    step = read.optional("decoder_sparse_step", "moe_layer_freq") or 1
    first = read.optional("first_k_dense_replace") or len(read.names("mlp_only_layers"))
    return {
        "num_experts": experts,
        "num_experts_per_token": read.required("num_experts_per_tok", "experts_per_token"),
        "moe_intermediate_size": each,
        "shared_expert_intermediate_size": shared or read.optional("n_shared_experts") * each,
        "num_dense_layers": first if step == 1 else layers - layers // step,
    }


def _latent(heads: int, hidden: int, read: Numbers) -> dict[str, Any]:
    rank = read.optional("kv_lora_rank")
    if not rank:
        return {"head_size": read.optional("head_dim", "kv_channels") or hidden // heads}
    nope, rope = read.required("qk_nope_head_dim"), read.required("qk_rope_head_dim")
    return {
        "head_size": nope + rope,
        "kv_lora_rank": rank,
        "q_lora_rank": read.optional("q_lora_rank"),
        "qk_rope_head_size": rope,
        "qk_nope_head_size": nope,
        "v_head_size": read.required("v_head_dim"),
    }


def _windows(name: str, read: Numbers) -> dict[str, Any]:
    window = read.optional("sliding_window")
    types = read.names("layer_types")
    # Qwen writes a window into its configurations and switches it off there
    if not window or not read.flag("use_sliding_window", True):
        return {}
    if types and "sliding_attention" not in types:
        return {}
    if types:
        full = types.index("full_attention") + 1 if "full_attention" in types else 0
    else:
        full = read.optional("sliding_window_pattern") or CLASSES[name].full_attention_every
    return {"sliding_window": window, "full_attention_every": full}
