"""A model's tokenizer and chat template, from the plain files of its artefact.

Never runs remote code: tokenizer.json and a Jinja template, rendered in transformers' sandbox.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from frontend.text.token_bytes import TokenBytes


class ChatTemplateError(ValueError):
    """The template does not accept these messages; the message says why."""


class TextTokenizer:
    """Text <-> token ids, and messages -> the prompt's text. Safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: holds tokenizer.json, tokenizer_config.json and, for a chat model,
                chat_template.jinja.
        """
        self._fast = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
        self._backend: Tokenizer = self._fast.backend_tokenizer
        # Some tokenizer.json keep the cuts and padding of their training.
        self._backend.no_truncation()
        self._backend.no_padding()

    @property
    def has_chat_template(self) -> bool:
        return bool(self._fast.chat_template)

    @cached_property
    def chat_template(self) -> str:
        """The template's text, of all of them where there are several; "" if there is none."""
        templates = self._fast.chat_template or ""
        return templates if isinstance(templates, str) else "\n".join(templates.values())

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of `text`; with `add_special_tokens` what the model puts around a bare text."""
        # Unlike `encode` it lets go of the interpreter lock: a long text takes 0.1 s and more.
        encoded = self._backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        token_ids: list[int] = encoded[0].ids
        return token_ids

    def encode_with_offsets(
        self, text: str, *, add_special_tokens: bool
    ) -> tuple[list[int], list[int]]:
        """The same, and where in `text` each token begins, in characters.

        Tokens that are parts of one character begin where it does; one that was added begins
        behind those before it.
        """
        encoded = self._backend.encode_batch([text], add_special_tokens=add_special_tokens)[0]
        starts, end = [], 0
        for start, token_end in encoded.offsets:
            starts.append(start if token_end else end)
            end = max(end, token_end)
        return encoded.ids, starts

    def token_strings(self, token_ids: Sequence[int]) -> list[str]:
        """The vocabulary's own words for tokens; "" for one that it has none for."""
        return [self._backend.id_to_token(token_id) or "" for token_id in token_ids]

    @property
    def special_tokens(self) -> dict[str, str]:
        """By their roles: bos_token, eos_token and so on."""
        return dict(self._fast.special_tokens_map)

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        text: str = self._backend.decode(ids, skip_special_tokens=skip_special_tokens)
        return text

    def word_ids(self, word: str) -> list[tuple[int, ...]]:
        """A word's token ids: as a text begins with it, and as it stands behind a space."""
        texts = (word, f" {word}")
        found = [tuple(self.encode(text, add_special_tokens=False)) for text in texts]
        return [token_ids for token_ids in dict.fromkeys(found) if token_ids]

    def token_bytes(self, token_id: int) -> bytes:
        """What a token stands for, exactly, even where it is only a part of a character."""
        return self._token_bytes(token_id)

    @cached_property
    def _token_bytes(self) -> TokenBytes:
        return TokenBytes(self._backend)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        **variables: Any,
    ) -> str:
        """The prompt's text, special tokens included.

        Args:
            tools: as OpenAI's API has them; None where the template is to show none.
            chat_template: in place of the model's.
            continue_final_message: leave the last message open.

        Raises:
            ChatTemplateError: the template refuses the messages (order of roles, say), or it is
                broken.
        """
        shown = None if tools is None else list(tools)
        try:
            rendered, _ = render_jinja_template(
                conversations=[list(messages)],
                tools=shown,
                chat_template=self._fast.get_chat_template(chat_template, shown),
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                **{**self._fast.special_tokens_map, **variables},
            )
            text: str = rendered[0]
            text.encode()  # a template's own words may have half a surrogate pair
        except Exception as exc:  # a template is the model maker's program: anything can happen
            raise ChatTemplateError(str(exc)) from exc
        return text
