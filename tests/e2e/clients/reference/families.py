"""The families: a tiny configuration of each one's true architecture, its vocabulary, its prompt.

`prompt` is what the family's own chat template makes of one message of the user, written out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

QUESTION = "Hello world, 你好! What is 12 + 345?"


@dataclass(frozen=True, slots=True, kw_only=True)
class SentencePiece:
    """Special tokens before and behind the pieces; `last` from the id `last_id` on."""

    first: tuple[str, ...] = ("<unk>", "<s>", "</s>")
    last: tuple[str, ...] = ()
    last_id: int | None = None  # None: as soon as there is room
    add_space_prefix: bool = True
    strips_right: bool = False  # of the last ones: white space behind them is no text


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteLevel:
    """llama.cpp's name for how text is cut, and special tokens, from the id `special_id` on."""

    pre: str
    special: tuple[str, ...]
    special_id: int | None = None  # None: as soon as there is room


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A model of the tests.

    `model_class` and `config` are transformers'; where the true family has only remote code, they
    are those of a family that computes the same. `gguf` names the writer in gguf_files.py.
    """

    spec: str  # the name of build_engines/specs/*.toml, under which it is built and served
    model_class: str
    config: dict[str, Any]
    gguf: str
    vocabulary: SentencePiece | ByteLevel
    bos: str | None
    eos: str
    pad: str | None = None
    prompt: str
    # A file of build_engines/chat_templates, or a text; None: the family's checkpoints have none.
    template: str | None
    seed: int = 0


SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
_CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_CHATML_PROMPT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
)
_GEMMA_PROMPT = f"<bos><start_of_turn>user\n{QUESTION}<end_of_turn>\n<start_of_turn>model\n"
# Ids as the specs have them: of the first two generations, and of the third
_GEMMA, _GEMMA_3 = (
    SentencePiece(
        first=(
            *("<pad>", "<eos>", "<bos>", "<unk>"),
            *(f"<unused{number}>" for number in range(num_unused)),
            *("<start_of_turn>", "<end_of_turn>"),
        ),
        add_space_prefix=False,
    )
    for num_unused in (102, 101)
)
_LLAMA_3 = ByteLevel(
    pre="llama-bpe",
    special=(
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eom_id|>",
        "<|eot_id|>",
        "<|python_tag|>",
    ),
)
_GLM_4 = ByteLevel(
    pre="chatglm-bpe",
    special=(
        "<|endoftext|>",
        "[MASK]",
        "[gMASK]",
        "[sMASK]",
        "<sop>",
        "<eop>",
        "<|system|>",
        "<|user|>",
        "<|assistant|>",
        "<|observation|>",
    ),
)
_MISTRAL_V3 = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + '[/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
_QWEN_1_VOCABULARY = ByteLevel(pre="qwen2", special=(*_CHATML, "<|extra_0|>"), special_id=151_643)
_QWEN_1 = {**SMALL, "num_key_value_heads": 4, "rms_norm_eps": 1e-6, "rope_theta": 10000.0}
_GEMMA_1 = {**SMALL, "head_dim": 32, "hidden_activation": "gelu_pytorch_tanh"}
_GLM = {
    **SMALL,
    "head_dim": 16,
    "partial_rotary_factor": 0.5,
    "attention_bias": True,
    "rope_theta": 10000.0,
    "pad_token_id": 0,
}

FAMILIES = (
    Family(
        spec="qwen-7b-chat",
        model_class="Qwen2ForCausalLM",
        config=_QWEN_1,
        gguf="qwen",
        vocabulary=_QWEN_1_VOCABULARY,
        bos=None,
        eos="<|im_end|>",
        pad="<|endoftext|>",
        seed=6,
        prompt=_CHATML_PROMPT,
        template=None,
    ),
    Family(
        spec="qwen-14b-chat",
        model_class="Qwen2ForCausalLM",
        config={**_QWEN_1, "hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 6},
        gguf="qwen",
        vocabulary=_QWEN_1_VOCABULARY,
        bos=None,
        eos="<|im_end|>",
        pad="<|endoftext|>",
        prompt=_CHATML_PROMPT,
        template=None,
    ),
    Family(
        spec="gemma-2b",
        model_class="GemmaForCausalLM",
        config={**_GEMMA_1, "num_key_value_heads": 1, "tie_word_embeddings": True},
        gguf="gemma",
        vocabulary=_GEMMA,
        bos="<bos>",
        eos="<end_of_turn>",
        pad="<pad>",
        prompt=_GEMMA_PROMPT,
        template="gemma",
    ),
    Family(
        spec="gemma-7b",
        model_class="GemmaForCausalLM",
        config={**_GEMMA_1, "num_key_value_heads": 4, "tie_word_embeddings": True},
        gguf="gemma",
        vocabulary=_GEMMA,
        bos="<bos>",
        eos="<end_of_turn>",
        pad="<pad>",
        seed=1,
        prompt=_GEMMA_PROMPT,
        template="gemma",
    ),
    Family(
        spec="llama-2-7b-chat",
        model_class="LlamaForCausalLM",
        config={**SMALL, "num_key_value_heads": 4, "rope_theta": 10000.0},
        gguf="llama",
        vocabulary=SentencePiece(),
        bos="<s>",
        eos="</s>",
        seed=1,
        prompt=f"<s>[INST] {QUESTION} [/INST]",
        template="llama-2",
    ),
    Family(
        spec="chatglm3-6b",
        model_class="GlmForCausalLM",
        config=_GLM,
        gguf="chatglm",
        vocabulary=SentencePiece(
            last=(
                "[MASK]",
                "[gMASK]",
                "[sMASK]",
                "sop",
                "eop",
                "<|system|>",
                "<|user|>",
                "<|assistant|>",
                "<|observation|>",
            ),
            last_id=64_789,
        ),
        bos=None,
        eos="</s>",
        pad="<unk>",
        prompt=f"[gMASK]sop<|user|>\n {QUESTION}<|assistant|>",
        template=None,
        seed=6,
    ),
    Family(
        spec="llama-3.1-8b-instruct",
        model_class="LlamaForCausalLM",
        config={
            **SMALL,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
        gguf="llama",
        vocabulary=_LLAMA_3,
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        prompt=(
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
            "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
            f"<|start_header_id|>user<|end_header_id|>\n\n{QUESTION}<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n"
        ),
        template="llama-3.1",
        seed=3,
    ),
    Family(
        spec="qwen2.5-7b-instruct",
        model_class="Qwen2ForCausalLM",
        config={**SMALL, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0},
        gguf="qwen2",
        vocabulary=ByteLevel(pre="qwen2", special=_CHATML),
        bos=None,
        eos="<|im_end|>",
        pad="<|endoftext|>",
        prompt=_CHATML_PROMPT.replace(
            "You are a helpful", "You are Qwen, created by Alibaba Cloud. You are a helpful"
        ),
        template="qwen-2.5",
    ),
    Family(
        spec="qwen3-8b",
        model_class="Qwen3ForCausalLM",
        config={**SMALL, "head_dim": 32, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0},
        gguf="qwen3",
        vocabulary=ByteLevel(pre="qwen2", special=(*_CHATML, "<think>", "</think>")),
        bos=None,
        eos="<|im_end|>",
        pad="<|endoftext|>",
        prompt=f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n",
        template="qwen-3",
        seed=22,
    ),
    Family(
        spec="qwen3-30b-a3b",
        model_class="Qwen3MoeForCausalLM",
        config={
            **SMALL,
            "head_dim": 32,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1000000.0,
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "norm_topk_prob": True,
        },
        gguf="qwen3moe",
        vocabulary=ByteLevel(pre="qwen2", special=(*_CHATML, "<think>", "</think>")),
        bos=None,
        eos="<|im_end|>",
        pad="<|endoftext|>",
        prompt=f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n",
        template="qwen-3",
        seed=5,
    ),
    Family(
        spec="mistral-7b-instruct-v0.3",
        model_class="MistralForCausalLM",
        config={**SMALL, "rope_theta": 1000000.0, "sliding_window": None, "head_dim": 16},
        gguf="llama",
        vocabulary=SentencePiece(
            first=(
                "<unk>",
                "<s>",
                "</s>",
                "[INST]",
                "[/INST]",
                "[TOOL_CALLS]",
                "[AVAILABLE_TOOLS]",
                "[/AVAILABLE_TOOLS]",
                "[TOOL_RESULTS]",
                "[/TOOL_RESULTS]",
            )
        ),
        bos="<s>",
        eos="</s>",
        seed=3,
        prompt=f"<s>[INST] {QUESTION}[/INST]",
        template=_MISTRAL_V3,
    ),
    Family(
        spec="mixtral-8x7b-instruct-v0.1",
        model_class="MixtralForCausalLM",
        config={
            **SMALL,
            "rope_theta": 1000000.0,
            "sliding_window": None,
            "head_dim": 16,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
        },
        gguf="llama",
        vocabulary=SentencePiece(),
        bos="<s>",
        eos="</s>",
        prompt=f"<s>[INST] {QUESTION} [/INST]",
        template="mistral",
        seed=9,
    ),
    Family(
        spec="gemma-2-9b-it",
        model_class="Gemma2ForCausalLM",
        config={
            **_GEMMA_1,
            "tie_word_embeddings": True,
            "sliding_window": 16,
            "query_pre_attn_scalar": 32,
            "attn_logit_softcapping": 2.0,  # 50 of the true one would not show
            "final_logit_softcapping": 30.0,
        },
        gguf="gemma2",
        vocabulary=_GEMMA,
        bos="<bos>",
        eos="<end_of_turn>",
        pad="<pad>",
        prompt=_GEMMA_PROMPT,
        template="gemma",
        seed=6,
    ),
    Family(
        spec="gemma-3-1b-it",
        model_class="Gemma3ForCausalLM",
        config={
            **_GEMMA_1,
            "num_hidden_layers": 6,  # the sixth is the first that sees all of the text
            "tie_word_embeddings": True,
            "sliding_window": 16,
            "query_pre_attn_scalar": 32,
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        },
        gguf="gemma3",
        vocabulary=_GEMMA_3,
        bos="<bos>",
        eos="<end_of_turn>",
        pad="<pad>",
        prompt=_GEMMA_PROMPT,
        template="gemma-3",
        seed=4,
    ),
    Family(
        spec="phi-3.5-mini-instruct",
        model_class="Phi3ForCausalLM",
        config={
            **SMALL,
            "num_key_value_heads": 4,
            "original_max_position_embeddings": 16,
            "sliding_window": 512,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0, 1.02, 1.05, 1.1, 1.2, 1.3, 1.4, 1.5],
                "long_factor": [1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0],
                "original_max_position_embeddings": 16,
            },
            "pad_token_id": 0,
        },
        gguf="phi3",
        vocabulary=SentencePiece(
            last=("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"),
            add_space_prefix=False,
            strips_right=True,
        ),
        bos="<s>",
        eos="<|end|>",
        pad="<|endoftext|>",
        prompt=f"<|user|>\n{QUESTION}<|end|>\n<|assistant|>\n",
        template="phi-3",
        seed=10,
    ),
    Family(
        spec="phi-4",
        model_class="Phi3ForCausalLM",
        config={**SMALL, "rope_theta": 250000.0, "sliding_window": None, "pad_token_id": 0},
        gguf="phi3",
        vocabulary=ByteLevel(
            pre="dbrx", special=("<|endoftext|>", "<|im_start|>", "<|im_sep|>", "<|im_end|>")
        ),
        bos="<|endoftext|>",
        eos="<|im_end|>",
        pad="<|endoftext|>",
        prompt=f"<|im_start|>user<|im_sep|>{QUESTION}<|im_end|><|im_start|>assistant<|im_sep|>",
        template="phi-4",
        seed=2,
    ),
    Family(
        spec="glm-4-9b-chat",
        model_class="GlmForCausalLM",
        config=_GLM,
        gguf="chatglm",
        vocabulary=_GLM_4,
        bos=None,
        eos="<|endoftext|>",
        pad="<|endoftext|>",
        prompt=f"[gMASK]<sop><|user|>\n{QUESTION}<|assistant|>",
        template="glm-4",
    ),
    Family(
        spec="glm-4-9b-0414",
        model_class="Glm4ForCausalLM",
        config=_GLM,
        gguf="glm4",
        vocabulary=_GLM_4,
        bos=None,
        eos="<|user|>",
        pad="<|endoftext|>",
        prompt=f"[gMASK]<sop><|user|>\n{QUESTION}<|assistant|>",
        template="glm-4",
        seed=10,
    ),
    Family(
        spec="gpt-oss-20b",
        model_class="GptOssForCausalLM",
        config={
            **SMALL,
            "intermediate_size": 32,
            "head_dim": 16,
            "sliding_window": 16,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 150000.0,
                "factor": 8.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": True,
                "original_max_position_embeddings": 64,
            },
        },
        gguf="gpt_oss",
        vocabulary=ByteLevel(
            pre="gpt-4o",
            special=(
                "<|startoftext|>",
                "<|endoftext|>",
                "<|return|>",
                "<|constrain|>",
                "<|channel|>",
                "<|start|>",
                "<|end|>",
                "<|message|>",
                "<|call|>",
            ),
        ),
        bos="<|startoftext|>",
        eos="<|return|>",
        pad="<|endoftext|>",
        prompt=(
            "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
            "Knowledge cutoff: 2024-06\nCurrent date: {today}\n\nReasoning: medium\n\n"
            "# Valid channels: analysis, commentary, final. "
            "Channel must be included for every message.<|end|>"
            f"<|start|>user<|message|>{QUESTION}<|end|><|start|>assistant"
        ),
        template="gpt-oss",
        seed=15,
    ),
    Family(
        spec="deepseek-v3",
        model_class="DeepseekV3ForCausalLM",
        config={
            **SMALL,
            "num_key_value_heads": 4,
            "num_hidden_layers": 3,
            "first_k_dense_replace": 1,
            "n_routed_experts": 8,
            "num_experts_per_tok": 2,
            "n_shared_experts": 1,
            "n_group": 4,
            "topk_group": 2,
            "moe_intermediate_size": 32,
            "routed_scaling_factor": 2.5,
            "norm_topk_prob": True,
            "q_lora_rank": 32,
            "kv_lora_rank": 32,
            "qk_rope_head_dim": 16,
            "qk_nope_head_dim": 16,
            "v_head_dim": 16,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "original_max_position_embeddings": 64,
            },
        },
        gguf="deepseek2",
        vocabulary=ByteLevel(
            pre="deepseek-v3",
            special=(
                "<｜begin▁of▁sentence｜>",
                "<｜end▁of▁sentence｜>",
                "<｜User｜>",
                "<｜Assistant｜>",
            ),
        ),
        bos="<｜begin▁of▁sentence｜>",
        eos="<｜end▁of▁sentence｜>",
        pad="<｜end▁of▁sentence｜>",
        prompt=f"<｜begin▁of▁sentence｜><｜User｜>{QUESTION}<｜Assistant｜>",
        template="deepseek-v3",
        seed=7,
    ),
)
