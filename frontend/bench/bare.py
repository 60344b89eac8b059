"""Our batcher alone, a process of its own: no Triton, no HTTP, no text. One job a line, as load.py.

What it gives is what the stack could give at most.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from time import perf_counter

import msgspec

from frontend.bench.stats import Stream
from triton_models.batching.batcher import Batcher
from triton_models.batching.settings import EngineSettings
from triton_models.cpu import engine as cpu_engine
from triton_models.llama_cpp import engine as llama_cpp_engine
from triton_models.request import EngineRequest, TokenEvent

LOADERS = {"cpu": cpu_engine.load_batcher, "llama_cpp": llama_cpp_engine.load_batcher}


class Job(msgspec.Struct, kw_only=True):
    """`rounds` holds the prompts (token ids) of streams that start together."""

    rounds: list[list[list[int]]]
    max_new_tokens: int
    timeout_s: float


class Answer:
    """One request's tokens as they come, in the batcher's thread."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.ended = threading.Event()
        self.error: str | None = None

    def on_event(self, event: TokenEvent) -> None:
        if event.token_id is not None:
            self.times.append(perf_counter())
        if event.is_final:
            self.error = event.error
            self.ended.set()


def run_round(batcher: Batcher, job: Job, prompts: list[list[int]]) -> list[Stream]:
    answers = [Answer() for _ in prompts]
    started_at = []
    for answer, token_ids in zip(answers, prompts, strict=True):
        request = EngineRequest(
            prompt_token_ids=token_ids, max_new_tokens=job.max_new_tokens, on_event=answer.on_event
        )
        started_at.append(perf_counter())
        batcher.submit(request)
    deadline = perf_counter() + job.timeout_s
    streams = []
    for answer, token_ids, start in zip(answers, prompts, started_at, strict=True):
        is_ended = answer.ended.wait(max(0.0, deadline - perf_counter()))
        times = [at - start for at in answer.times]
        streams.append(
            Stream(
                event_times_s=times,
                num_prompt_tokens=len(token_ids),
                num_tokens=len(times),
                error=answer.error if is_ended else "timeout",
            )
        )
    return streams


def main() -> None:
    artefact_dir, kv_cache_bytes, num_threads = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    settings = EngineSettings.from_artefact(
        artefact_dir, kv_cache_bytes=kv_cache_bytes, num_threads=int(num_threads)
    )
    manifest = json.loads((artefact_dir / "manifest.json").read_text(encoding="utf-8"))
    batcher = LOADERS[manifest["kind"]](settings)
    decoder = msgspec.json.Decoder(Job)
    for line in sys.stdin.buffer:
        job = decoder.decode(line)
        rounds = [run_round(batcher, job, prompts) for prompts in job.rounds]
        sys.stdout.buffer.write(msgspec.json.encode(rounds) + b"\n")
        sys.stdout.buffer.flush()
    batcher.close()


if __name__ == "__main__":
    main()
