"""Every route over a real socket, with a fake engine."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from frontend.errors import ModelLoadFailed
from frontend.settings import Settings
from frontend.types import FinishReason
from tests.fakes.artefacts import publish_model
from tests.fakes.engine import FakeEngine, FakeRepository, Script, one_token_a_step
from tests.fakes.server import RawClient, ServerThread, parse_events, wait_until
from tests.fakes.tokenizers import byte_level_tokenizer

TOKENIZER = byte_level_tokenizer()
HELLO = Script(steps=one_token_a_step(TOKENIZER.encode("你好").ids, is_alone=True))
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
PROMPT_TEXT = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
NUM_PROMPT_TOKENS = len(TOKENIZER.encode(PROMPT_TEXT).ids)
USAGE = {
    "prompt_tokens": NUM_PROMPT_TOKENS,
    "completion_tokens": 6,
    "total_tokens": NUM_PROMPT_TOKENS + 6,
}
CHAT_USAGE = {
    **USAGE,
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0},
}


@pytest.fixture(autouse=True)
def hello(engine: FakeEngine) -> None:
    engine.script = HELLO


@pytest.mark.parametrize("path", ["/health", "/api/v1/health"])
def test_health(client: RawClient, path: str) -> None:
    client.send("GET", path)
    answer = client.receive()
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    memory = answer.json.pop("memory_usage")
    assert re.fullmatch(r"[\d.]+[KMGT]?B/[\d.]+[KMGT]?B", memory)
    assert answer.json | {"memory_usage": ""} == {
        "status": "healthy",
        "model_loaded": True,
        "memory_usage": "",
        "active_connections": 0,
        "limits": "ok",
    }


def test_health_without_the_model_is_healthy(client: RawClient, engine: FakeEngine) -> None:
    engine.models.clear()
    client.send("GET", "/health")
    answer = client.receive()
    assert (answer.status, answer.json["model_loaded"]) == (200, False)


def test_health_without_the_engine_is_503(client: RawClient, engine: FakeEngine) -> None:
    engine.is_up = False
    client.send("GET", "/health")
    answer = client.receive()
    assert answer.status == 503
    assert answer.json["status"] == "unhealthy"
    assert answer.json["model_loaded"] is False


def test_generate(client: RawClient, engine: FakeEngine) -> None:
    body = {"prompt": "hi", "model": "tiny", "max_tokens": 512, "temperature": 0.7, "stream": False}
    client.send("POST", "/api/v1/generate", body)
    answer = client.receive()
    assert answer.status == 200
    assert answer.json["text"] == "你好"
    assert answer.json["usage"] == USAGE
    assert answer.json["finish_reason"] == "stop"
    assert 0 < answer.json["latency"] < 5
    request = engine.streams[0].request
    assert TOKENIZER.decode(request.prompt_token_ids, skip_special_tokens=False) == PROMPT_TEXT
    assert (request.max_new_tokens, request.sampling.temperature) == (512, 0.7)


def test_generate_without_the_template_completes_the_bare_text(
    client: RawClient, engine: FakeEngine
) -> None:
    client.send("POST", "/api/v1/generate", {"prompt": "hi", "apply_chat_template": False})
    assert client.receive().status == 200
    assert TOKENIZER.decode(engine.streams[0].request.prompt_token_ids) == "hi"


def test_generate_with_a_model_without_template_completes(
    client: RawClient, engine: FakeEngine
) -> None:
    engine.load("bare")
    client.send("POST", "/api/v1/generate", {"prompt": "hi", "model": "bare"})
    assert client.receive().status == 200
    assert TOKENIZER.decode(engine.streams[0].request.prompt_token_ids) == "hi"


@pytest.mark.parametrize("model", [{}, {"model": "default"}, {"model": None}, {"model": "tiny"}])
def test_the_default_model_has_several_names(
    client: RawClient, engine: FakeEngine, model: dict[str, object]
) -> None:
    client.send("POST", "/api/v1/generate", {"prompt": "hi", **model})
    assert client.receive().status == 200
    assert engine.streams[0].request.model == "tiny"


@pytest.mark.parametrize(
    ("path", "extra"), [("/api/v1/generate/stream", {}), ("/api/v1/generate", {"stream": True})]
)
def test_generate_stream(client: RawClient, path: str, extra: dict[str, object]) -> None:
    client.send("POST", path, {"prompt": "hi", **extra}, {"Accept": "text/event-stream"})
    answer = client.receive()
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    *tokens, last = parse_events(answer.body)
    assert tokens == [{"token": "你", "finished": False}]
    assert (last.pop("token"), last.pop("finished")) == ("好", True)
    assert last.pop("latency") > 0
    assert last == {"finish_reason": "stop", "usage": USAGE}


def test_batch_generate_keeps_the_order_and_runs_all_at_once(
    client: RawClient, engine: FakeEngine
) -> None:
    texts = [f"answer {i}" for i in range(20)]
    delays_s = [0.2 if i % 2 else 0.1 for i in range(20)]
    scripts = {
        i: Script(steps=one_token_a_step(TOKENIZER.encode(text).ids)[:-1]
                  + one_token_a_step(TOKENIZER.encode(text).ids[-1:], every_s=delays_s[i]))
        for i, text in enumerate(texts)
    }  # fmt: skip
    engine.script = lambda request: scripts[request.max_new_tokens - 100]
    body = {"requests": [{"prompt": f"q{i}", "max_tokens": 100 + i} for i in range(20)]}
    started = time.monotonic()
    client.send("POST", "/api/v1/batch/generate", body)
    answer = client.receive()
    assert time.monotonic() - started < 2
    assert [result["text"] for result in answer.json["results"]] == texts
    for result, text in zip(answer.json["results"], texts, strict=True):
        assert result["usage"]["completion_tokens"] == len(text)


def test_a_batch_item_that_fails_has_its_error_in_its_place(client: RawClient) -> None:
    items = [
        {"prompt": "ok"},
        {"prompt": ""},
        {"prompt": "x", "model": "nowhere"},
        {"prompt": "x", "temperature": "hot"},
        17,
        {"prompt": "x", "stream": True},
        {"prompt": "ok", "max_tokens": 3},
    ]
    client.send("POST", "/api/v1/batch/generate", {"requests": items})
    answer = client.receive()
    assert answer.status == 200
    results = answer.json["results"]
    assert [r.get("text") for r in results] == ["你好", None, None, None, None, None, "你"]
    codes = [r["error"]["code"] for r in results[1:6]]
    assert codes == [
        "INVALID_PARAMETER",
        "MODEL_NOT_FOUND",
        "INVALID_PARAMETER",
        "INVALID_REQUEST",
        "INVALID_PARAMETER",
    ]


def test_a_batch_item_that_fails_unexpectedly_leaves_the_others_alone(
    client: RawClient, engine: FakeEngine
) -> None:
    def script(request: object) -> Script:
        if len(engine.streams) == 2:
            raise RuntimeError("secret detail")
        return HELLO

    engine.script = script
    client.send("POST", "/api/v1/batch/generate", {"requests": [{"prompt": "a"}] * 3})
    answer = client.receive()
    assert [r.get("text") for r in answer.json["results"]] == ["你好", None, "你好"]
    assert answer.json["results"][1]["error"]["code"] == "INTERNAL_ERROR"
    assert b"secret" not in answer.body


def test_chat_completion(client: RawClient, engine: FakeEngine) -> None:
    started = int(time.time())
    client.send("POST", "/v1/chat/completions", {"model": "default", **CHAT})
    answer = client.receive()
    assert answer.status == 200
    body = answer.json
    assert body.pop("id").startswith("chatcmpl-")
    assert started <= body.pop("created") <= time.time()
    assert re.fullmatch("fp_[0-9a-f]{10}", body.pop("system_fingerprint"))
    assert body == {
        "object": "chat.completion",
        "model": "tiny",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "你好", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": CHAT_USAGE,
    }


def test_chat_completion_of_several_choices(client: RawClient) -> None:
    client.send("POST", "/v1/chat/completions", {"n": 3, **CHAT})
    body = client.receive().json
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert {choice["message"]["content"] for choice in body["choices"]} == {"你好"}
    assert body["usage"]["completion_tokens"] == 18


def test_chat_completion_stream(client: RawClient) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    client.send("POST", "/v1/chat/completions", {**CHAT, **options})
    answer = client.receive()
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, done = parse_events(answer.body)
    assert done == "[DONE]"
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert len({(event["id"], event["created"], event["model"]) for event in events}) == 1
    *chunks, usage = events
    assert (usage["choices"], usage["usage"]) == ([], CHAT_USAGE)
    assert all(chunk["usage"] is None for chunk in chunks)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [{"role": "assistant", "content": "你"}, {"content": "好"}, {}]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None, None, "stop"]


def test_the_streamed_text_is_the_plain_text(client: RawClient, engine: FakeEngine) -> None:
    text = "你好 👩\u200d👧 e\u0301 and a STOP here"
    engine.script = Script(steps=one_token_a_step(TOKENIZER.encode(text).ids, every_s=0.001))
    body = {**CHAT, "stop": ["STOP"], "n": 2}
    client.send("POST", "/v1/chat/completions", body)
    plain = [choice["message"]["content"] for choice in client.receive().json["choices"]]
    client.send("POST", "/v1/chat/completions", {**body, "stream": True})
    streamed = ["", ""]
    for event in parse_events(client.receive().body)[:-1]:
        for choice in event["choices"]:
            streamed[choice["index"]] += choice["delta"].get("content", "")
    assert streamed == plain == ["你好 👩\u200d👧 e\u0301 and a "] * 2


def test_an_answer_cut_at_max_tokens_says_length(client: RawClient) -> None:
    client.send("POST", "/v1/chat/completions", {**CHAT, "max_completion_tokens": 3})
    choice = client.receive().json["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("你", "length")


def test_models(client: RawClient) -> None:
    client.send("GET", "/api/v1/models")
    bare, tiny = client.receive().json["models"]
    assert (bare["name"], bare["loaded"], bare["memory_usage"]) == ("bare", False, "0B")
    assert tiny == {
        "name": "tiny",
        "format": "gguf",
        "size": "4.2GB",
        "loaded": True,
        "memory_usage": "3.8GB",
        "variant": "q8_0",
        "quantization": "q8_0",
        "variants": ["f16", "q8_0"],
        "version": 1,
        "adapters": [],
        "failed": None,
    }


def test_models_while_the_engine_is_away(client: RawClient, engine: FakeEngine) -> None:
    engine.is_up = False
    client.send("GET", "/api/v1/models")
    assert [model["loaded"] for model in client.receive().json["models"]] == [False, False]


def test_openai_models(client: RawClient) -> None:
    client.send("GET", "/v1/models")
    answer = client.receive().json
    assert answer["object"] == "list"
    assert [model["id"] for model in answer["data"]] == ["bare", "tiny"]
    client.send("GET", "/v1/models/tiny")
    model = client.receive().json
    assert model == answer["data"][1]
    assert (model["object"], model["owned_by"]) == ("model", "inflight")
    assert isinstance(model["created"], int)


def test_load_another_variant_and_unload(client: RawClient, engine: FakeEngine) -> None:
    body = {"quantization": "f16", "prefer_gpu": False}
    client.send("POST", "/api/v1/models/tiny/load", body)
    answer = client.receive()
    assert answer.status == 200
    assert (answer.json["name"], answer.json["loaded"]) == ("tiny", True)
    assert (answer.json["variant"], answer.json["quantization"]) == ("f16", "f16")
    assert engine.models["tiny"].variant == "f16"
    client.send("POST", "/api/v1/models/tiny/unload")
    answer = client.receive()
    assert (answer.status, answer.json["loaded"], answer.json["variant"]) == (200, False, None)
    client.send("POST", "/api/v1/generate", {"prompt": "x"})
    assert client.receive().status == 503


def test_load_without_a_body_takes_the_default_variant(
    client: RawClient, engine: FakeEngine
) -> None:
    engine.models.clear()
    client.send("POST", "/api/v1/models/default/load")
    answer = client.receive()
    assert (answer.status, answer.json["name"], answer.json["variant"]) == (200, "tiny", "q8_0")


def test_load_sees_a_variant_that_was_built_since(
    tmp_path: Path, tiny_settings: Settings, engine: FakeEngine, repository: FakeRepository
) -> None:
    publish_model(tmp_path, "tiny", "q8_0")
    settings = replace(tiny_settings, home=tmp_path)
    with ServerThread(settings, engine, repository) as server, RawClient(server.address) as client:
        client.send("GET", "/v1/models")
        client.receive()
        publish_model(tmp_path, "tiny", "awq")
        client.send("POST", "/api/v1/models/tiny/load", {"quantization": "awq"})
        assert client.receive().json["variant"] == "awq"


def test_a_variant_that_does_not_exist_names_those_that_do(client: RawClient) -> None:
    client.send("POST", "/api/v1/models/tiny/load", {"quantization": "q2_k"})
    answer = client.receive()
    assert (answer.status, answer.json["error"]["code"]) == (404, "VARIANT_NOT_FOUND")
    assert "f16, q8_0" in answer.json["error"]["message"]


def test_a_model_that_does_not_load_says_why(client: RawClient, repository: FakeRepository) -> None:
    repository.failure = ModelLoadFailed(model="tiny", reason="no memory")
    client.send("POST", "/api/v1/models/tiny/load")
    answer = client.receive()
    assert (answer.status, answer.json["error"]["code"]) == (500, "MODEL_LOAD_FAILED")
    assert "no memory" in answer.json["error"]["message"]


@pytest.mark.parametrize("path", ["/metrics", "/api/v1/metrics"])
def test_metrics(client: RawClient, path: str) -> None:
    client.send("POST", "/api/v1/generate", {"prompt": "hi"})
    client.receive()
    client.send("GET", path)
    answer = client.receive()
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.body.decode().splitlines()
    assert "# TYPE model_inference_seconds histogram" in lines
    assert 'model_inference_seconds_bucket{le="1.0",model="tiny"} 1.0' in lines
    assert "# TYPE active_connections gauge" in lines
    assert "active_connections 0.0" in lines
    assert 'inflight_requests_total{model="tiny",outcome="stop"} 1.0' in lines
    assert f'inflight_prompt_tokens_total{{model="tiny"}} {float(NUM_PROMPT_TOKENS)}' in lines
    assert 'inflight_completion_tokens_total{model="tiny"} 6.0' in lines
    assert "inflight_upstream_up 0" in lines
    assert answer.body.endswith(b"\n")


def test_active_connections_counts_requests_in_work(
    server: ServerThread, client: RawClient, engine: FakeEngine
) -> None:
    engine.script = Script(steps=one_token_a_step([65, 66], every_s=0.5))
    clients = [RawClient(server.address) for _ in range(5)]
    for i, one in enumerate(clients):
        path = "/api/v1/generate/stream" if i % 2 else "/api/v1/generate"
        one.send("POST", path, {"prompt": "x"})
    wait_until(lambda: engine.num_running == 5)
    client.send("GET", "/health")
    assert client.receive().json["active_connections"] == 5
    client.send("GET", "/metrics")
    assert b"\nactive_connections 5.0\n" in client.receive().body
    for one in clients:
        one.receive()
        one.sock.close()
    client.send("GET", "/health")
    assert client.receive().json["active_connections"] == 0


def test_the_request_id_is_echoed_or_made(client: RawClient) -> None:
    client.send("GET", "/health", headers={"X-Request-ID": "my-id-1"})
    assert client.receive().headers["x-request-id"] == "my-id-1"
    client.send("POST", "/v1/chat/completions", {"messages": []}, {"X-Request-ID": "my-id-2"})
    assert client.receive().headers["x-request-id"] == "my-id-2"
    client.send("POST", "/v1/chat/completions", {**CHAT, "stream": True}, {"X-Request-ID": "my-3"})
    assert client.receive().headers["x-request-id"] == "my-3"
    client.send("GET", "/health")
    assert re.fullmatch(r"[0-9a-f]{32}", client.receive().headers["x-request-id"])


@pytest.mark.parametrize("bad", ["a\nSet-Cookie: x=1", "ü", "x" * 1000, "a b", ""])
def test_a_request_id_that_could_do_harm_is_replaced(client: RawClient, bad: str) -> None:
    client.send("GET", "/health", headers={"X-Request-ID": bad})
    answer = client.receive()
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])
    assert "set-cookie" not in answer.headers


def test_a_second_stop_token_of_the_model_is_not_shown(
    tmp_path: Path, tiny_settings: Settings, engine: FakeEngine, repository: FakeRepository
) -> None:
    publish_model(tmp_path, "tiny", "q8_0", other_eos_ids=(66,))
    engine.script = Script(steps=one_token_a_step([65, 66, 67], every_s=0.001))
    settings = replace(tiny_settings, home=tmp_path)
    with ServerThread(settings, engine, repository) as server, RawClient(server.address) as client:
        client.send("POST", "/api/v1/generate", {"prompt": "x"})
        answer = client.receive().json
        assert answer["text"] == TOKENIZER.decode([65])
        assert answer["finish_reason"] == FinishReason.STOP
        client.send("POST", "/api/v1/generate", {"prompt": "x", "ignore_eos": True})
        assert client.receive().json["text"] == TOKENIZER.decode([65, 66, 67])
