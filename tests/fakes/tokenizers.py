"""Tokenizers small enough to be made in a test, with the real decoders of `tokenizers`."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from frontend.text.tokenizer import TextTokenizer

BOS, END_OF_TURN, START_OF_TURN = "<s>", "<|im_end|>", "<|im_start|>"
SPECIAL_TOKENS = (BOS, END_OF_TURN, START_OF_TURN)

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'tool' -%}
{{ raise_exception('no tool messages here') }}
{%- endif -%}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""


def byte_letter(byte: int) -> str:
    """ByteLevel's letter for a byte. Source: `bytes_to_unicode` of GPT-2's encoder.py."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    if byte in printable:
        return chr(byte)
    return chr(256 + [other for other in range(256) if other not in printable].index(byte))


def byte_level_tokenizer(merges: tuple[tuple[str, str], ...] = ()) -> Tokenizer:
    """As GPT-2's and Llama 3's: a token for every byte, then the special ones, then the merges.

    Args:
        merges: of ByteLevel's letters for the bytes, in order.
    """
    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet())]
    words = [*letters, *SPECIAL_TOKENS, *(left + right for left, right in merges)]
    vocab = {word: token_id for token_id, word in enumerate(words)}
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in SPECIAL_TOKENS])
    return tokenizer


def sentencepiece_tokenizer() -> Tokenizer:
    """As Llama 2's: words with a space before them, and bytes for what has no word."""
    pieces = ["<unk>", BOS, "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", "▁hello", "▁world", "a", "b", "你", "▁▁▁▁"]
    tokenizer = Tokenizer(
        BPE(
            vocab={piece: token_id for token_id, piece in enumerate(pieces)},
            merges=[],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
            ignore_merges=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁[^▁]*"), "isolated")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in (BOS, "</s>")])
    return tokenizer


def id_of(tokenizer: Tokenizer, word: str) -> int:
    token_id = tokenizer.token_to_id(word)
    assert isinstance(token_id, int), word
    return token_id


def text_tokenizer(
    tokenizer: Tokenizer | None = None, *, chat_template: str | None = CHAT_TEMPLATE
) -> TextTokenizer:
    with TemporaryDirectory() as folder:
        return TextTokenizer(write_tokenizer(Path(folder), tokenizer, chat_template=chat_template))


def write_tokenizer(
    folder: Path, tokenizer: Tokenizer | None = None, *, chat_template: str | None = CHAT_TEMPLATE
) -> Path:
    """Write the folder that `TextTokenizer` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (tokenizer or byte_level_tokenizer()).save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": END_OF_TURN,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if chat_template is not None:
        (folder / "chat_template.jinja").write_text(chat_template)
    return folder
