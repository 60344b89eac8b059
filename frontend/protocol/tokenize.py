"""The wire shapes of /tokenize, /detokenize, /tokenizer_info and /v1/chat/completions/render.

Source: vLLM's OpenAI-compatible server, its tokenize protocol; evaluation harnesses read it.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from frontend.errors import InvalidParameter
from frontend.protocol.chat_messages import ChatMessage
from frontend.protocol.chat_request import ChatRequest
from frontend.protocol.inputs import TokenId
from frontend.protocol.limits import at_least, check_limits, entries
from frontend.protocol.tools import MAX_TOOLS, Tool

MAX_TOKENS = 2**20  # of /detokenize


class TokenizeRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A bare text (`prompt`), or messages that go through the model's chat template."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[ChatMessage], at_least(1)] | None = None
    add_special_tokens: bool | None = None  # of a bare text; None: yes. A template has its own
    return_token_strs: bool | None = None
    # How the messages become a prompt; see ChatRequest.
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    tools: Annotated[list[Tool], entries(0, MAX_TOOLS)] | None = None

    def check(self) -> None:
        """
        Raises:
            InvalidParameter: there is not one of both, or a field goes with the other one.
        """
        check_limits(self)
        if self.messages is not None:
            for param in ("prompt", "add_special_tokens"):
                if getattr(self, param):
                    raise InvalidParameter(param, "conflict", other="messages")
            return
        if self.prompt is None:
            raise InvalidParameter("prompt", "missing")
        for param in _OF_MESSAGES:
            if getattr(self, param) is not None:
                raise InvalidParameter(param, "only_with", other="messages")

    def chat_request(self) -> ChatRequest | None:
        """The same as a chat request; None for a bare text."""
        if self.messages is None:
            return None
        fields = {param: getattr(self, param) for param in _OF_MESSAGES}
        return ChatRequest(model=self.model, messages=self.messages, **fields)


_OF_MESSAGES = (
    "add_generation_prompt",
    "continue_final_message",
    "chat_template",
    "chat_template_kwargs",
    "tools",
)


class DetokenizeRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    tokens: Annotated[list[TokenId], entries(0, MAX_TOKENS)]
    model: str | None = None

    def check(self) -> None:
        """
        Raises:
            InvalidParameter: names the field.
        """
        check_limits(self)


def encode_tokens(
    token_ids: list[int], *, max_model_len: int, token_texts: list[str] | None
) -> dict[str, Any]:
    """What /tokenize answers."""
    return {
        "count": len(token_ids),
        "max_model_len": max_model_len,
        "tokens": token_ids,
        "token_strs": token_texts,
    }


def encode_rendered(
    *, model: str, prompt_text: str, token_ids: list[int], max_model_len: int
) -> dict[str, Any]:
    """What /v1/chat/completions/render answers."""
    return {
        "object": "chat.completion.prompt",
        "model": model,
        "prompt": prompt_text,
        "token_ids": token_ids,
        "count": len(token_ids),
        "max_model_len": max_model_len,
    }


def encode_tokenizer(
    *, model: str, special_tokens: dict[str, str], chat_template: str
) -> dict[str, Any]:
    """What /tokenizer_info answers; a special token that there is not is null."""
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    return {
        "model": model,
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: special_tokens.get(name) for name in names},
        "chat_template": chat_template or None,
    }
