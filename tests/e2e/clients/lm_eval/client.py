"""EleutherAI's lm-evaluation-harness on two small tasks of our own, through both OpenAI surfaces.

Without a network, torch or transformers: the server tokenizes.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

MODEL = "smollm2-135m-instruct"
TASKS = Path(__file__).parent


def evaluate(kind: str, tasks: list[str], model_args: dict[str, object], *, chat: bool) -> object:
    import lm_eval
    from lm_eval.tasks import TaskManager

    found = lm_eval.simple_evaluate(
        model=kind,
        model_args={"model": MODEL, "max_retries": 1, **model_args},
        tasks=tasks,
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        apply_chat_template=chat,
        bootstrap_iters=0,
    )
    assert found is not None
    return {
        "results": found["results"],
        "samples": {
            task: [
                {"arguments": sample["arguments"], "answers": [resp[0] for resp in sample["resps"]]}
                for sample in samples
            ]
            for task, samples in found["samples"].items()
        },
    }


def run(base_url: str) -> object:
    os.chdir(TASKS)  # the tasks name their data by a path from here
    completions = {"base_url": f"{base_url}/completions"}
    both = ["capitals_choice", "capitals_generate"]
    return {
        "token_ids": evaluate("local-completions", both, completions, chat=False),
        "token_ids_in_batches": evaluate(
            "local-completions", both, {**completions, "batch_size": 8}, chat=False
        ),
        "texts_at_once": evaluate(
            "local-completions",
            both,
            {**completions, "tokenized_requests": False, "num_concurrent": 4},
            chat=False,
        ),
        "chat": evaluate(
            "local-chat-completions",
            ["capitals_generate"],
            {"base_url": f"{base_url}/chat/completions"},
            chat=True,
        ),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        os.environ.update(HF_HOME=cache, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
        sys.stdout.write(json.dumps(run(sys.argv[1])))


if __name__ == "__main__":
    main()
