"""The domain objects that the parts of the frontend hand to each other; no I/O, no wire shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum


class FinishReason(StrEnum):
    """Why a sequence ended, in OpenAI's words."""

    STOP = "stop"  # the model ended its answer, or a stop string or stop token was met
    LENGTH = "length"  # max_new_tokens or the model's context was reached
    TOOL_CALLS = "tool_calls"  # the model asks for tools to be called


class GuideType(StrEnum):
    """What `Guide.text` is; the values of the tensor `guided_decoding_guide_type`."""

    JSON = "json"
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    EBNF_GRAMMAR = "ebnf_grammar"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guide:
    """What the output must match (guided decoding)."""

    type: GuideType
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How tokens are chosen. Each default is neutral: its tensor is not sent."""

    temperature: float = 1.0  # 0: greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: all tokens
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None  # None: the frontend draws one, since the engine's default is fixed
    min_tokens: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # token id -> bias
    bad_words: tuple[tuple[int, ...], ...] = ()  # token ids of each word
    num_log_probs: int | None = None  # None: no log-probs; k: of the chosen and the k best tokens
    guide: Guide | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedVersion:
    """One load of a model by the engine: a load of anything makes another one."""

    number: int
    tokenizer_hash: str  # equal: the same token ids mean the same


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraAdapter:
    """A LoRA adapter of a served model."""

    name: str
    task_id: int  # 64 bits, unsigned: what the engine knows it by
    directory: str  # with its weights, for an engine that wants them with a request


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """A validated request; nothing downstream checks or changes it."""

    request_id: str  # unique over all frontends: Triton registers requests by it
    model: str  # the Triton model's name
    prompt_token_ids: list[int]
    max_new_tokens: int  # already cut to the room that the model's context leaves
    is_length_open: bool = False  # the client has not said how many tokens it wants
    num_sequences: int = 1
    sampling: SamplingParams = field(default_factory=SamplingParams)
    stop: tuple[str, ...] = ()  # matched on text in the frontend
    end_id: int | None = None  # ends the answer; neither emitted nor counted by the engine
    stop_token_ids: tuple[int, ...] = ()  # emitted by the engine; the frontend hides their text
    shows_stop_token: bool = False  # the one that was met is among token_ids and log-probs
    # With sampling.num_log_probs alternatives; max_new_tokens may then be 0.
    returns_prompt_log_probs: bool = False
    # 64 bits, unsigned; cached prompt beginnings are shared with requests of the same salt only.
    cache_salt: int | None = None
    priority: int = 0  # 32 bits; lower is sooner
    # What it was prepared for; None: whatever the engine serves.
    prepared_for: ServedVersion | None = None
    # Whether it may go to another version that reads the same token ids: when a part of its answer
    # has been given out, it cannot be prepared again.
    may_move: bool = False
    adapter: LoraAdapter | None = None
    # Guesses of what comes next, for the engine to accept or not; it then ends after one step.
    draft_token_ids: tuple[int, ...] = ()

    @property
    def model_name(self) -> str:
        """As clients write it."""
        return self.model if self.adapter is None else f"{self.model}:{self.adapter.name}"

    def continued(self, token_ids: list[int], *, part: str) -> GenerationRequest:
        """The request for what comes behind these tokens of the answer, now the prompt's end.

        The rest of the prompt is in the engine's prefix cache. max_new_tokens is below 1 where
        they leave no room.

        Args:
            part: a name, unique among the answer's parts.
        """
        min_tokens = max(self.sampling.min_tokens - len(token_ids), 0)
        return replace(
            self,
            request_id=f"{self.request_id}-{part}",
            prompt_token_ids=self.prompt_token_ids + token_ids,
            max_new_tokens=self.max_new_tokens - len(token_ids),
            sampling=replace(self.sampling, min_tokens=min_tokens),
            may_move=True,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogProb:
    """The log-probability of one token."""

    token_id: int
    log_prob: float


# Nobody changes this, nor TextChunk; but one is made for every token, and making it takes a frozen
# class four times as long.
@dataclass(slots=True, kw_only=True)
class TokenChunk:
    """New tokens of one sequence, as the engine delivered them; never the prompt's.

    The prompt's log-probs come once, with the first chunk of the first sequence.
    """

    token_ids: list[int]
    finish_reason: FinishReason | None = None
    sequence_index: int = 0
    log_probs: list[float] | None = None  # one for each of token_ids
    top_log_probs: list[list[TokenLogProb]] | None = None  # one list for each of token_ids
    num_cached_tokens: int | None = None  # prompt tokens found in the prefix cache
    prompt_log_probs: list[float] | None = None  # one for each prompt token; the first is 0
    prompt_top_log_probs: list[list[TokenLogProb]] | None = None  # of the second token and on


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of one call; the first has its id and name, all have some of its arguments' text."""

    index: int  # of the call within the answer
    id: str | None
    name: str | None
    arguments: str  # JSON text; the pieces of a call joined are its arguments


@dataclass(slots=True, kw_only=True)  # see TokenChunk
class TextChunk:
    """New text of one sequence, safe to show: no half characters, nothing of a stop string.

    `num_tokens` counts what the engine generated for it, hidden tokens included.
    """

    text: str
    num_tokens: int
    reasoning: str = ""  # what the model thinks before it answers
    num_reasoning_tokens: int = 0  # of num_tokens
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: FinishReason | None = None
    stop_string: str | None = None  # that ended the sequence
    sequence_index: int = 0
    token_ids: list[int] = field(default_factory=list)
    log_probs: list[float] | None = None
    top_log_probs: list[list[TokenLogProb]] | None = None
    num_cached_tokens: int | None = None
    prompt_log_probs: list[float] | None = None  # see TokenChunk
    prompt_top_log_probs: list[list[TokenLogProb]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts of one request, in OpenAI's words."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLimits:
    """What an engine was built for, in tokens."""

    max_seq_len: int  # prompt and output together
    max_input_len: int
    vocab_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafting:
    """The other model that guesses a model's tokens ahead, and how many it may guess at once."""

    model: str
    max_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """What a model that Triton serves now can do, read from its Triton configuration."""

    name: str
    variant: str
    limits: ModelLimits
    inputs: frozenset[str]  # tensor names
    outputs: frozenset[str]
    embedding_size: int | None = None  # values of a vector; None: it generates tokens
    artefact_dir: str = ""  # of the artefact's version that it runs
    served: ServedVersion | None = None  # None: not loaded by us
    drafting: Drafting | None = None  # None: nobody guesses for it
    vocabulary: str = ""  # equal: the same pieces of text have the same token ids; "": not known

    @property
    def takes_adapters(self) -> bool:
        return "lora_task_id" in self.inputs
