"""Which tokens end an answer."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer

# These end a turn or a document wherever they are special tokens, whatever the checkpoint says;
# many say it of one of them only. Source: llama.cpp's end-of-generation tokens, llama-vocab.cpp.
# `</s>` is not among them: it is Gemma's token for a tag of HTML.
_ENDS = (
    *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<turn|>"),
    *("<|return|>", "<|call|>", "<|endoftext|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>"),
    *("<EOT>", "[EOT]", "[EOS]", "<end_of_utterance>"),
)
# ChatGLM3 and GLM-4 stop by naming whose turn it is.
_GLM_TURNS = ("<|user|>", "<|observation|>")
# In gpt-oss' format a message's end is not the answer's.
_HARMONY_ENDS = ("<|return|>", "<|call|>")


def end_ids(tokenizer: Tokenizer, declared: Iterable[int]) -> list[int]:
    """Ids of all tokens that end an answer, those that the checkpoint declares first."""
    special = {
        token.content: token_id
        for token_id, token in tokenizer.get_added_tokens_decoder().items()
        if token.special
    }
    names = list(_ENDS)
    if all(name in special for name in _GLM_TURNS):
        names += _GLM_TURNS
    if all(name in special for name in _HARMONY_ENDS):
        names.remove("<|end|>")
    named = (special[name] for name in names if name in special)
    return list(dict.fromkeys([*declared, *named]))
