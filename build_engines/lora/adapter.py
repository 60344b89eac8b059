"""LoRA adapters of an artefact: a Hugging Face (PEFT) adapter -> what its kind of engine takes.

    adapters/<name>/adapter.json              rank and task id
                    model.lora_weights.npy    tensorrt_llm: float16 [rows, width]
                    model.lora_config.npy     tensorrt_llm: int32 [rows, 3]: module, layer, rank
                    adapter_*                 llm_api: the PEFT files as they are

A row is A (rank x inputs) and then B (outputs x rank) of one projection, scaled, flattened and
padded with zeros to the longest. Source: TensorRT-LLM 1.x, examples/hf_lora_convert.py.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from build_engines.artefacts.artefact import Adapter, is_safe_name
from build_engines.errors import ChoiceError, ConversionError, SourceError
from build_engines.lora.files import ADAPTERS_DIR, CONFIG_NAME, KINDS, WEIGHTS_NAME

PEFT_CONFIG = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"
_FACTS_NAME = "adapter.json"

# The end of a projection's name -> its id (the comment at `lora_config` in NVIDIA's config.pbtxt).
# Llama's `gate_proj` is what TensorRT-LLM calls mlp_h_to_4h, `up_proj` what it calls mlp_gate;
# Qwen-1's `w2` and `w1` likewise.
MODULE_IDS: Mapping[str, int] = {
    "query_key_value": 0, "attn.c_attn": 0, "qkv_proj": 0,
    "q_proj": 1, "k_proj": 2, "v_proj": 3,
    "o_proj": 4, "self_attention.dense": 4, "attn.c_proj": 4,
    "gate_proj": 5, "mlp.w2": 5,
    "down_proj": 6, "dense_4h_to_h": 6, "mlp.c_proj": 6,
    "up_proj": 7, "mlp.w1": 7,
}  # fmt: skip
_TENSOR = re.compile(r"(?:.*\.)?(?:layers|h)\.(\d+)\.(.+)\.lora_([AB])(?:\.default)?\.weight")
_DTYPES = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "BF16": "<u2"}

Matrix = npt.NDArray[np.float32]


class _PeftConfig(msgspec.Struct, frozen=True):
    """What matters of adapter_config.json."""

    r: int
    lora_alpha: float
    peft_type: str = "LORA"
    use_rslora: bool = False
    use_dora: bool = False
    bias: str = "none"
    modules_to_save: list[str] | None = None
    alpha_pattern: dict[str, float] = {}


class _Facts(msgspec.Struct, frozen=True):
    rank: int
    task_id: int


@dataclass(frozen=True, slots=True)
class _Pair:
    """One projection's matrices, B with the scale in it."""

    down: Matrix  # A: [rank, inputs]
    up: Matrix  # B: [outputs, rank]


def write_adapter(
    source: Path, target: Path, *, kind: str, max_rank: int | None, num_layers: int | None = None
) -> None:
    """Fills the new directory `target` with an adapter as engines of a kind take it.

    Args:
        source: folder of a PEFT adapter.
        max_rank: what the engine was built for; None: not known.
        num_layers: of the model; None: not known.

    Raises ChoiceError for what the engine cannot take, SourceError for an adapter that is damaged.
    """
    if kind not in KINDS:
        raise ChoiceError(
            f"engines of kind {kind} take no LoRA adapters, only {', '.join(KINDS)}: "
            "merge the adapter into the checkpoint and build that"
        )
    config = _read_config(source)
    pairs = _read_pairs(source, config)
    rank = max(pair.down.shape[0] for pair in pairs.values())
    if max_rank is not None and rank > max_rank:
        raise ChoiceError(
            f"the adapter in {source} has rank {rank}, the engine is built for {max_rank}: "
            f"set lora.max_rank to {rank} and build again"
        )
    deepest = max(layer for layer, _ in pairs)
    if num_layers is not None and deepest >= num_layers:
        raise SourceError(
            f"the adapter in {source} has a layer {deepest}, the model has {num_layers}: "
            "it is another model's"
        )
    target.mkdir(parents=True)
    if kind == "tensorrt_llm":
        weights, places = convert(pairs)
        np.save(target / WEIGHTS_NAME, weights)
        np.save(target / CONFIG_NAME, places)
    else:
        for name in (PEFT_CONFIG, PEFT_WEIGHTS):
            shutil.copyfile(source / name, target / name)
    facts = _Facts(rank=rank, task_id=_task_id(target))
    (target / _FACTS_NAME).write_bytes(msgspec.json.encode(facts) + b"\n")


def read_adapters(directory: Path, folder: str = ADAPTERS_DIR) -> dict[str, Adapter]:
    """The manifest's entries for the adapters that were written into `directory`/`folder`."""
    adapters = {}
    for path in sorted((directory / folder).glob(f"*/{_FACTS_NAME}")):
        facts = msgspec.json.decode(path.read_bytes(), type=_Facts)
        name = path.parent.name
        adapters[name] = Adapter(
            directory=f"{ADAPTERS_DIR}/{name}", rank=facts.rank, task_id=facts.task_id
        )
    return adapters


def check_adapter_name(name: str) -> None:
    """Raises ChoiceError for a name that cannot stand behind `model:` or name a directory."""
    if not is_safe_name(name):
        raise ChoiceError(f"an adapter cannot be called {name!r}: use letters, digits, . _ and -")


def convert(
    pairs: Mapping[tuple[int, int], _Pair],
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.int32]]:
    """The tensors lora_weights and lora_config, a row for each (layer, module)."""
    rows, places = [], []
    for (layer, module), pair in sorted(pairs.items()):
        with np.errstate(over="ignore"):  # what is too large is infinite, and refused below
            rows.append(np.concatenate([pair.down.ravel(), pair.up.ravel()]).astype(np.float16))
        places.append([module, layer, pair.down.shape[0]])
    weights = np.zeros((len(rows), max(map(len, rows))), np.float16)
    for row, values in zip(weights, rows, strict=True):
        row[: len(values)] = values
    if not np.isfinite(weights).all():
        raise ConversionError("the adapter has weights that are too large for float16")
    return weights, np.array(places, np.int32)


def _read_config(source: Path) -> _PeftConfig:
    path = source / PEFT_CONFIG
    try:
        config = msgspec.json.decode(path.read_bytes(), type=_PeftConfig)
    except OSError as exc:
        raise SourceError(f"{path}: {exc.strerror}: it is no folder of a PEFT adapter") from exc
    except msgspec.DecodeError as exc:
        raise SourceError(f"{path}: {exc}") from exc
    problems = {
        f"is of type {config.peft_type}": config.peft_type != "LORA",
        "uses DoRA": config.use_dora,
        "trains biases": config.bias != "none",
        f"replaces modules ({', '.join(config.modules_to_save or ())})": config.modules_to_save,
    }
    for problem, is_so in problems.items():
        if is_so:
            raise ChoiceError(
                f"the adapter in {source} {problem}, engines take plain LoRA only: "
                "merge it into the checkpoint and build that"
            )
    return config


def _read_pairs(source: Path, config: _PeftConfig) -> dict[tuple[int, int], _Pair]:
    """The adapter's matrices by (layer, module id)."""
    halves: dict[tuple[int, str], dict[str, Matrix]] = {}
    for name, matrix in _read_tensors(source / PEFT_WEIGHTS).items():
        found = _TENSOR.fullmatch(name)
        if found is None or matrix.ndim != 2:
            raise ChoiceError(f"the adapter in {source} has {name}, which engines cannot take")
        halves.setdefault((int(found[1]), found[2]), {})[found[3]] = matrix
    if not halves:
        raise SourceError(f"{source / PEFT_WEIGHTS} has no weights")
    pairs = {}
    for (layer, module), half in halves.items():
        if half.keys() != {"A", "B"} or half["A"].shape[0] != half["B"].shape[1]:
            raise SourceError(f"{source / PEFT_WEIGHTS}: A and B of {module} do not fit together")
        scaled = half["B"] * np.float32(_scale(config, module, half["A"].shape[0]))
        pairs[layer, _module_id(module)] = _Pair(half["A"], scaled)
    return pairs


def _scale(config: _PeftConfig, module: str, rank: int) -> float:
    alpha = next(
        (
            value
            for pattern, value in config.alpha_pattern.items()
            if module == pattern or module.endswith(f".{pattern}")
        ),
        config.lora_alpha,
    )
    return float(alpha / (rank**0.5 if config.use_rslora else rank))


def _module_id(module: str) -> int:
    for end, number in MODULE_IDS.items():
        if module == end or module.endswith(f".{end}"):
            return number
    known = ", ".join(MODULE_IDS)
    raise ChoiceError(f"the adapter changes {module}, engines take adapters of {known} only")


def _read_tensors(path: Path) -> dict[str, Matrix]:
    """All tensors of a safetensors file as float32, bfloat16 too, which numpy does not have."""
    import safetensors

    try:
        content = path.read_bytes()
        views: list[tuple[str, dict[str, object]]] = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
        return {name: _matrix(name, view) for name, view in views}
    except OSError as exc:
        raise SourceError(
            f"{path}: {exc.strerror}: save the adapter with save_pretrained(safe_serialization)"
        ) from exc
    except safetensors.SafetensorError as exc:
        raise SourceError(f"{path} is damaged ({exc}): fetch it again") from exc


def _matrix(name: str, view: Mapping[str, object]) -> Matrix:
    dtype, data, shape = view["dtype"], view["data"], view["shape"]
    if dtype not in _DTYPES:
        raise ChoiceError(f"{name} is of type {dtype}: save the adapter as float16 or float32")
    assert isinstance(data, (bytes, bytearray))
    assert isinstance(shape, list)
    values = np.frombuffer(data, _DTYPES[str(dtype)])
    if dtype == "BF16":  # the upper half of a float32
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32).reshape(shape)


def _task_id(directory: Path) -> int:
    """From the content of an adapter's files: 63 bits, never 0, which means no adapter."""
    digest = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        digest.update(path.name.encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return int.from_bytes(digest.digest()[:8], "little") >> 1 or 1
