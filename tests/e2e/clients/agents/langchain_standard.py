"""LangChain's own tests of a chat model, for the models that we serve.

    OPENAI_BASE_URL, OPENAI_API_KEY: where
    MODEL, OTHER_MODEL: the model to test, and another one that is served beside it
    API: "chat" or "responses"

Run by tests/e2e/test_langchain_standard.py with the pytest of this folder's environment.
"""

from __future__ import annotations

import os
from typing import Any, Literal

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

LONG_PROMPT = "Tell me what you know about the city of Paris. " * 20


class TestServedModel(ChatModelIntegrationTests):
    """What our models can do is said here, where the defaults do not say it already.

    By default: tools, `tool_choice`, structured output and usage; no images, PDFs or audio.
    """

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        params = {
            "model": os.environ["MODEL"],
            "temperature": 0,
            "max_tokens": 300,
            "max_retries": 0,
        }
        if os.environ["API"] == "responses":
            return params | {"use_responses_api": True}
        # a small model says the same again and again without the penalty
        return params | {"frequency_penalty": 1, "stream_usage": True}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return os.environ["OTHER_MODEL"]

    @property
    def supported_usage_metadata_details(
        self,
    ) -> dict[Literal["invoke", "stream"], list[str]]:
        return {"invoke": ["cache_read_input"], "stream": ["cache_read_input"]}

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        """A long prompt for the second time: its beginning is in the prefix cache."""
        model = ChatOpenAI(**{**self.chat_model_params, "max_tokens": 4})
        model.invoke(LONG_PROMPT)
        if not stream:
            return model.invoke(LONG_PROMPT)
        first, *others = model.stream(LONG_PROMPT)
        whole = first
        for chunk in others:
            whole += chunk
        assert isinstance(whole, AIMessageChunk)
        return whole
