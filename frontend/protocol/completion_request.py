"""What /v1/completions takes: every documented field works or is refused by its name.

Source: OpenAI's API description 2.3.0, CreateCompletionRequest; vLLM's extra parameters.
"""

from __future__ import annotations

from typing import Annotated

from frontend.errors import InvalidParameter
from frontend.protocol.extras import MAX_SEQUENCES, ExtraFields, StreamOptions
from frontend.protocol.inputs import Input, Inputs, read_inputs
from frontend.protocol.limits import between, entries
from frontend.protocol.parse import check_range
from frontend.protocol.sampling import MAX_INT32, StopString
from frontend.protocol.structured import ResponseFormat, only_guide
from frontend.types import Guide

DEFAULT_MAX_TOKENS = 16  # OpenAI's
MAX_LOG_PROBS = 20  # OpenAI allows 5, other servers more; as many as chat completions give
MAX_STOP_STRINGS = 16  # evaluation harnesses send more than OpenAI allows
MAX_PROMPTS = 256
MAX_ALL_SEQUENCES = 1024  # of all prompts together


class CompletionRequest(ExtraFields, kw_only=True, forbid_unknown_fields=True):
    """`None` is a field that was not given."""

    max_tokens: Annotated[int, between(0, MAX_INT32)] | None = None
    stop: StopString | Annotated[list[StopString], entries(0, MAX_STOP_STRINGS)] | None = None
    prompt: Inputs | None = None  # None and "": from a document's beginning
    suffix: str | None = None
    echo: bool | None = None
    logprobs: Annotated[int, between(0, MAX_LOG_PROBS)] | None = None
    best_of: Annotated[int, between(1, MAX_SEQUENCES)] | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    add_special_tokens: bool | None = None  # None: yes

    def check(self) -> None:
        super().check()
        check_range("best_of", self.best_of, self.n or 1, MAX_SEQUENCES)
        if self.max_tokens == 0 and not self.echo:
            raise InvalidParameter("max_tokens", "only_with", other="echo")
        if self.stream_options is not None and not self.stream:
            raise InvalidParameter("stream_options", "only_with_stream")
        if self.stream and self.num_candidates > self.num_choices:
            raise InvalidParameter("best_of", "conflict", other="stream")
        num_sequences = len(self.inputs() or ("",)) * self.num_candidates
        if num_sequences > MAX_ALL_SEQUENCES:
            maximum = MAX_ALL_SEQUENCES // self.num_candidates
            raise InvalidParameter("prompt", "too_many", count=len(self.inputs()), maximum=maximum)
        if self.suffix is not None:
            self._check_suffix()

    def _check_suffix(self) -> None:
        if self.echo:
            raise InvalidParameter("suffix", "conflict", other="echo")
        if not all(isinstance(one, str) for one in self.inputs()):
            raise InvalidParameter("suffix", "only_with_texts", other="prompt")

    def inputs(self) -> list[Input]:
        """The prompts; none if a document is to begin.

        Raises:
            InvalidParameter: one of several is empty, they are mixed, or too many.
        """
        if self.prompt is None or self.prompt == "":
            return []
        return read_inputs("prompt", self.prompt, maximum=MAX_PROMPTS)

    @property
    def num_choices(self) -> int:
        """For each prompt."""
        return self.n or 1

    @property
    def num_candidates(self) -> int:
        """What the engine generates for each prompt; the best of them become choices."""
        return self.best_of or self.num_choices

    @property
    def max_new_tokens(self) -> int:
        return DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def num_log_probs(self) -> int | None:
        """What the engine is asked for: candidates are chosen by them, too."""
        if self.logprobs is None and self.num_candidates > self.num_choices:
            return 0
        return self.logprobs

    @property
    def needs_prompt_log_probs(self) -> bool:
        """Without new tokens they are all that there is to compute."""
        return bool(self.echo) and (self.logprobs is not None or self.max_new_tokens == 0)

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def guided(self) -> tuple[str, Guide] | None:
        """What each completion must match, and the field that says so.

        Raises:
            InvalidParameter: names the field.
        """
        guides = self.extra_guides()
        response = self.response_format.guide() if self.response_format else None
        if response is not None:
            guides.insert(0, ("response_format", response))
        return only_guide(guides)
