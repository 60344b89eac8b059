"""Parameters of config.pbtxt become settings; the figures become gauges."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from tests.unit.triton_models.fake_model import FakeModel, make_batcher
from tests.unit.triton_models.test_contract import ARTEFACT
from triton_models.batching.settings import EngineSettings
from triton_models.metrics import GAUGES, gauge_values
from triton_models.parameters import parse_parameters
from triton_models.render import defaults, render_config


def parameters() -> dict[str, str]:
    text = render_config("cpu", ARTEFACT)
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    return {name: value.string_value for name, value in config.parameters.items()}


def test_the_settings_are_the_parameters_of_the_configuration() -> None:
    assert {field.name for field in fields(EngineSettings)} == parameters().keys()


def test_defaults_are_the_same_with_and_without_a_configuration() -> None:
    direct = EngineSettings(
        artefact_dir=Path("/a"),
        variant="q8_0",
        max_seq_len=8192,
        max_input_len=8191,
        vocab_size=49152,
    )
    assert parse_parameters(EngineSettings, parameters()) == direct
    own = {field.name: getattr(direct, field.name) for field in fields(direct)}
    assert defaults("cpu").items() <= own.items()


def test_limits_come_from_the_manifest(tmp_path: Path) -> None:
    limits = {"max_seq_len": 10, "max_input_len": 9, "vocab_size": 8}
    (tmp_path / "manifest.json").write_text(json.dumps({"limits": limits}), encoding="utf-8")
    settings = EngineSettings.from_artefact(tmp_path, num_threads=1)
    assert (settings.max_seq_len, settings.vocab_size, settings.num_threads) == (10, 8, 1)


@pytest.mark.parametrize("value", ["many", ""])
def test_a_bad_parameter_is_named(value: str) -> None:
    with pytest.raises(ValueError, match="parameter kv_cache_bytes"):
        parse_parameters(EngineSettings, parameters() | {"kv_cache_bytes": value})


def test_a_missing_parameter_is_named() -> None:
    given = parameters()
    del given["enable_kv_cache_reuse"]
    with pytest.raises(ValueError, match="enable_kv_cache_reuse is missing"):
        parse_parameters(EngineSettings, given)


def test_every_gauge_has_a_value() -> None:
    batcher = make_batcher(FakeModel(8))
    values = gauge_values(batcher.stats())
    batcher.close()
    assert set(values) == {(family, v) for family, (_, _, vs) in GAUGES.items() for v in vs}
    assert values["nv_trt_llm_kv_cache_block_metrics", "free"] == 8
