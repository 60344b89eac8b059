"""GGUF files as they are: their shards, what they are called, and which choices are refused."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from build_engines.artefacts.artefact import SpecialTokens
from build_engines.checkpoints.gguf_file import open_gguf, quantization
from build_engines.checkpoints.shards import shard_names, shard_paths
from build_engines.checkpoints.source import fetch_stage, fetched_path
from build_engines.checkpoints.special_tokens import write_special_tokens
from build_engines.cpu.gguf_recipe import GgufRecipe
from build_engines.errors import ChoiceError, SourceError
from build_engines.ordering import order_for
from build_engines.pipeline import with_checkpoint
from build_engines.recipe import Order
from build_engines.spec import PathSource, Spec
from build_engines.stages import StageStore
from tests.fakes.gguf_files import CONTEXT, NUM_TOKENS, write_llama


def order_of(path: Path, home: Path, max_seq_len: int | None = None) -> Order:
    """With its checkpoint fetched, as the pipeline does it."""
    spec = Spec(name="tiny", source=PathSource(path=str(path)), max_seq_len=max_seq_len)
    order = order_for(spec, "gguf", home)
    store = StageStore(home / "builds")
    fetched = store.run(fetch_stage(order.source, home), lambda *_: None)
    return with_checkpoint(order, fetched_path(fetched.path))


def test_shards_are_named_by_their_number_and_count() -> None:
    assert shard_names("m.gguf") == ["m.gguf"]
    assert shard_names("m-00002-of-00003.gguf") == [
        "m-00001-of-00003.gguf",
        "m-00002-of-00003.gguf",
        "m-00003-of-00003.gguf",
    ]


def test_any_shard_brings_all_of_them_and_the_first_is_opened(tmp_path: Path) -> None:
    write_llama(tmp_path / "m.gguf", tensors_per_shard=8)
    names = shard_names("m-00001-of-00003.gguf")
    order = order_of(tmp_path / names[1], tmp_path / "home")
    assert order.fetched == tmp_path / names[0]
    (fetch,) = (tmp_path / "home" / "builds").glob("fetch-*")
    assert sorted(path.name for path in (fetch / "checkpoint").iterdir()) == names
    assert fetched_path(fetch) == tmp_path / names[0]


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "m-00001-of-00002.gguf").touch()
    with pytest.raises(SourceError, match=r"m-00002-of-00002\.gguf is missing"):
        shard_paths(tmp_path / "m-00001-of-00002.gguf")


@pytest.mark.parametrize(
    ("file_type", "name"),
    [
        (gguf.LlamaFileType.ALL_F32, "f32"),
        (gguf.LlamaFileType.MOSTLY_Q4_0, "q4_0"),
        (gguf.LlamaFileType.MOSTLY_Q4_K_M, "q4_k_m"),
        (None, "f16"),  # of its tensors
        (9999, "f16"),
    ],
)
def test_the_quantization_has_the_name_that_llama_cpp_gives_it(
    tmp_path: Path, file_type: int | None, name: str
) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    if file_type is not None:
        writer.add_file_type(file_type)
    writer.add_tensor("norm", np.zeros(4, np.float32))
    writer.add_tensor("matrix", np.zeros((4, 4), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert quantization(open_gguf(tmp_path / "m.gguf")) == name


def test_a_hugging_face_folder_is_refused_with_what_would_work(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    spec = Spec(name="tiny", source=PathSource(path=str(tmp_path)))
    with pytest.raises(ChoiceError, match=r"FILE\.gguf, or build the variant openvino"):
        GgufRecipe().plan(order_for(spec, "gguf", tmp_path))


@pytest.mark.parametrize(("asked", "expected"), [(None, CONTEXT), (100, 100), (9999, CONTEXT)])
def test_limits_are_the_specs_and_no_more_than_the_files(
    tmp_path: Path, asked: int | None, expected: int
) -> None:
    order = order_of(write_llama(tmp_path / "m.gguf"), tmp_path / "home", asked)
    plan = GgufRecipe().plan(order)
    (fetch,) = (tmp_path / "home" / "builds").glob("fetch-*")
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    write_special_tokens(SpecialTokens(bos_id=1, eos_ids=[2], pad_id=None), tokenizer)
    produced = plan.describe({"fetch": fetch, "tokenizer": tokenizer})
    assert (produced.format, produced.quantization) == ("gguf", "f32")
    limits = produced.limits
    assert (limits.max_seq_len, limits.max_input_len) == (expected, expected - 1)
    assert limits.vocab_size == NUM_TOKENS
    assert [stage.name for stage in plan.stages] == ["tokenizer", "verify"]
