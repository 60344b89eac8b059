"""What the manifest says of a TensorRT engine: its config.json, and what the runtime is told."""

from __future__ import annotations

from build_engines.artefacts.artefact import DraftingFacts, EngineFacts
from build_engines.checkpoints.architecture import Architecture
from build_engines.families.drafting import Drafting
from build_engines.tensorrt.engine_config import EngineConfig
from build_engines.tensorrt.engine_options import EngineOptions

_KV_CACHES = {"INT8": "int8", "FP8": "fp8"}


def engine_facts(
    found: EngineConfig, architecture: Architecture, options: EngineOptions
) -> EngineFacts:
    """The engine's own numbers; the tree of guesses is chosen when it is served."""
    windows = list(architecture.attention_windows(found.max_seq_len))
    drafting = options.drafting
    has_tree = drafting is not None and drafting.has_own_script
    return EngineFacts(
        max_batch_size=found.max_batch_size,
        max_num_tokens=found.max_num_tokens,
        kv_cache=_KV_CACHES.get(found.kv_cache_quant_algo or ""),
        tp_size=found.tp_size,
        pp_size=found.pp_size,
        ep_size=found.ep_size,
        max_beam_width=found.max_beam_width,
        # EAGLE's README: "Chunked context is not supported yet"
        has_chunked_context=found.has_paged_context and not has_tree,
        # Gemma 3's README switches it off: windows let go of what a prefix would share
        has_kv_reuse=found.has_paged_context and not windows,
        attention_windows=windows,
        max_lora_rank=found.max_lora_rank,
        drafting=None if drafting is None else _drafting(drafting, found),
    )


def draft_len(found: EngineConfig, drafting: Drafting | None) -> int:
    """Tokens of a step's guesses; engines whose checkpoint says it need not repeat it."""
    return 0 if drafting is None else found.max_draft_len or drafting.max_draft_len


def _drafting(drafting: Drafting, found: EngineConfig) -> DraftingFacts:
    return DraftingFacts(
        mode=drafting.mode,
        max_draft_len=draft_len(found, drafting),
        tree=[list(path) for path in drafting.tree],
        lookahead=list(drafting.lookahead or ()),
        draft_model=drafting.draft_model if drafting.mode == "draft_target" else None,
    )
