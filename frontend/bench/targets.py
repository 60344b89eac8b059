"""The engines under load, all behind one method: rounds of prompts in, streams out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol
from urllib.parse import urlsplit

from frontend.bench import bare, load
from frontend.bench.cpu_time import process_cpu_s, stack_cpu_s
from frontend.bench.line_process import LineProcess
from frontend.bench.options import BARE, LLAMA, STACK
from frontend.bench.prompts import Messages
from frontend.bench.stats import Stream

TIMEOUT_S = 600.0  # of one round
CHAT_PATH = "/v1/chat/completions"

Rounds = Sequence[Sequence[Messages]]


class Target(Protocol):
    """One engine; all are up during the whole benchmark, but only one has work at a time."""

    name: str

    def run(self, rounds: Rounds, max_tokens: int) -> list[list[Stream]]:
        """Run rounds of streams, one round after another."""
        ...

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far of the processes that do its work."""
        ...


class LoadClient:
    """The process that opens the streams."""

    def __init__(self, process: LineProcess) -> None:
        self._process = process

    def run(self, url: str, model: str, rounds: Rounds, max_tokens: int) -> list[list[Stream]]:
        address = urlsplit(url)
        job = load.Job(
            host=address.hostname or "127.0.0.1",
            port=address.port or 80,
            path=address.path.rstrip("/") + CHAT_PATH,
            rounds=[[_body(model, prompt, max_tokens) for prompt in prompts] for prompts in rounds],
            timeout_s=TIMEOUT_S,
        )
        return self._process.ask(job, list[list[Stream]])

    def cpu_s(self) -> float:
        return process_cpu_s(self._process.pid)


class HttpTarget:
    """The stack, or llama.cpp's server: chat completions at a URL."""

    def __init__(
        self,
        name: str,
        *,
        client: LoadClient,
        url: str,
        model: str,
        server_cpu_s: Callable[[], dict[str, float]],
    ) -> None:
        self.name = name
        self._client = client
        self._url = url
        self._model = model
        self._server_cpu_s = server_cpu_s

    def run(self, rounds: Rounds, max_tokens: int) -> list[list[Stream]]:
        return self._client.run(self._url, self._model, rounds, max_tokens)

    def cpu_s(self) -> dict[str, float]:
        return {**self._server_cpu_s(), "load client": self._client.cpu_s()}


class BareTarget:
    """Our batcher in one process; it takes token ids."""

    name = BARE

    def __init__(self, process: LineProcess, tokenize: Callable[[Messages], list[int]]) -> None:
        self._process = process
        self._tokenize = tokenize

    def run(self, rounds: Rounds, max_tokens: int) -> list[list[Stream]]:
        prompts = [[self._tokenize(prompt) for prompt in prompts] for prompts in rounds]
        job = bare.Job(rounds=prompts, max_new_tokens=max_tokens, timeout_s=TIMEOUT_S)
        return self._process.ask(job, list[list[Stream]])

    def cpu_s(self) -> dict[str, float]:
        return {"bare batcher": process_cpu_s(self._process.pid)}


def stack_target(
    client: LoadClient, url: str, model: str, root_pid: int | None, *, name: str = STACK
) -> HttpTarget:
    """`root_pid` is None when the server's processes are not on this machine."""
    return HttpTarget(
        name,
        client=client,
        url=url,
        model=model,
        server_cpu_s=lambda: stack_cpu_s(root_pid) if root_pid is not None else {},
    )


def llama_target(client: LoadClient, url: str, model: str, pid: int) -> HttpTarget:
    return HttpTarget(
        LLAMA,
        client=client,
        url=url,
        model=model,
        server_cpu_s=lambda: {"llama.cpp server": process_cpu_s(pid)},
    )


def _body(model: str, messages: Messages, max_tokens: int) -> dict[str, object]:
    return {
        "model": model,
        "messages": messages,
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
