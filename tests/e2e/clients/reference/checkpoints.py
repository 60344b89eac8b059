"""Hugging Face checkpoints with random weights whose greedy tokens are well separated.

The same seed gives the same weights with every release of PyTorch: NumPy draws them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from families import Family, SentencePiece
from vocabularies import NORMAL, Vocabulary, byte_level, sentence_piece

NUM_NEW_TOKENS = 16
MIN_MARGIN = 0.12  # between the two likeliest tokens, in standard deviations of the logits
MIN_DISTINCT = 6  # of the tokens
MAX_SEEDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A written checkpoint and what transformers makes of the family's prompt with it."""

    directory: Path
    vocabulary: Vocabulary
    config: dict
    prompt_token_ids: list[int]
    token_ids: list[int]
    margin: float


def make_vocabulary(family: Family) -> Vocabulary:
    wanted = family.vocabulary
    if isinstance(wanted, SentencePiece):
        return sentence_piece(
            wanted.first,
            wanted.last,
            last_id=wanted.last_id,
            add_space_prefix=wanted.add_space_prefix,
            strips_right=wanted.strips_right,
        )
    return byte_level(wanted.pre, wanted.special, special_id=wanted.special_id)


def write_checkpoint(
    family: Family, directory: Path, prompt: str, template: str | None
) -> Checkpoint:
    """Writes it and asks it; the seed is the first from the family's on whose tokens are clear."""
    vocabulary = make_vocabulary(family)
    prompt_token_ids = vocabulary.tokenizer.encode(prompt, add_special_tokens=False).ids
    model = _make_model(family, vocabulary)
    for seed in range(family.seed, family.seed + MAX_SEEDS):
        _fill(model, vocabulary, seed)
        token_ids, margin = _generate(model, prompt_token_ids)
        if margin >= MIN_MARGIN and len(set(token_ids)) >= MIN_DISTINCT:
            break
    else:
        raise SystemExit(f"{family.spec}: no seed makes its tokens clear")
    if seed != family.seed:
        sys.stderr.write(f"{family.spec}: seed={seed} would be quicker than {family.seed}\n")
    model.save_pretrained(directory)
    _write_tokenizer(family, vocabulary, directory, template)
    return Checkpoint(
        directory=directory,
        vocabulary=vocabulary,
        config=_spell_as_published(directory / "config.json"),
        prompt_token_ids=prompt_token_ids,
        token_ids=token_ids,
        margin=margin,
    )


def _spell_as_published(path: Path) -> dict:
    """What transformers 5 has written; the file then says it as checkpoints on the hub do."""
    config = json.loads(path.read_text())
    spelled = {key: value for key, value in config.items() if key != "rope_parameters"}
    rope = dict(config["rope_parameters"])
    if "full_attention" in rope:  # Gemma 3
        spelled["rope_theta"] = rope["full_attention"]["rope_theta"]
        spelled["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    else:
        spelled["rope_theta"] = rope.pop("rope_theta")
        if "partial_rotary_factor" in rope:
            spelled["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
        if rope["rope_type"] != "default":
            spelled["rope_scaling"] = rope
    if config["model_type"] == "qwen3_moe":
        spelled["num_experts"] = spelled.pop("num_local_experts", config.get("num_experts"))
    spelled["torch_dtype"] = spelled.pop("dtype")
    path.write_text(json.dumps(spelled, indent=1))
    return config


def _make_model(family: Family, vocabulary: Vocabulary) -> transformers.PreTrainedModel:
    model_class = getattr(transformers, family.model_class)
    named = {"bos_token_id": family.bos, "eos_token_id": family.eos, "pad_token_id": family.pad}
    ids = {key: None if name is None else vocabulary.id_of(name) for key, name in named.items()}
    config = model_class.config_class(
        **{**family.config, **ids}, vocab_size=len(vocabulary.tokens), dtype="float32"
    )
    config._experts_implementation = "eager"
    config._attn_implementation = "eager"  # the others leave out Gemma 2's soft capping
    with torch.no_grad():
        model = model_class(config).eval()
    model.generation_config = transformers.GenerationConfig(**ids)
    return model


def _fill(model: transformers.PreTrainedModel, vocabulary: Vocabulary, seed: int) -> None:
    """Draws weights under which every part of a layer matters for what comes out.

    Tokens have weights of very different sizes in the last product, and special tokens have next
    to none: so a few normal tokens are far more likely than the others, which of them the hidden
    state says.
    """
    random = np.random.default_rng(seed)
    is_tied = model.config.tie_word_embeddings
    spread = 0.6 if is_tied else 1.0
    loudness = np.exp(spread * random.standard_normal(len(vocabulary.tokens)))
    loudness[np.array(vocabulary.types) != NORMAL] = 0.02
    state = model.state_dict()
    for name in sorted(state):
        tensor = state[name]
        shape = tuple(tensor.shape)
        if not tensor.is_floating_point() or "inv_freq" in name:
            continue
        values = random.standard_normal(shape)
        if len(shape) == 1:
            centre = 0.0 if name.endswith(("bias", "sinks")) else _default_norm(model)
            values = centre + 0.3 * values
            if name == "model.norm.weight" and is_tied:
                # of both signs: else the likeliest token after any would be itself
                values = random.standard_normal(shape) + centre - 1.0
            if name.endswith("sinks"):
                values += 2.0  # as much as a token that is attended to
            if name.endswith("e_score_correction_bias"):
                # transformers masks experts by a score of 0, llama.cpp by one of minus infinity
                values = np.abs(values)
        elif "embed_tokens" in name:
            if is_tied:
                values *= 0.3 * loudness[:, None] / _embedding_scale(model)
        elif "lm_head" in name:
            values *= loudness[:, None] / np.sqrt(shape[1])
        else:
            values *= (2.0 if is_tied else 1.5) / np.sqrt(shape[-1])
        tensor.copy_(torch.from_numpy(values.astype(np.float32)))


def _default_norm(model: transformers.PreTrainedModel) -> float:
    """Gemma's norms multiply by one more than their weights."""
    return 0.0 if model.config.model_type.startswith("gemma") else 1.0


def _embedding_scale(model: transformers.PreTrainedModel) -> float:
    """What Gemma multiplies its embeddings by."""
    is_gemma = model.config.model_type.startswith("gemma")
    return float(np.sqrt(model.config.hidden_size)) if is_gemma else 1.0


def _generate(model: transformers.PreTrainedModel, prompt: list[int]) -> tuple[list[int], float]:
    """Greedy tokens, and the least margin between the likeliest two in standard deviations."""
    with torch.inference_mode():
        result = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            min_new_tokens=NUM_NEW_TOKENS,
            max_new_tokens=NUM_NEW_TOKENS,
            output_logits=True,
            return_dict_in_generate=True,
        )
    margin = float("inf")
    for logits in result.logits:
        first, second = logits[0].topk(2).values
        margin = min(margin, float((first - second) / logits[0].std()))
    return result.sequences[0, len(prompt) :].tolist(), margin


def _write_tokenizer(
    family: Family, vocabulary: Vocabulary, directory: Path, template: str | None
) -> None:
    vocabulary.tokenizer.save(str(directory / "tokenizer.json"))
    named = {"bos_token": family.bos, "eos_token": family.eos, "pad_token": family.pad}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **{name: token for name, token in named.items() if token is not None},
    }
    if template is not None:
        config["chat_template"] = template
    (directory / "tokenizer_config.json").write_text(
        json.dumps(config, ensure_ascii=False, indent=1), encoding="utf-8"
    )
