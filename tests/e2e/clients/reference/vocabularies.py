"""Tiny tokenizers of the kinds that the families have, trained on a text that is written here.

Makes what a Hugging Face checkpoint (tokenizer.json) and what a GGUF file say of one vocabulary.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

TEXT = (
    "Hello world, how are you today? You are a helpful assistant.",
    "The user asks and the system answers.",
    "What is the capital of France? The capital of France is Paris.",
    "Tell me a short story about the sea. Write a poem, please: the river runs to the sea,",
    "the sea returns as rain, the rain feeds the river.",
    "Knowledge cutoff, current date, reasoning effort, valid channels: analysis, final.",
    "In-flight batching lets a server take a new request while others are still answered.",
    "def main():",
    "    for number in range(123):",
    '        print("number", number, 4567)',
    "你好，世界。我是一个助手，今天天气怎么样？请告诉我中国的首都是哪里。北京是中国的首都。",
)

NUM_MERGES = 160

# How text is cut before the merges, by the name that llama.cpp has for it (tokenizer.ggml.pre).
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT_4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DEEPSEEK_V3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CUTS = {
    "llama-bpe": [_WORDS % r"\p{N}{1,3}"],
    "qwen2": [_WORDS % r"\p{N}"],
    "chatglm-bpe": [_WORDS % r"\p{N}{1,3}"],
    "dbrx": [_WORDS % r"\p{N}{1,3}"],
    "gpt-4o": [_GPT_4O],
    "deepseek-v3": [r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+", _DEEPSEEK_V3],
}

NORMAL, UNKNOWN, CONTROL, UNUSED, BYTE = 1, 2, 3, 5, 6  # token types of GGUF


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """A tokenizer, and the fields that a GGUF file has for it."""

    tokenizer: Tokenizer
    model: str  # tokenizer.ggml.model
    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str] | None = None  # of byte-level BPE
    scores: list[float] | None = None  # of SentencePiece
    add_space_prefix: bool = False

    def id_of(self, token: str) -> int:
        return self.tokens.index(token)


def byte_level(pre: str, special: tuple[str, ...], *, special_id: int | None = None) -> Vocabulary:
    """Byte-level BPE; the special tokens stand behind the others, as is usual.

    With `special_id` tokens that nothing makes fill the room before them.
    """
    tokenizer = Tokenizer(models.BPE())
    splits = [pre_tokenizers.Split(Regex(cut), "isolated", invert=False) for cut in _CUTS[pre]]
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, bytes_only])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + NUM_MERGES, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    num_normal = tokenizer.get_vocab_size()
    merges = _state(tokenizer)["merges"]
    unused = _unused(num_normal, special_id)
    if unused:
        vocabulary = {token: index for index, token in enumerate([*_in_order(tokenizer), *unused])}
        tokenizer.model = models.BPE(vocab=vocabulary, merges=[tuple(merge) for merge in merges])
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in special])
    return Vocabulary(
        tokenizer=tokenizer,
        model="gpt2",
        pre=pre,
        tokens=_in_order(tokenizer),
        types=[NORMAL] * num_normal + [UNUSED] * len(unused) + [CONTROL] * len(special),
        merges=[" ".join(merge) for merge in merges],
    )


def sentence_piece(
    first: tuple[str, ...],
    last: tuple[str, ...] = (),
    *,
    last_id: int | None = None,
    add_space_prefix: bool,
    strips_right: bool = False,
) -> Vocabulary:
    """SentencePiece's BPE with bytes for what it does not know; `first` holds `<unk>`.

    With `last_id` tokens that nothing makes fill the room before the `last` ones.
    """
    pieces = _train_pieces()
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    used = [*first, *byte_tokens, *pieces]
    unused = _unused(len(used), last_id)
    tokens = [*used, *unused, *last]
    ranks = {piece: rank for rank, piece in enumerate(pieces)}
    scores = [0.0] * (len(first) + 256) + [-float(ranks[p]) for p in pieces]
    scores += [0.0] * (len(unused) + len(last))
    types = [UNKNOWN if t == "<unk>" else CONTROL for t in first]
    types += [BYTE] * 256 + [NORMAL] * len(pieces)
    types += [UNUSED] * len(unused) + [CONTROL] * len(last)
    model = models.BPE(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=_merges(pieces, ranks),
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    replace = normalizers.Replace(" ", "▁")
    decoder = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if add_space_prefix:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
        decoder.append(decoders.Strip(" ", 1, 0))
    else:
        tokenizer.normalizer = replace
    tokenizer.decoder = decoders.Sequence(decoder)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in first])
    tokenizer.add_special_tokens(
        [AddedToken(t, normalized=False, rstrip=strips_right) for t in last]
    )
    return Vocabulary(
        tokenizer=tokenizer,
        model="llama",
        pre="default",
        tokens=tokens,
        types=types,
        scores=scores,
        add_space_prefix=add_space_prefix,
    )


def _unused(num_before: int, first_behind: int | None) -> list[str]:
    num_missing = 0 if first_behind is None else first_behind - num_before
    return [f"[UNUSED_{number}]" for number in range(num_missing)]


def _train_pieces() -> list[str]:
    """Pieces, the earliest merged first, the single characters last, as SentencePiece has them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next", invert=False)
    characters = {"▁", *"".join(TEXT).replace(" ", "")}
    size = len(characters) + NUM_MERGES
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    ordered = _in_order(tokenizer)
    return [p for p in ordered if len(p) > 1] + [p for p in ordered if len(p) == 1]


def _merges(pieces: list[str], ranks: dict[str, int]) -> list[tuple[str, str]]:
    """Every way to make a piece of two, as transformers reads them from SentencePiece's scores."""
    found = []
    for piece in pieces:
        splits = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        known = [(left, right) for left, right in splits if left in ranks and right in ranks]
        found += sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    return found


def _in_order(tokenizer: Tokenizer) -> list[str]:
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _state(tokenizer: Tokenizer) -> dict:
    return json.loads(tokenizer.to_str())["model"]
