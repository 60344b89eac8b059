"""Makes the families' tiny checkpoints and asks transformers; run with this folder's environment.

`make.py OUT TEMPLATES [SPEC...]` writes OUT/SPEC (Hugging Face) and OUT/SPEC.gguf, with the chat
templates that the family's checkpoints come with, and prints what transformers makes of them. Of
one it writes OUT/SPEC.Q4_0.gguf too.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path

import torch
import transformers
from checkpoints import write_checkpoint
from families import FAMILIES, QUESTION
from gguf_files import write_gguf

QUANTIZED = "llama-2-7b-chat"


def main(out: Path, templates: Path, specs: list[str]) -> None:
    torch.set_num_threads(1)  # for so small matrices more of them only get in each other's way
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    answers = {}
    for family in FAMILIES:
        if specs and family.spec not in specs:
            continue
        template = family.template
        if template is not None and "{" not in template:
            template = (templates / f"{template}.jinja").read_text(encoding="utf-8")
        prompt = family.prompt.format(today=datetime.now().date())
        checkpoint = write_checkpoint(family, out / family.spec, prompt, template)
        write_gguf(family, checkpoint, out / f"{family.spec}.gguf", template)
        if family.spec == QUANTIZED:
            quantized = out / f"{family.spec}.Q4_0.gguf"
            write_gguf(family, checkpoint, quantized, template, is_quantized=True)
        answers[family.spec] = {
            "question": QUESTION,
            "prompt_token_ids": checkpoint.prompt_token_ids,
            "token_ids": checkpoint.token_ids,
        }
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
