"""PEFT adapters become the arrays that engines take; what an engine computes is what PEFT does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from build_engines.errors import BuildError
from build_engines.lora.adapter import PEFT_CONFIG, PEFT_WEIGHTS, read_adapters, write_adapter
from build_engines.lora.files import CONFIG_NAME, WEIGHTS_NAME

HIDDEN, INNER, RANK, ALPHA = 12, 20, 4, 8.0
SHAPES = {  # outputs, inputs
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.v_proj": (6, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
IDS = {"self_attn.q_proj": 1, "self_attn.v_proj": 3, "mlp.gate_proj": 5, "mlp.down_proj": 6}
PREFIX = "base_model.model.model.layers"

Tensors = dict[str, npt.NDArray[Any]]


def peft_tensors(num_layers: int = 2, ranks: dict[str, int] | None = None) -> Tensors:
    random = np.random.default_rng(7)
    tensors = {}
    for layer in range(num_layers):
        for module, (outputs, inputs) in SHAPES.items():
            rank = (ranks or {}).get(module, RANK)
            for half, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
                name = f"{PREFIX}.{layer}.{module}.lora_{half}.weight"
                tensors[name] = random.normal(size=shape).astype(np.float32)
    return tensors


def write_peft(folder: Path, tensors: Tensors | None = None, **config: object) -> Path:
    folder.mkdir(parents=True)
    save_file(peft_tensors() if tensors is None else tensors, folder / PEFT_WEIGHTS)
    base = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none"}
    (folder / PEFT_CONFIG).write_text(json.dumps({**base, **config}))
    return folder


def converted(source: Path, tmp_path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    target = tmp_path / "adapters" / "a"
    write_adapter(source, target, kind="tensorrt_llm", max_rank=64, num_layers=2)
    return np.load(target / WEIGHTS_NAME), np.load(target / CONFIG_NAME)


def engine_delta(row: npt.NDArray[Any], rank: int, module: str) -> npt.NDArray[Any]:
    """What an engine adds to a projection's weights: it reads A, then B, out of the row."""
    outputs, inputs = SHAPES[module]
    down = row[: rank * inputs].reshape(rank, inputs).astype(np.float32)
    up = row[rank * inputs :][: outputs * rank].reshape(outputs, rank).astype(np.float32)
    return up @ down


@pytest.mark.parametrize("uses_rslora", [False, True])
def test_the_engine_computes_what_the_dense_weights_would(
    tmp_path: Path, uses_rslora: bool
) -> None:
    ranks = {"mlp.down_proj": 2}
    tensors = peft_tensors(ranks=ranks)
    source = write_peft(tmp_path / "peft", tensors, use_rslora=uses_rslora)
    weights, places = converted(source, tmp_path)
    assert (str(weights.dtype), str(places.dtype)) == ("float16", "int32")
    assert weights.shape == (8, max(RANK * (o + i) for o, i in SHAPES.values()))
    by_place = {(int(m), int(layer)): n for n, (m, layer, _) in enumerate(places)}
    assert len(by_place) == 8
    for layer in range(2):
        for module, number in IDS.items():
            rank = ranks.get(module, RANK)
            row = by_place[number, layer]
            assert places[row][2] == rank
            prefix = f"{PREFIX}.{layer}.{module}"
            scale = ALPHA / (rank**0.5 if uses_rslora else rank)
            up, down = tensors[f"{prefix}.lora_B.weight"], tensors[f"{prefix}.lora_A.weight"]
            found = engine_delta(weights[row], rank, module)
            np.testing.assert_allclose(found, up @ down * scale, rtol=0.02, atol=0.05)


def test_bfloat16_is_read(tmp_path: Path) -> None:
    tensors = {name: np.round(value * 4) / 4 for name, value in peft_tensors().items()}
    weights, _ = converted(write_peft(tmp_path / "f32", tensors), tmp_path / "one")
    halves = {name: (v.view(np.uint32) >> 16).astype(np.uint16) for name, v in tensors.items()}
    source = write_peft(tmp_path / "bf16", halves)
    content = (source / PEFT_WEIGHTS).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].replace(b'"U16"', b'"BF16"')
    padded = header.rstrip() + b" " * (-len(header.rstrip()) % 8)
    (source / PEFT_WEIGHTS).write_bytes(
        len(padded).to_bytes(8, "little") + padded + content[8 + length :]
    )
    same, _ = converted(source, tmp_path / "two")
    np.testing.assert_array_equal(same, weights)


def test_the_task_id_is_that_of_the_content(tmp_path: Path) -> None:
    other = peft_tensors()
    next(iter(other.values()))[0, 0] += 1
    for name, tensors in (("a", None), ("same", None), ("other", other)):
        source = write_peft(tmp_path / f"peft-{name}", tensors)
        target = tmp_path / "adapters" / name
        write_adapter(source, target, kind="tensorrt_llm", max_rank=None)
    found = read_adapters(tmp_path)
    assert found["a"].task_id == found["same"].task_id != found["other"].task_id
    assert all(0 < one.task_id < 2**63 and one.rank == RANK for one in found.values())
    assert found["a"].directory == "adapters/a"


def test_the_pytorch_backend_gets_the_adapter_as_it_is(tmp_path: Path) -> None:
    source = write_peft(tmp_path / "peft")
    write_adapter(source, tmp_path / "adapters" / "a", kind="llm_api", max_rank=8)
    assert (tmp_path / "adapters/a" / PEFT_WEIGHTS).read_bytes() == (
        source / PEFT_WEIGHTS
    ).read_bytes()


@pytest.mark.parametrize(
    ("config", "tensors", "message"),
    [
        ({"use_dora": True}, None, "uses DoRA.*merge it"),
        ({"bias": "all"}, None, "trains biases"),
        ({"modules_to_save": ["lm_head"]}, None, r"replaces modules \(lm_head\)"),
        ({"peft_type": "IA3"}, None, "is of type IA3"),
        ({"r": "x"}, None, "adapter_config.json"),
        ({}, {f"{PREFIX}.0.mlp.odd.lora_A.weight": np.ones((4, 12), np.float32),
              f"{PREFIX}.0.mlp.odd.lora_B.weight": np.ones((12, 4), np.float32)},
         "changes mlp.odd"),
        ({}, {f"{PREFIX}.0.self_attn.q_proj.lora_A.weight": np.ones((4, 12), np.float32)},
         "A and B of self_attn.q_proj do not fit"),
        ({}, {"lm_head.weight": np.ones((4, 12), np.float32)}, "lm_head.weight, which engines"),
        ({"lora_alpha": 1e6}, None, "too large for float16"),
        ({}, peft_tensors(3), "has a layer 2, the model has 2"),
        ({}, peft_tensors(ranks=dict.fromkeys(SHAPES, 65)), "rank 65, the engine is built for 64"),
    ],
)  # fmt: skip
def test_what_an_engine_cannot_take_is_refused_with_the_reason(
    tmp_path: Path, config: dict[str, object], tensors: Tensors | None, message: str
) -> None:
    source = write_peft(tmp_path / "peft", tensors, **config)
    with pytest.raises(BuildError, match=message):
        converted(source, tmp_path)


def test_a_truncated_adapter_is_damage(tmp_path: Path) -> None:
    source = write_peft(tmp_path / "peft")
    path = source / PEFT_WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BuildError, match="is damaged"):
        converted(source, tmp_path)


def test_a_kind_without_adapters_says_what_works(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"kind cpu take no LoRA adapters.*merge"):
        write_adapter(tmp_path, tmp_path / "a", kind="cpu", max_rank=None)
