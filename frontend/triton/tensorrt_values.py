"""What config.pbtxt of the C++ backend says of an engine, from its artefact's manifest.

Source of the keys and their forms: docs/model_config.md of tensorrtllm_backend.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from build_engines.artefacts.artefact import Artefact, DraftingFacts, EngineFacts, Manifest
from triton_models.render import Value

XGRAMMAR_FILE = "xgrammar_tokenizer_info.json"
# What a LoRA cache counts in: adapters that are smaller take as much of it as this rank.
_OPTIMAL_RANK = 8


def engine_values(artefact: Artefact) -> Mapping[str, Value]:
    """Values of the placeholders that depend on the engine."""
    path, manifest = artefact.path, artefact.manifest
    facts = manifest.engine or EngineFacts()
    return {
        "engine_dir": str(path / "engine"),
        "tokenizer_dir": str(path / "tokenizer"),
        "xgrammar_tokenizer_info_path": str(path / XGRAMMAR_FILE),
        **({"triton_max_batch_size": facts.max_batch_size} if facts.max_batch_size else {}),
        "max_beam_width": facts.max_beam_width,
        "enable_chunked_context": facts.has_chunked_context,
        "enable_kv_cache_reuse": facts.has_kv_reuse,
        "max_attention_window_size": _list(facts.attention_windows),
        **_lora(facts, manifest),
        **_drafting(facts.drafting),
    }


def _lora(facts: EngineFacts, manifest: Manifest) -> dict[str, Value]:
    """The cache must hold the largest adapter that the engine was built for."""
    if facts.max_lora_rank is None:
        return {}
    largest = max((one.rank for one in manifest.adapters.values()), default=facts.max_lora_rank)
    return {
        "lora_cache_max_adapter_size": facts.max_lora_rank,
        "lora_cache_optimal_adapter_size": min(_OPTIMAL_RANK, largest),
    }


def _drafting(facts: DraftingFacts | None) -> dict[str, Value]:
    """A draft model's tokens come with the requests: the engine needs no mode for them."""
    if facts is None:
        return {}
    if facts.mode == "draft_target":
        if facts.draft_model is None:  # an artefact of before it was written down
            return {}
        return {"draft_model": facts.draft_model, "max_draft_len": facts.max_draft_len}
    if facts.mode == "lookahead":
        window, ngram, verified = facts.lookahead
        return {
            "decoding_mode": "lookahead",
            "lookahead_window_size": window,
            "lookahead_ngram_size": ngram,
            "lookahead_verification_set_size": verified,
        }
    tree = ", ".join(f"{{{_list(path, ', ')}}}" for path in facts.tree)
    return {"decoding_mode": facts.mode, f"{facts.mode}_choices": tree}


def _list(numbers: Iterable[int], separator: str = ",") -> str:
    return separator.join(map(str, numbers))
