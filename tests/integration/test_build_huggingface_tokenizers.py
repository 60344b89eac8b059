"""Vocabularies of Hugging Face checkpoints, held to the libraries that read them upstream."""

from __future__ import annotations

import base64
import unicodedata
from pathlib import Path
from typing import Any

import orjson
import pytest
import tiktoken
from tokenizers import AddedToken, Tokenizer, models

from build_engines.artefacts.artefact import SpecialTokens
from build_engines.errors import BuildError
from build_engines.tokenizers.write import write_tokenizer
from frontend.text.tokenizer import TextTokenizer
from tests.integration.build_vocabularies import ranks, write_ranks, write_sentencepiece
from tests.integration.tokenizer_texts import mixed_texts

# Source: tokenization_qwen.py of Qwen-7B-Chat, as it stands there.
QWEN_PATTERN = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""  # noqa: E501
# Source: tokenization_chatglm.py of GLM-4-9B-Chat.
GLM4_PATTERN = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""  # noqa: E501
# Source: tekken.json of Mistral-Nemo-Instruct-2407.
TEKKEN_PATTERN = r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"""  # noqa: E501
GEMMA_SYMBOLS = ["<start_of_turn>", "<b>", "▁▁", "▁▁▁", "▁▁▁▁"]
TEXTS = list(mixed_texts(1000))


class Checkpoint:
    """A directory with the small files of a checkpoint."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "checkpoint"
        self.written = directory / "tokenizer"
        self.directory.mkdir()

    def json(self, name: str, **content: Any) -> None:
        (self.directory / name).write_bytes(orjson.dumps(content))

    def convert(self, chat_template: str | None = None) -> SpecialTokens:
        return write_tokenizer(
            self.directory, self.written, max_seq_len=64, chat_template=chat_template
        )

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(str(self.written / "tokenizer.json"))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return Checkpoint(tmp_path)


def is_mark(character: str) -> bool:
    return unicodedata.category(character) in ("Mn", "Mc", "Sk", "Cf")


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def of_tiktoken(pattern: str) -> tiktoken.Encoding:
    table = {token: rank for rank, token in enumerate(ranks())}
    return tiktoken.Encoding("test", pat_str=pattern, mergeable_ranks=table, special_tokens={})


def test_qwen_tiktoken_equals_tiktoken_with_its_special_tokens_behind(
    checkpoint: Checkpoint,
) -> None:
    write_ranks(checkpoint.directory / "qwen.tiktoken", ranks())
    checkpoint.json("generation_config.json", chat_format="chatml", eos_token_id=len(ranks()))
    checkpoint.json("tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_qwen.X"]})
    tokens = checkpoint.convert("qwen")
    tokenizer, reference = checkpoint.tokenizer(), of_tiktoken(QWEN_PATTERN)
    for text in TEXTS:
        composed = unicodedata.normalize("NFC", text).replace("<|im_end|>", "")
        composed = composed.replace("<|endoftext|>", "").replace("<|im_start|>", "")
        assert ids_of(tokenizer, composed) == reference.encode_ordinary(composed)
        assert tokenizer.decode(ids_of(tokenizer, composed)) == composed
    first = len(ranks())
    text = "<|endoftext|><|im_start|><|im_end|><|extra_0|><|extra_204|>"
    assert [index - first for index in ids_of(tokenizer, text)] == [0, 1, 2, 3, 207]
    assert tokenizer.get_vocab_size() == first + 208
    assert tokens == SpecialTokens(bos_id=None, eos_ids=[first, first + 2], pad_id=first)


def test_qwen_composes_characters_as_its_own_code_does(checkpoint: Checkpoint) -> None:
    write_ranks(checkpoint.directory / "qwen.tiktoken", ranks())
    checkpoint.convert()
    tokenizer = checkpoint.tokenizer()
    assert ids_of(tokenizer, "e\u0301") == ids_of(tokenizer, "é")


def test_glm_4_has_ranks_in_a_file_with_the_name_of_sentencepiece(checkpoint: Checkpoint) -> None:
    write_ranks(checkpoint.directory / "tokenizer.model", ranks())
    first = len(ranks())
    names = ["<|endoftext|>", "[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|observation|>"]
    added = {str(first + i): {"content": name, "special": True} for i, name in enumerate(names)}
    checkpoint.json("config.json", model_type="chatglm", eos_token_id=[first, first + 3, first + 5])
    checkpoint.json("tokenizer_config.json", added_tokens_decoder=added, eos_token="<|endoftext|>")
    tokens = checkpoint.convert("glm-4")
    tokenizer, reference = checkpoint.tokenizer(), of_tiktoken(GLM4_PATTERN)
    for text in TEXTS:
        plain = text.replace("<|endoftext|>", "")
        assert ids_of(tokenizer, plain) == reference.encode_ordinary(plain)
    assert ids_of(tokenizer, "[gMASK]<sop><|user|>") == [first + 1, first + 2, first + 3]
    assert tokens.eos_ids == [first, first + 3, first + 5]


def test_tekken_puts_its_special_tokens_before_the_ranks(checkpoint: Checkpoint) -> None:
    vocab = [
        {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
        for rank, token in enumerate(ranks())
    ]
    settings = {
        "pattern": TEKKEN_PATTERN,
        "default_num_special_tokens": 20,
        "default_vocab_size": len(ranks()) - 100 + 20,  # the last hundred ranks are not used
    }
    checkpoint.json("tekken.json", config=settings, vocab=vocab)
    tokens = checkpoint.convert("mistral-tekken")
    tokenizer = checkpoint.tokenizer()
    reference = tiktoken.Encoding(
        "test",
        pat_str=TEKKEN_PATTERN,
        mergeable_ranks={token: rank for rank, token in enumerate(ranks()[:-100])},
        special_tokens={},
    )
    for text in TEXTS:
        assert ids_of(tokenizer, text) == [20 + i for i in reference.encode_ordinary(text)]
    assert ids_of(tokenizer, "<s>[INST][/INST]</s>[TOOL_CALLS]") == [1, 3, 4, 2, 9]
    assert (tokens.bos_id, tokens.eos_ids) == (1, [2])
    assert tokenizer.encode("a").ids[0] == 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"add_dummy_prefix": False, "user_defined_symbols": GEMMA_SYMBOLS},
        {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True},
        {"byte_fallback": False},
    ],
    ids=["llama", "gemma", "normalized", "without bytes"],
)
def test_sentencepiece_models_equal_sentencepiece(
    checkpoint: Checkpoint, options: dict[str, Any]
) -> None:
    reader = write_sentencepiece(checkpoint.directory / "tokenizer.model", **options)
    tokens = checkpoint.convert()
    tokenizer = checkpoint.tokenizer()
    texts = [*TEXTS, "<b>x <start_of_turn>user", *(f"a{' ' * n}b" for n in range(12))]
    if "normalization_rule_name" in options:  # `tokenizers` normalizes a letter with its marks
        texts = [text for text in texts if not any(map(is_mark, text))]
    for text in texts:
        ids = ids_of(tokenizer, text)
        assert ids == reader.encode(text), text
        if "byte_fallback" not in options:
            assert tokenizer.decode(ids, skip_special_tokens=False) == reader.decode(ids)
    assert tokenizer.get_vocab_size() == reader.vocab_size()
    assert tokens == SpecialTokens(bos_id=1, eos_ids=[2], pad_id=None)
    assert tokenizer.encode("a").ids == [1, *reader.encode("a")]


def test_chatglm3_has_its_special_tokens_behind_the_pieces(checkpoint: Checkpoint) -> None:
    reader = write_sentencepiece(checkpoint.directory / "tokenizer.model")
    checkpoint.json("config.json", model_type="chatglm", eos_token_id=2, padded_vocab_size=1024)
    checkpoint.json("tokenizer_config.json", tokenizer_class="ChatGLMTokenizer")
    tokens = checkpoint.convert("chatglm3")
    size = reader.vocab_size()
    text = TextTokenizer(checkpoint.written)
    prompt = text.render_chat(
        [{"role": "system", "content": "简短"}, {"role": "user", "content": "philosophy 你好"}]
    )
    system, user, assistant, observation = range(size + 5, size + 9)
    newline = reader.encode("\n")
    # Source: build_chat_input of tokenization_chatglm.py: each message is encoded alone.
    assert text.encode(prompt, add_special_tokens=False) == [
        *(size + 1, size + 3),
        *(system, *newline, *reader.encode("简短")),
        *(user, *newline, *reader.encode("philosophy 你好")),
        assistant,
    ]
    assert tokens.eos_ids == [2, user, observation]
    assert text.encode("a", add_special_tokens=True) == reader.encode("a")


def test_llama_2_chat_has_its_prompt_in_the_tokens_of_metas_code(checkpoint: Checkpoint) -> None:
    reader = write_sentencepiece(checkpoint.directory / "tokenizer.model")
    checkpoint.convert("llama-2")
    text = TextTokenizer(checkpoint.written)
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Yes"},
        {"role": "user", "content": "你好"},
    ]
    # Source: chat_completion in llama/generation.py: each exchange between bos and eos.
    assert text.encode(text.render_chat(messages), add_special_tokens=False) == [
        *(1, *reader.encode("[INST] Hello [/INST] Yes "), 2),
        *(1, *reader.encode("[INST] 你好 [/INST]")),
    ]


def test_a_tokenizer_json_is_kept_and_learns_the_tokens_beside_it(checkpoint: Checkpoint) -> None:
    plain = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "<eos>": 2}, unk_token="<unk>"))
    plain.add_special_tokens([AddedToken("<eos>", special=True)])
    plain.enable_truncation(1)
    plain.enable_padding(length=5)
    plain.save(str(checkpoint.directory / "tokenizer.json"))
    checkpoint.json("added_tokens.json", **{"<|im_end|>": 3})
    checkpoint.json("special_tokens_map.json", eos_token={"content": "<eos>"}, pad_token="<unk>")
    checkpoint.json("generation_config.json", eos_token_id=[2, 1, 99])
    tokens = checkpoint.convert()
    tokenizer = checkpoint.tokenizer()
    assert ids_of(tokenizer, "<eos>a<|im_end|><eos>") == [2, 1, 3, 2]
    assert tokens == SpecialTokens(bos_id=None, eos_ids=[2, 1, 3], pad_id=0)


def test_tokens_at_other_places_than_the_files_beside_say_are_refused(
    checkpoint: Checkpoint,
) -> None:
    plain = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    plain.save(str(checkpoint.directory / "tokenizer.json"))
    checkpoint.json("added_tokens.json", **{"<|im_end|>": 7})
    with pytest.raises(BuildError, match=r"<\|im_end\|> at 2, the files beside it at 7"):
        checkpoint.convert()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("README.md", b"", "has no tokenizer: none of tokenizer.json"),
        ("tokenizer.json", b"{", "is not a tokenizer"),
        ("tokenizer_config.json", b"{", "is not JSON"),
        ("tokenizer.model", b"\x0a\xff\x01", "is not a whole SentencePiece model"),
        ("tokenizer.model", b"IQ== 0\n", "only GLM-4's is known"),
        ("qwen.tiktoken", b"IQ== 0\nIg== 2\n", "leaves out ranks"),
        ("qwen.tiktoken", b"<html>\n", "is not a vocabulary of tiktoken"),
        ("tekken.json", b"{}", "is not a tokenizer of Mistral's"),
    ],
)
def test_broken_files_are_refused_in_one_line(
    checkpoint: Checkpoint, name: str, content: bytes, message: str
) -> None:
    (checkpoint.directory / name).write_bytes(content)
    with pytest.raises(BuildError, match=message) as caught:
        checkpoint.convert()
    assert "\n" not in str(caught.value)
    assert not checkpoint.written.exists()
