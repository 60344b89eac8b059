"""What a model is asked, as token ids of its own tokenizer. Knows nothing of Triton."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from build_engines.artefacts.artefact import Limits
from build_engines.errors import VerificationError
from build_engines.spec import Verification

if TYPE_CHECKING:
    from frontend.text.tokenizer import TextTokenizer

# Prose, code and another script: what quantization breaks first differs between them.
FIXED_TEXT = (
    "The water of a river that reaches the sea evaporates, falls as rain in the mountains, and "
    "runs down to the sea again. In 1687 Isaac Newton showed why the tides follow the moon.\n\n"
    "def fibonacci(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n"
    "    return a\n\n北京是中华人民共和国的首都。"
)
# As many as streams run at once in the throughput probe.
BEGINNINGS = (
    "The capital of France is",
    "Once upon a time there was a",
    "The first ten prime numbers are 2, 3, 5,",
    "To make bread one needs flour, water and",
    "import os\n\ndef list_files(folder):\n",
    "The planets of the solar system are Mercury, Venus,",
    "In a distant future, people will",
    "人工智能是",
)
NUM_NEW_TOKENS = 16  # of the answer to each beginning
MAX_TEXT_TOKENS = 256  # a tokenizer of a small vocabulary makes many


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A conversation in the model's chat template, and the answer that it must begin with."""

    prompt_token_ids: list[int]
    answer: str
    answer_token_ids: list[int]
    log_probs: list[float]  # of the answer's tokens; [] where the spec says none


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Every list fits the model's limits."""

    fixed: list[int]
    beginnings: list[list[int]]
    num_new_tokens: int
    question: Question | None


def tokenize(tokenizer_dir: Path, limits: Limits, golden: Verification | None) -> Texts:
    """What a generating model is asked. Raises VerificationError for a tokenizer that fails."""
    tokenizer_module = _frontend_tokenizer()
    num_new_tokens = max(min(NUM_NEW_TOKENS, limits.max_seq_len // 2), 1)
    room = max(min(limits.max_input_len, limits.max_seq_len - num_new_tokens, MAX_TEXT_TOKENS), 1)
    try:
        tokenizer = tokenizer_module.TextTokenizer(tokenizer_dir)
        fixed, *beginnings = (
            tokenizer.encode(text, add_special_tokens=True)[:room]
            for text in (FIXED_TEXT, *BEGINNINGS)
        )
        question = None if golden is None else _question(tokenizer, golden)
    except (tokenizer_module.ChatTemplateError, OSError, ValueError) as exc:
        raise VerificationError(f"the tokenizer cannot be used: {exc}") from exc
    if not all(beginnings):
        raise VerificationError("the tokenizer makes no tokens of a plain text")
    return Texts(
        fixed=fixed, beginnings=beginnings, num_new_tokens=num_new_tokens, question=question
    )


def tokenize_rows(tokenizer_dir: Path, texts: list[str]) -> list[list[int]]:
    """The texts as an embedding model takes them. Raises VerificationError."""
    tokenizer_module = _frontend_tokenizer()
    try:
        tokenizer = tokenizer_module.TextTokenizer(tokenizer_dir)
    except (OSError, ValueError) as exc:
        raise VerificationError(f"the tokenizer cannot be used: {exc}") from exc
    return [tokenizer.encode(text, add_special_tokens=True) for text in texts]


def _frontend_tokenizer() -> ModuleType:
    """The module of what will encode the requests. Late: it imports transformers."""
    # which would say that PyTorch is missing, which is meant
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from frontend.text import tokenizer

    return tokenizer


def _question(tokenizer: TextTokenizer, golden: Verification) -> Question:
    prompt = tokenizer.render_chat(golden.messages)
    return Question(
        prompt_token_ids=tokenizer.encode(prompt, add_special_tokens=False),
        answer=golden.answer,
        answer_token_ids=tokenizer.encode(golden.answer, add_special_tokens=False),
        log_probs=golden.log_probs,
    )
