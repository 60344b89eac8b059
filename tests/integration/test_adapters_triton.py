"""From a PEFT adapter to an answer over HTTP: a real Triton, whose engine is a stand-in.

The stand-in's text depends on the adapter's weights, and it refuses task ids that it has not got.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from build_engines.artefacts.adopting import Adoption, add_adapters, adopt
from build_engines.artefacts.artefact import Artefact
from frontend.settings import Settings
from tests.fakes.gpu_artefacts import engine_config
from tests.fakes.server import RawClient, ServerThread
from tests.fakes.tokenizers import write_tokenizer
from tests.integration.stand_ins import StandIns
from tests.integration.test_models_cli import LORA
from tests.unit.build_engines.test_lora import peft_tensors, write_peft

MODEL = "tuned-engine"


@pytest.fixture(scope="module")
def tuned(stand_ins: StandIns, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    folder = tmp_path_factory.mktemp("tuned")
    built = folder / "engine"
    built.mkdir()
    (built / "config.json").write_text(json.dumps(engine_config(**LORA)))
    (built / "rank0.engine").write_bytes(b"not an engine")
    tokenizer = write_tokenizer(folder / "tokenizer")
    base = adopt(Adoption(source=built, name=MODEL, tokenizer=tokenizer), stand_ins.home)
    other = {name: values * np.float32(0.5) for name, values in peft_tensors().items()}
    adapters = {
        "pirate": write_peft(folder / "pirate"),
        "poet": write_peft(folder / "poet", other),
    }
    tuned = add_adapters(stand_ins.home, base, adapters)
    stand_ins.load(tuned)
    return tuned


@pytest.fixture(scope="module")
def http(stand_ins: StandIns, tuned: Artefact) -> Iterator[RawClient]:
    settings = Settings(
        home=stand_ins.home,
        model=MODEL,
        triton_url=stand_ins.address,
        triton_metrics_url=f"127.0.0.1:{stand_ins.ports.metrics}",
    )
    with ServerThread(settings, None, None) as server, RawClient(server.address) as client:
        yield client


def answer(http: RawClient, model: str) -> Any:
    body = {"model": model, "prompt": "Ahoy", "max_tokens": 12, "temperature": 0}
    http.send("POST", "/v1/completions", body)
    return http.receive()


def text_of(http: RawClient, model: str) -> str:
    found = answer(http, model)
    assert found.status == 200, found.body
    assert found.json["model"] == model
    return str(found.json["choices"][0]["text"])


def test_each_adapter_answers_in_its_own_way_and_keeps_to_it(http: RawClient) -> None:
    names = [MODEL, f"{MODEL}:pirate", f"{MODEL}:poet"]
    first = [text_of(http, name) for name in names]
    assert len(set(first)) == 3
    assert [text_of(http, name) for name in reversed(names)] == first[::-1]


def test_a_new_load_of_the_engine_is_sent_the_weights_again(
    http: RawClient, stand_ins: StandIns, tuned: Artefact
) -> None:
    before = text_of(http, f"{MODEL}:poet")
    stand_ins.load(tuned)
    assert text_of(http, f"{MODEL}:poet") == before


def test_the_list_and_the_refusal_name_the_adapters(http: RawClient, tuned: Artefact) -> None:
    http.send("GET", "/v1/models")
    names = [model["id"] for model in http.receive().json["data"]]
    assert {MODEL, f"{MODEL}:pirate", f"{MODEL}:poet"} <= set(names)
    refused = answer(http, f"{MODEL}:parrot")
    assert refused.status == 404
    assert "pirate, poet" in refused.json["error"]["message"]
    assert Path(tuned.path / "adapters" / "poet").is_dir()
