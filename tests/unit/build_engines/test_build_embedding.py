"""Small random BERT models, built and held to the reference in numpy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import openvino as ov
import pytest
from tokenizers import Tokenizer

from build_engines.cpu import bert_ir
from build_engines.cpu.embedding_recipe import EmbeddingRecipe
from build_engines.errors import ConversionError, SpecError
from build_engines.pipeline import build
from build_engines.spec import (
    EmbeddingVerification,
    PathSource,
    Spec,
    TokenOptions,
    Verification,
    load_spec,
    read_spec,
)
from build_engines.variants import VariantOptions
from tests.fakes.bert import TINY, random_weights, reference_embedding, write_sentence_transformer
from tests.unit.build_engines.verify_fakes import publish_unasked

ROWS = [[2, 5, 3], [2, 7, 8, 9, 3], [2, 3], [2, *range(4, 40), 3]]


def run(graph: Any, rows: list[list[int]]) -> Any:
    compiled = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    width = max(map(len, rows))
    token_ids = np.full((len(rows), width), 11, np.int64)  # the padding is no token: any will do
    mask = np.zeros_like(token_ids)
    for index, row in enumerate(rows):
        token_ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    request = compiled.create_infer_request()
    return request.infer({"input_ids": token_ids, "attention_mask": mask})["embeddings"]


def test_the_graph_computes_what_the_reference_computes() -> None:
    weights = random_weights()
    found = run(bert_ir.build_graph(weights, TINY), ROWS)
    expected = np.array([reference_embedding(weights, TINY, row) for row in ROWS])
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(expected[0] - expected[1]).max() > 0.05  # the rows do differ


def test_a_tensor_that_is_missing_is_named() -> None:
    weights = random_weights()
    del weights["encoder.layer.1.output.dense.bias"]
    with pytest.raises(ConversionError, match=r"no tensor encoder\.layer\.1\.output\.dense\.bias"):
        bert_ir.build_graph(weights, TINY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "roberta"}, "model_type roberta is not supported, only bert"),
        ({"hidden_act": "relu"}, "hidden_act relu is not supported"),
        ({"position_embedding_type": "relative_key"}, "relative_key is not supported"),
        ({"hidden_size": "large"}, r"config\.json: .*hidden_size"),
    ],
)
def test_a_model_of_another_make_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(msgspec.json.encode(msgspec.structs.asdict(TINY) | change))
    with pytest.raises(ConversionError, match=message):
        bert_ir.read_config(path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", [{"type": "x.Transformer"}], "modules Transformer are not supported"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_cls_token": True},
            "pooling by pooling_mode_cls_token",
        ),
        ("modules.json", None, "not a sentence-transformers model"),
    ],
)
def test_other_pooling_is_refused(tmp_path: Path, file: str, content: object, message: str) -> None:
    folder = write_sentence_transformer(tmp_path / "m", random_weights()).parent
    bert_ir.check_pooling(folder)
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(msgspec.json.encode(content))
    with pytest.raises(ConversionError, match=message):
        bert_ir.check_pooling(folder)


def test_weights_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"not a header")
    with pytest.raises(ConversionError, match=r"model\.safetensors: "):
        bert_ir.read_weights(tmp_path / "model.safetensors")


TEXTS = ["a cat", "b dogs", "a b cat dog cats dogs"]
TEXT_TOKEN_IDS = [[2, 5, 7, 3], [2, 6, 8, 9, 3], [2, 5, 6, 7, 8, 7, 9, 8, 9, 3]]


@pytest.fixture(autouse=True)
def no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """These are about the stages before: what verify does is shown by tests with a real Triton."""
    monkeypatch.setattr("build_engines.verify.run.verify", publish_unasked)


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    """A spec whose source is a folder of this test."""
    weights = random_weights()
    path = write_sentence_transformer(tmp_path / "source", weights)
    vectors = np.array([reference_embedding(weights, TINY, row) for row in TEXT_TOKEN_IDS])
    return Spec(
        name="tiny",
        is_embedding=True,
        default_variant="f32",
        num_parameters=1000,
        max_seq_len=40,
        source=PathSource(path=str(path.parent)),
        tokens=TokenOptions(bos_id=2, eos_ids=[3], pad_id=0),
        verify=EmbeddingVerification(
            texts=TEXTS, values=vectors[0][:5].tolist(), cosines=(vectors @ vectors[0]).tolist()
        ),
        variants={
            "f32": VariantOptions(quantization="f32", tolerance=1e-4),
            "f16": VariantOptions(quantization="f16", tolerance=1e-2),
            "q8": VariantOptions(quantization="q8_0", tolerance=1e-2),
        },
    )


def test_an_artefact_is_built_verified_and_described(spec: Spec, tmp_path: Path) -> None:
    artefact = build(spec, None, tmp_path / "home", recipes={"embedding": EmbeddingRecipe()})
    manifest = artefact.manifest
    assert sorted(manifest.files) == [
        "openvino_model.bin",
        "openvino_model.xml",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
        "verification.json",
    ]
    assert manifest.verification is not None
    assert (manifest.embedding_size, manifest.limits.vocab_size) == (24, 50)
    assert (manifest.limits.max_seq_len, manifest.limits.max_input_len) == (40, 40)


def test_the_tokenizer_neither_cuts_nor_pads(spec: Spec, tmp_path: Path) -> None:
    artefact = build(spec, None, tmp_path / "home", recipes={"embedding": EmbeddingRecipe()})
    tokenizer = Tokenizer.from_file(str(artefact.path / "tokenizer" / "tokenizer.json"))
    assert [tokenizer.encode(text).ids for text in TEXTS] == TEXT_TOKEN_IDS


def test_the_second_build_of_a_process_makes_the_same_files(spec: Spec, tmp_path: Path) -> None:
    recipes = {"embedding": EmbeddingRecipe()}
    first, second = (build(spec, None, tmp_path / home, recipes=recipes) for home in "ab")
    assert first.manifest.files == second.manifest.files


def test_half_precision_is_half_as_large_and_close(spec: Spec, tmp_path: Path) -> None:
    sizes = {}
    for variant in ("f32", "f16"):
        artefact = build(spec, variant, tmp_path / "home", recipes={"embedding": EmbeddingRecipe()})
        sizes[variant] = artefact.manifest.files["openvino_model.bin"].size_bytes
    assert sizes["f16"] < 0.6 * sizes["f32"]


def test_what_cannot_be_built_is_refused_before_any_work(spec: Spec, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="quantization q8_0 is not one of f16, f32"):
        build(spec, "q8", tmp_path / "home", recipes={"embedding": EmbeddingRecipe()})


def test_a_spec_beyond_the_models_positions_is_refused(spec: Spec, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="max_seq_len 64 is beyond the model's 40 positions"):
        build(
            replace(spec, max_seq_len=64),
            None,
            tmp_path / "home",
            recipes={"embedding": EmbeddingRecipe()},
        )


def test_a_broken_tokenizer_is_named(spec: Spec, tmp_path: Path) -> None:
    (tmp_path / "source" / "tokenizer.json").write_text("{}")
    with pytest.raises(ConversionError, match=r"tokenizer\.json: "):
        build(spec, None, tmp_path / "home", recipes={"embedding": EmbeddingRecipe()})


def test_the_shipped_spec_is_of_its_kind() -> None:
    spec = load_spec("all-minilm-l6-v2")
    assert isinstance(spec.verify, EmbeddingVerification)
    assert (spec.variant("f16").kind, spec.max_seq_len, spec.default_variant) == (
        "embedding",
        256,
        "f16",
    )
    assert isinstance(load_spec("smollm2-135m-instruct").verify, Verification)


def test_a_spec_that_verifies_what_is_not_of_its_kind_is_refused(tmp_path: Path) -> None:
    source = Path(load_spec.__code__.co_filename).parent / "specs/all-minilm-l6-v2.toml"
    path = tmp_path / source.name
    path.write_text(source.read_text().replace('kind = "embedding"', ""))
    with pytest.raises(SpecError, match="at `verify`"):
        read_spec(path)
