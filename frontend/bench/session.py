"""A whole benchmark: start the engines, measure them, print and write the figures."""

from __future__ import annotations

import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from build_engines.artefacts.artefact import Artefact, find_artefact
from build_engines.pipeline import build
from build_engines.progress import ShownProgress
from frontend.bench import plot, report, runner, servers
from frontend.bench.cpu_time import find_server
from frontend.bench.goals import evaluate
from frontend.bench.line_process import LineProcess
from frontend.bench.options import BARE, BEFORE, LLAMA, STACK, BenchError, Options
from frontend.bench.prompts import Messages, PromptMaker, prompt_maker
from frontend.bench.stats import Run, summarize
from frontend.bench.targets import BareTarget, LoadClient, Target, llama_target, stack_target
from frontend.settings import Settings
from frontend.text.tokenizer import TextTokenizer

PREFIX_TOKENS = 400
IDLE_SHARE = 0.05  # of one core; what an idle engine may use before we say so


def run_bench(options: Options, settings: Settings) -> None:
    """Measure, then print and write.

    Raises:
        BenchError, BuildError: with one line that says what to do.
    """
    terminal = Console(stderr=True)
    seed = secrets.token_hex(4)
    with ExitStack() as stack:
        log = stack.enter_context(_server_log())
        targets, make_prompts = _start(options, settings, stack, log, terminal)
        plan = runner.Plan(
            streams=options.streams,
            repeats=options.repeats,
            max_tokens=options.max_tokens,
            prompts=make_prompts(options.prompt_tokens),
            has_shared_prefix=options.shared_prefix,
        )
        progress = stack.enter_context(_progress(terminal))
        has_stack = STACK in options.engines
        task = progress.add_task("", total=runner.num_steps(plan, len(targets)) + has_stack)

        def on_progress(step: str) -> None:
            progress.update(task, advance=1, description=step)
            if not terminal.is_terminal:
                terminal.print(f"bench: {step}", highlight=False)

        runs = runner.measure(targets, plan, seed=seed, on_progress=on_progress)
        prefix = None
        if has_stack:
            on_progress("stack: prefix cache")
            long_prompts = make_prompts(PREFIX_TOKENS)
            prefix = runner.measure_prefix_cache(targets[0], long_prompts, seed=seed)
    _report(options, settings, runs, prefix)


def _start(
    options: Options, settings: Settings, stack: ExitStack, log: TextIO, terminal: Console
) -> tuple[list[Target], Callable[[int], PromptMaker]]:
    """Start the engines; the second value makes prompts of a length that the model counts."""
    needs_artefact = {BARE, LLAMA} & set(options.engines) or options.before is not None
    is_local = options.url is None or needs_artefact
    artefact = _artefact(settings) if is_local else None
    terminal.print("Starting the engines ...")
    client = LoadClient(stack.enter_context(LineProcess("frontend.bench.load")))
    targets: list[Target] = []
    if STACK in options.engines:
        targets.append(_start_stack(options, settings, stack, log, client))
    if options.before is not None:
        before = _serve(BEFORE, options.before, options, settings, stack, log, client)
        targets.append(before)
    if artefact is None:
        return targets, lambda num_tokens: prompt_maker(num_tokens, _ask_length(targets[0]))
    tokenizer = TextTokenizer(artefact.path / "tokenizer")

    def tokenize(messages: Messages) -> list[int]:
        return tokenizer.encode(tokenizer.render_chat(messages), add_special_tokens=False)

    if BARE in options.engines:
        bare = stack.enter_context(servers.bare_process(artefact, settings))
        targets.append(BareTarget(bare, tokenize))
    if LLAMA in options.engines:
        targets.append(_start_llama(options, settings, artefact, stack, client))
    return targets, lambda num_tokens: prompt_maker(num_tokens, lambda m: len(tokenize(m)))


def _start_stack(
    options: Options, settings: Settings, stack: ExitStack, log: TextIO, client: LoadClient
) -> Target:
    if options.url is not None:
        address = urlsplit(options.url)
        is_here = address.hostname in ("localhost", "127.0.0.1", "::1")
        pid = find_server(address.port or 80) if is_here else None
        return stack_target(client, options.url, settings.model, pid)
    return _serve(STACK, None, options, settings, stack, log, client)


def _serve(
    name: str,
    checkout: Path | None,
    options: Options,
    settings: Settings,
    stack: ExitStack,
    log: TextIO,
    client: LoadClient,
) -> Target:
    serving = servers.serving(
        settings.home, settings.model, workers=options.workers, log=log, checkout=checkout
    )
    running = stack.enter_context(serving)
    return stack_target(client, running.url, settings.model, running.pid, name=name)


def _start_llama(
    options: Options, settings: Settings, artefact: Artefact, stack: ExitStack, client: LoadClient
) -> Target:
    if not servers.has_llama():
        raise BenchError(
            "the engine llama needs the package xllamacpp, one of the development dependencies: "
            "install it, or leave the engine out: --engines stack,bare"
        )
    gguf = servers.cached_gguf(settings.home, settings.model, artefact.manifest.variant)
    process = stack.enter_context(
        servers.llama_process(
            gguf,
            num_slots=max(options.streams),
            context=options.prompt_tokens + options.max_tokens + 32,
            num_threads=settings.num_threads,
        )
    )
    url = process.read(dict[str, str])["address"]
    return llama_target(client, url, settings.model, process.pid)


def _artefact(settings: Settings) -> Artefact:
    """What `inflight serve` would serve, built if it has to be."""
    for variant in ("q8_0", "f16", "q4_0"):
        if (found := find_artefact(settings.home, settings.model, variant)) is not None:
            return found
    with ShownProgress(settings.model) as progress:
        return build(settings.model, None, settings.home, progress)


def _ask_length(target: Target) -> Callable[[Messages], int]:
    """A server's own count of a prompt's tokens."""

    def count(messages: Messages) -> int:
        stream = target.run([[messages]], 2)[0][0]
        if stream.error:
            raise BenchError(f"the server does not answer: {stream.error}")
        return stream.num_prompt_tokens

    return count


def _report(
    options: Options,
    settings: Settings,
    runs: list[Run],
    prefix: runner.PrefixResult | None,
) -> None:
    summary = summarize(runs)
    goals = evaluate(summary, prefix.speedup if prefix else None)
    console = Console()
    console.width = max(console.width, report.MIN_WIDTH)
    here = report.machine()
    console.print(report.results_table(summary))
    console.print(report.cpu_table(summary))
    console.print(report.goals_table(goals))
    name = f"{settings.model}, {options.prompt_tokens} + {options.max_tokens} tokens"
    where = f"{here['cores']} cores of {here['cpu']}"
    console.print(f"{name}, {where}", highlight=False)
    for warning in report.warnings(runs, idle_share=IDLE_SHARE):
        console.print(f"[yellow]warning:[/yellow] {warning}", highlight=False)
    if options.json_path is not None:
        report.write_json(
            options.json_path,
            settings={
                "model": settings.model,
                "url": options.url,
                "streams": options.streams,
                "prompt_tokens": options.prompt_tokens,
                "max_tokens": options.max_tokens,
                "repeats": options.repeats,
                "workers": options.workers,
                "shared_prefix": options.shared_prefix,
            },
            runs=runs,
            summary=summary,
            goals=goals,
            prefix=prefix,
        )
    if options.plot_path is not None:
        options.plot_path.write_text(plot.render(summary, f"{name}, {where}"))


@contextmanager
def _server_log() -> Iterator[TextIO]:
    """A file for the server's messages; shown when something fails."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        try:
            yield log
        except BenchError:
            log.seek(0)
            sys.stderr.write(log.read()[-4000:])
            raise


def _progress(terminal: Console) -> Progress:
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=terminal, disable=not terminal.is_terminal)
