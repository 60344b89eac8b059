"""The tables of `--plan` that every GPU kind has: memory, and what fits which GPUs."""

from __future__ import annotations

from build_engines.architecture import Architecture
from build_engines.family import Family
from build_engines.fit import Fit, Load, fits, needs
from build_engines.memory import Parallel, weight_bytes
from build_engines.recipe import Section


def memory_section(architecture: Architecture, load: Load, parallel: Parallel) -> Section:
    """What a GPU must have for the chosen limits."""
    takes = needs(architecture, load, parallel)
    everything = weight_bytes(architecture, load.quantization, is_engine=load.is_engine)
    full = f"KV cache of {load.max_batch_size} x {load.max_seq_len} tokens"
    rows = (
        ("what", "value"),
        ("parameters", f"{architecture.num_parameters:,}".replace(",", " ")),
        ("weights in all", _gb(everything)),
        ("weights", _gb(takes.weights)),
        ("activations (estimate)", _gb(takes.activations)),
        ("runtime (estimate)", _gb(takes.runtime)),
        ("KV cache of a token", f"{takes.kv_per_token / 1024:.1f} KiB"),
        (full, _gb(takes.kv_of_full_batch)),
        ("in all, at these limits", _gb(takes.total)),
    )
    return Section(title="Memory of a GPU", rows=rows)


def fit_section(family: Family, architecture: Architecture, load: Load) -> Section:
    """The longest context and the largest batch that each kind and number of GPUs holds."""
    rows = [_row(fit) for fit in fits(family, architecture, load)]
    heads = ("GPU", "GPUs", "longest context", f"requests of {load.max_seq_len}", "KV tokens")
    return Section(title="What fits", rows=(heads, *_once(rows)))


def _row(fit: Fit) -> tuple[str, ...]:
    if fit.reason:
        return (fit.gpu.name, str(fit.count), "no", fit.reason, "")
    numbers = (fit.longest_context, fit.largest_batch, fit.kv_tokens)
    return (fit.gpu.name, str(fit.count), *map(str, numbers))


def _once(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """A kind of GPU that cannot compute in the format is named in one row."""
    kept: list[tuple[str, ...]] = []
    for row in rows:
        before = kept[-1] if kept else ("", "", "", "", "")
        if row[2] == "no" and row[0] == before[0] and row[3] == before[3]:
            kept[-1] = (row[0], f"{before[1].split('-')[0]}-{row[1]}", *row[2:])
        else:
            kept.append(row)
    return kept


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
