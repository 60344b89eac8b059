"""The real embedding model: built, held to a reference, and served by a real Triton over HTTP."""

from __future__ import annotations

import asyncio
import base64
import math
import struct
import urllib.request
from collections.abc import AsyncIterator, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import numpy as np
import openai
import pytest

from build_engines.artefacts.artefact import Artefact, verify_hashes
from build_engines.cpu import bert_ir
from build_engines.pipeline import build
from build_engines.spec import EmbeddingVerification, PackageSource, load_spec
from frontend.errors import ContextLengthExceeded, InvalidParameter
from frontend.settings import Settings
from frontend.text.tokenizer import TextTokenizer
from frontend.triton.client import TritonClient
from frontend.triton.embeddings import encode_rows
from frontend.triton.repository import ModelRepository
from frontend.triton.server import LOOPBACK, EmbeddedTriton, Ports
from tests.conftest import link_models
from tests.fakes.bert import reference_embedding
from tests.fakes.scripted import write_scripted_model
from tests.fakes.server import RawClient, ServerThread
from tests.integration.counter import free_ports
from triton_models.scripted.script import Scenario

MODEL = "all-minilm-l6-v2"
SENTENCES = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "A cheetah is running behind its prey.",
]


@pytest.fixture(scope="module")
def embedding_home(request: pytest.FixtureRequest) -> Path:
    """Where the model is built, once and kept between runs."""
    home = Path(str(request.config.cache.mkdir("home")))
    build(MODEL, None, home)
    return home


@pytest.fixture(scope="module")
def embedding_artefact(embedding_home: Path) -> Artefact:
    return build(MODEL, None, embedding_home)


@pytest.fixture(scope="module")
def tokenizer(embedding_artefact: Artefact) -> TextTokenizer:
    return TextTokenizer(embedding_artefact.path / "tokenizer")


@pytest.fixture(scope="module")
def ports() -> Ports:
    return free_ports()


@pytest.fixture(scope="module")
def settings(
    embedding_home: Path,
    artefact: Artefact,
    ports: Ports,
    tmp_path_factory: pytest.TempPathFactory,
) -> Settings:
    """A home with the embedding model and one that generates, which is the default."""
    home = link_models(embedding_home, tmp_path_factory.mktemp("embedding"))
    scenario = Scenario(name="default", text="I am a generator.")
    write_scripted_model(home, "generator", [scenario], tokenizer_from=artefact)
    (home / "repository").mkdir()
    return Settings(home=home, model="generator", triton_metrics_url="127.0.0.1:1")


@pytest.fixture(scope="module")
def triton(settings: Settings, ports: Ports) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(settings.home, ports) as triton:
        yield triton


@pytest.fixture(scope="module")
def server(triton: EmbeddedTriton, settings: Settings, ports: Ports) -> Iterator[ServerThread]:
    """The real application; both models are loaded over HTTP."""
    engine = TritonClient(f"{LOOPBACK}:{ports.grpc}")
    repository = ModelRepository(settings, engine.rpc, engine.capabilities)
    with ServerThread(settings, cast(Any, engine), cast(Any, repository)) as running:
        with RawClient(running.address, timeout_s=60) as client:
            for name in (MODEL, "generator"):
                client.send("POST", f"/api/v1/models/{name}/load", {})
                assert client.receive().status == 200
        yield running


@pytest.fixture
def client(server: ServerThread) -> Iterator[RawClient]:
    with RawClient(server.address) as connection:
        yield connection


@pytest.fixture
async def engine(server: ServerThread, ports: Ports) -> AsyncIterator[TritonClient]:
    engine = TritonClient(f"{LOOPBACK}:{ports.grpc}")
    yield engine
    await engine.close()


def ask(client: RawClient, **fields: object) -> Any:
    client.send("POST", "/v1/embeddings", {"model": MODEL, **fields})
    answer = client.receive()
    assert answer.status == 200, answer.body
    return answer.json


def refusal(client: RawClient, fields: dict[str, object], path: str = "/v1/embeddings") -> Any:
    client.send("POST", path, {"model": MODEL, **fields})
    answer = client.receive()
    assert answer.status == 400, answer.body
    return answer.json["error"]


def vectors(answer: Any) -> Any:
    return np.array([one["embedding"] for one in answer["data"]])


# ---- the build


@pytest.mark.parametrize("variant", ["f16", "f32"])
def test_every_variant_is_built_verified_and_described(embedding_home: Path, variant: str) -> None:
    built = build(MODEL, variant, embedding_home)
    manifest = built.manifest
    weights_bytes = {"f16": 45.1e6, "f32": 90.3e6}[variant]
    assert manifest.files["openvino_model.bin"].size_bytes == pytest.approx(weights_bytes, rel=0.01)
    assert (manifest.kind, manifest.embedding_size) == ("embedding", 384)
    assert (manifest.limits.max_input_len, manifest.limits.vocab_size) == (256, 30522)
    verify_hashes(built)


def test_the_values_in_the_spec_are_the_references(tokenizer: TextTokenizer) -> None:
    spec = load_spec(MODEL)
    assert isinstance(spec.verify, EmbeddingVerification)
    assert isinstance(spec.source, PackageSource)
    path = Path(str(metadata.distribution(spec.source.package).locate_file(spec.source.file)))
    weights, config = bert_ir.read_weights(path), bert_ir.read_config(path.parent / "config.json")
    rows = [tokenizer.encode(text, add_special_tokens=True) for text in spec.verify.texts]
    found = np.array([reference_embedding(weights, config, row) for row in rows])
    assert found[0][: len(spec.verify.values)] == pytest.approx(spec.verify.values, abs=1e-6)
    assert found @ found[0] == pytest.approx(spec.verify.cosines, abs=1e-4)


# ---- Triton


async def test_the_model_tells_its_limits_and_its_size(engine: TritonClient) -> None:
    model = await engine.loaded_model(MODEL)
    assert (model.embedding_size, model.limits.max_input_len, model.variant) == (384, 256, "f16")
    assert (await engine.loaded_model("generator")).embedding_size is None


async def test_vectors_do_not_depend_on_what_else_is_asked(
    engine: TritonClient, tokenizer: TextTokenizer
) -> None:
    texts = [" ".join(SENTENCES[i % 4 :] * (1 + i % 5)) for i in range(120)]
    rows = [tokenizer.encode(text, add_special_tokens=True) for text in texts]
    together = np.array(await engine.embed(MODEL, rows))
    at_once = np.array(
        [v[0] for v in await asyncio.gather(*(engine.embed(MODEL, [r]) for r in rows))]
    )
    alone = np.array([(await engine.embed(MODEL, [row]))[0] for row in rows[:20]])
    assert np.abs(together - at_once).max() < 1e-5
    assert np.abs(together[:20] - alone).max() < 1e-5
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(120), abs=1e-5)


async def test_waiting_requests_are_computed_together(engine: TritonClient, ports: Ports) -> None:
    before = executions(ports)
    row = [101, *range(2000, 2060), 102]
    await asyncio.gather(*(engine.embed(MODEL, [row]) for _ in range(100)))
    after = executions(ports)
    assert after["request_success"] - before["request_success"] == 100
    assert after["exec_count"] - before["exec_count"] <= 30


def executions(ports: Ports) -> dict[str, float]:
    url = f"http://{LOOPBACK}:{ports.metrics}/metrics"
    with urllib.request.urlopen(url, timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    found = {}
    for name in ("request_success", "exec_count"):
        prefix = f'nv_inference_{name}{{model="{MODEL}"'
        (line,) = [one for one in lines if one.startswith(prefix)]
        found[name] = float(line.rpartition(" ")[2])
    return found


async def test_the_model_checks_its_rows_by_itself(engine: TritonClient) -> None:
    with pytest.raises(ContextLengthExceeded):
        await engine.embed(MODEL, [[1] * 257])
    with pytest.raises(InvalidParameter, match="token ids are 0 to 30521"):
        await engine.embed(MODEL, [[30522]])
    answer = await engine.rpc.infer(encode_rows(MODEL, [[101, 102]] * 64))
    assert list(answer.outputs[0].shape) == [64, 384]


async def test_a_generator_is_refused(engine: TritonClient) -> None:
    with pytest.raises(InvalidParameter, match="makes no embeddings"):
        await engine.embed("generator", [[1]])


# ---- HTTP


def test_paraphrases_are_nearer_than_strangers(client: RawClient) -> None:
    answer = ask(client, input=SENTENCES)
    cosines = vectors(answer) @ vectors(answer).T
    assert cosines[0, 1] == pytest.approx(0.755, abs=0.01)
    assert max(cosines[0, 2], cosines[0, 3], cosines[2, 3]) < 0.3
    assert [one["index"] for one in answer["data"]] == [0, 1, 2, 3]
    assert answer["model"] == MODEL


def test_usage_counts_the_special_tokens(client: RawClient) -> None:
    assert ask(client, input="A man is eating food.")["usage"] == {
        "prompt_tokens": 8,
        "total_tokens": 8,
    }


def test_token_ids_are_taken_as_they_are(client: RawClient, tokenizer: TextTokenizer) -> None:
    row = tokenizer.encode(SENTENCES[0], add_special_tokens=True)
    by_text, by_ids = ask(client, input=SENTENCES[0]), ask(client, input=row)
    assert vectors(by_text) == pytest.approx(vectors(by_ids))
    assert vectors(ask(client, input=[row, row])).shape == (2, 384)


def test_base64_is_the_same_vector(client: RawClient) -> None:
    encoded = ask(client, input="hello", encoding_format="base64")["data"][0]["embedding"]
    raw = base64.b64decode(encoded)
    assert struct.unpack("<384f", raw) == pytest.approx(
        ask(client, input="hello")["data"][0]["embedding"], abs=1e-6
    )


def test_dimensions_cut_and_scale(client: RawClient) -> None:
    whole = ask(client, input="hello")["data"][0]["embedding"]
    cut = ask(client, input="hello", dimensions=64)["data"][0]["embedding"]
    length = math.hypot(*whole[:64])
    assert cut == pytest.approx([value / length for value in whole[:64]], abs=1e-6)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": "x", "dimensions": 385}, "dimensions", "invalid_value"),
        ({"input": "x", "dimensions": 0}, "dimensions", "invalid_value"),
        ({"input": "word " * 300}, "input", "context_length_exceeded"),
        ({"input": ["x", "word " * 300]}, "input[1]", "context_length_exceeded"),
        ({"input": [30522]}, "input", "invalid_value"),
        ({"input": [[5], [-1]]}, "input[1][0]", "invalid_value"),
        ({"input": "x", "model": "generator"}, "model", "invalid_value"),
        ({"input": "x", "model": None}, "model", "invalid_value"),  # the default generates
    ],
)
def test_what_cannot_be_embedded_is_refused(
    client: RawClient, fields: dict[str, object], param: str, code: str
) -> None:
    error = refusal(client, fields)
    assert (error["param"], error["code"]) == (param, code)


def test_an_embedding_model_does_not_chat(client: RawClient) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    error = refusal(client, {"messages": messages}, "/v1/chat/completions")
    assert error["param"] == "model"
    assert "makes embeddings only" in error["message"]


def test_as_many_inputs_as_are_allowed_are_embedded_in_order(client: RawClient) -> None:
    texts = [f"number {i}" for i in range(2048)]
    client.timeout_s = 60
    client.sock.settimeout(60)
    found = vectors(ask(client, input=texts, dimensions=8))
    assert found.shape == (2048, 8)
    for index in (0, 1000, 2047):
        alone = vectors(ask(client, input=texts[index], dimensions=8))[0]
        assert found[index] == pytest.approx(alone, abs=1e-4)


def test_the_openai_client_reads_it(server: ServerThread) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as sdk:
        answer = sdk.embeddings.create(model=MODEL, input=SENTENCES, dimensions=128, user="me")
        assert [len(one.embedding) for one in answer.data] == [128] * 4
        assert answer.usage.total_tokens > 20
        with pytest.raises(openai.BadRequestError) as caught:
            sdk.embeddings.create(model="generator", input="x")
        assert caught.value.param == "model"
