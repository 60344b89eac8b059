"""What /tokenize, /detokenize, /tokenizer_info and /v1/chat/completions/render answer."""

from __future__ import annotations

from typing import Literal

from frontend.protocol.answers.base import Answer


class Tokens(Answer):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class Detokenized(Answer):
    prompt: str


class TokenizerInfo(Answer):
    model: str
    tokenizer_class: str
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    unk_token: str | None
    chat_template: str | None


class RenderedPrompt(Answer):
    object: Literal["chat.completion.prompt"]
    model: str
    prompt: str
    token_ids: list[int]
    count: int
    max_model_len: int
