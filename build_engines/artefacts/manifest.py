"""What manifest.json says of a published version. `artefact.py` reads and writes it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import msgspec

SCHEMA_VERSION = 2
# What may differ between two versions that answer the same: where and when they come from, and
# what was measured of them.
_CIRCUMSTANCES = ("version", "created", "source", "tools", "memory_bytes", "verification",
                  "order_key")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of an artefact."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Tokens of prompt and output together, of the prompt alone, and the number of token ids."""

    max_seq_len: int
    max_input_len: int
    vocab_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialTokens:
    """Token ids with a meaning. The first of `eos_ids` is the engine's end_id.

    `fill_in_middle` is the prompt for the text between two others, which stand in it as {prefix}
    and {suffix}; None: the model has not learnt that.
    """

    bos_id: int | None
    eos_ids: list[int]
    pad_id: int | None
    fill_in_middle: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftingFacts:
    """How an engine guesses tokens ahead."""

    mode: str  # draft_target, lookahead, medusa, eagle
    max_draft_len: int
    tree: list[list[int]] = field(default_factory=list)  # of medusa and eagle
    lookahead: list[int] = field(default_factory=list)  # window, n-gram, verification set
    draft_model: str | None = None  # of draft_target: the name of the model that guesses


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """How an engine was built, read back from it. None: its kind has no such limit."""

    max_batch_size: int | None = None
    max_num_tokens: int | None = None  # of one step, all requests together
    kv_cache: str | None = None  # data type
    tp_size: int = 1
    pp_size: int = 1
    ep_size: int = 1
    max_beam_width: int = 1
    # Whether prompts can be cut into chunks and prefixes shared; both need the same kernels.
    has_chunked_context: bool = True
    has_kv_reuse: bool = True
    # The pattern of windows, layer by layer; empty: every layer sees everything.
    attention_windows: list[int] = field(default_factory=list)
    max_lora_rank: int | None = None  # None: built without LoRA
    drafting: DraftingFacts | None = None

    @property
    def world_size(self) -> int:
        """Processes, and GPUs, that it runs on."""
        return self.tp_size * self.pp_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA adapter; what is in `directory` is `lora.py`'s."""

    directory: str  # POSIX path inside the artefact
    rank: int
    task_id: int  # 64 bits, unsigned, from its content: what engines know it by


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationResult:
    """How a model did when it was asked in a real Triton, before it was published.

    `difference` from `reference`: the mean absolute one of log-probs in nats; of an embedding the
    greatest one of cosines. None: there was nothing to compare with.
    """

    reference: str
    difference: float | None
    tolerance: float | None
    tokens_per_s: dict[str, float]  # number of streams -> of all together; of an embedding "1" only


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is known about a published artefact."""

    schema_version: int
    name: str
    variant: str
    kind: str  # which engine runs it: a folder of triton_models/
    format: str
    quantization: str
    source: dict[str, str]
    tools: dict[str, str]  # package -> version
    files: dict[
        str, FileEntry
    ]  # POSIX path inside the artefact -> file; the manifest itself is not in it
    size_bytes: int  # weights and tokenizer together
    limits: Limits
    tokens: SpecialTokens
    created: str  # ISO 8601, UTC
    # Resident memory of the engine's process, with what it keeps of prompts, where it was measured.
    memory_bytes: int | None
    embedding_size: int | None = None  # values of a vector; None: the model generates tokens
    # Names of what reads the model's tool calls and thoughts; None: its chat template says it.
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    family: str | None = None  # a name of the builder's families
    engine: EngineFacts | None = None
    adapters: dict[str, Adapter] = field(default_factory=dict)  # by the name in requests
    verification: VerificationResult | None = None
    order_key: str | None = None  # hash of what was ordered; None: it was added ready-made
    version: int = 0  # the number of its directory; publishing gives it


def content_hash(manifest: Manifest) -> str:
    """The same for versions that answer the same, whenever and wherever they were built."""
    fields: dict[str, object] = msgspec.to_builtins(manifest)
    fields = {key: value for key, value in fields.items() if key not in _CIRCUMSTANCES}
    return hashlib.sha256(msgspec.json.encode(fields, order="sorted")).hexdigest()
