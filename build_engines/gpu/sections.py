"""The tables of `--plan` that every GPU kind has: memory, and what fits which GPUs."""

from __future__ import annotations

from build_engines.checkpoints.architecture import Architecture
from build_engines.families.family import Family
from build_engines.figures import spaced
from build_engines.gpu.fit import Fit, Load, fits, needs
from build_engines.gpu.memory import Parallel, weight_bytes
from build_engines.recipe import Section


def memory_section(architecture: Architecture, load: Load, parallel: Parallel) -> Section:
    """What a GPU must have for the chosen limits."""
    takes = needs(architecture, load, parallel)
    everything = weight_bytes(architecture, load.quantization, is_engine=load.is_engine)
    length = f"{spaced(load.max_seq_len)} tokens"
    one = takes.kv_of_full_batch // load.max_batch_size
    rows = (
        ("what", "value"),
        ("parameters", spaced(architecture.num_parameters)),
        ("weights of the model", _gb(everything)),
        ("weights on a GPU", _gb(takes.weights)),
        ("activations (estimate)", _gb(takes.activations)),
        ("runtime (estimate)", _gb(takes.runtime)),
        ("KV cache of a token", f"{takes.kv_per_token / 1024:.1f} KiB"),
        (f"KV cache of a request of {length}", _gb(one)),
        (f"KV cache of {load.max_batch_size} of them", _gb(takes.kv_of_full_batch)),
        ("in all, one such request at a time", _gb(takes.fixed + one)),
        (f"in all, {load.max_batch_size} of them at once", _gb(takes.total)),
    )
    return Section(title="Memory of a GPU", rows=rows)


def fit_section(family: Family, architecture: Architecture, load: Load) -> Section:
    """The longest context and the largest batch that each kind and number of GPUs holds."""
    found = fits(family, architecture, load)
    counts = sorted({fit.count for fit in found if not fit.is_refused})
    rows = [_row(fit) for fit in found if not fit.is_refused]
    for gpu in dict.fromkeys(fit.gpu.name for fit in found):
        own = [fit for fit in found if fit.gpu.name == gpu]
        if all(fit.is_refused for fit in own):
            rows.append((gpu, "any", "no", own[0].reason))
    for count in sorted({fit.count for fit in found} - set(counts)) if counts else ():
        reason = next(fit.reason for fit in found if fit.count == count)
        rows.append(("any", str(count), "no", reason))
    requests = f"requests of {spaced(load.max_seq_len)}"
    heads = ("GPU", "GPUs", "longest context", requests, "tokens in the KV cache")
    title = f"What fits: {load.quantization}, KV cache {load.kv_cache}, by tensor parallelism"
    return Section(title=title, rows=(heads, *rows))


def _row(fit: Fit) -> tuple[str, ...]:
    if fit.reason:
        return (fit.gpu.name, str(fit.count), "no", fit.reason)
    numbers = (fit.longest_context, fit.largest_batch, fit.kv_tokens)
    return (fit.gpu.name, str(fit.count), *map(spaced, numbers))


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
