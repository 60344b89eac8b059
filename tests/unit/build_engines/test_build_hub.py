"""Downloads from a hub on loopback by the real huggingface_hub."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from huggingface_hub import constants

from build_engines.checkpoints.hub import download
from build_engines.checkpoints.needed_files import Found, needed_names
from build_engines.errors import ChoiceError, DiskSpaceError, SourceError
from build_engines.machine import Machine
from build_engines.ordering import Request, order_of
from build_engines.pipeline import build_order
from build_engines.plan import plan_lines
from build_engines.spec import HubSource
from tests.fakes.hub import COMMIT, FakeHub, running_hub
from tests.unit.build_engines.build_fakes import FakeRecipe, write_checkpoint

WEIGHTS = bytes(range(256)) * 2000
LARGE = WEIGHTS * 40  # 20 MB: huggingface_hub writes 10 MiB at a time
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b'{"a": 1}',
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"a pickle",
    "modeling_x.py": b"import os",
    "README.md": b"read me",
    "original/consolidated.00.pth": b"again",
}
SOURCE = HubSource(hf="lab/model")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with running_hub(FakeHub({"lab/model": dict(FILES)})) as running:
        set_endpoint(monkeypatch, running.url)
        yield running


def set_endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """What HF_ENDPOINT does when huggingface_hub is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def fetch(home: Path, source: HubSource = SOURCE) -> dict[str, Found]:
    return download(source, home, lambda done, total: None)


def test_the_needed_files_alone_are_downloaded_with_progress(hub: FakeHub, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    found = download(SOURCE, tmp_path, lambda done, total: steps.append((done, total)))
    assert sorted(found) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert found["model.safetensors"].path.read_bytes() == WEIGHTS
    assert found["model.safetensors"].sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    total = len(WEIGHTS) + 2 + 8
    assert steps == sorted(steps)
    assert steps[-1] == (total, total)
    assert found["config.json"].path.parent == tmp_path / "downloads" / "lab--model" / COMMIT


def test_what_is_there_is_not_downloaded_again(hub: FakeHub, tmp_path: Path) -> None:
    fetch(tmp_path)
    first = list(hub.downloads)
    assert fetch(tmp_path)["config.json"].path.exists()
    assert hub.downloads == first


def test_a_dropped_connection_is_gone_on_from(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories["lab/model"]["model.safetensors"] = LARGE
    hub.cut_after = [15_000_000]
    assert fetch(tmp_path)["model.safetensors"].path.read_bytes() == LARGE
    ranges = [ranged for file, ranged in hub.downloads if file == "model.safetensors"]
    assert ranges == ["", "bytes=10485760-"]


def test_a_killed_download_is_gone_on_from(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories["lab/model"]["model.safetensors"] = LARGE
    hub.stall_after = 15_000_000
    code = (
        "import sys\nfrom pathlib import Path\nfrom build_engines.checkpoints.hub import download\n"
        "from build_engines.spec import HubSource\n"
        "download(HubSource(hf='lab/model'), Path(sys.argv[1]), lambda done, total: None)"
    )
    env = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=env)
    assert hub.stalled.wait(20)
    (part,) = tmp_path.rglob("*.part")
    while part.stat().st_size < 10_485_760:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()

    hub.stall_after = None
    hub.go_on.set()
    assert fetch(tmp_path)["model.safetensors"].path.read_bytes() == LARGE
    ranges = [ranged for file, ranged in hub.downloads if file == "model.safetensors"]
    assert ranges == ["", "bytes=10485760-"]


def test_a_file_that_arrives_damaged_is_deleted(hub: FakeHub, tmp_path: Path) -> None:
    hub.damaged = {"model.safetensors"}
    with pytest.raises(SourceError, match=r"model\.safetensors arrived damaged .* build again"):
        fetch(tmp_path)
    hub.damaged.clear()
    assert fetch(tmp_path)["model.safetensors"].path.read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (HubSource(hf="lab/other"), "the hub shows no repository lab/other: check its name"),
        (HubSource(hf="lab/model", revision="v9"), "lab/model has no revision v9"),
        (HubSource(hf="a/b/c"), "a/b/c is not the name of a repository: give OWNER/NAME"),
        (HubSource(hf="lab/model", file="x.gguf"), "has no file x.gguf: choose no GGUF files"),
        (HubSource(hf="lab/ggufs"), "lab/ggufs/FILE.gguf, there are a.Q4_0.gguf, a.Q8_0.gguf"),
        (HubSource(hf="lab/gated"), r"lab/gated is gated: accept its terms at http.* set HF_TOKEN"),
    ],
)
def test_what_cannot_be_fetched_is_one_line_that_says_what_to_do(
    hub: FakeHub, tmp_path: Path, source: HubSource, message: str
) -> None:
    hub.repositories["lab/ggufs"] = {"a.Q4_0.gguf": b"", "a.Q8_0.gguf": b""}
    hub.repositories["lab/gated"] = dict(FILES)
    hub.gated = {"lab/gated"}
    with pytest.raises(SourceError, match=message) as caught:
        fetch(tmp_path, source)
    assert "\n" not in str(caught.value)


def test_one_gguf_file_of_a_repository_is_fetched_alone(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories["lab/ggufs"] = {"a.Q4_0.gguf": b"four", "a.Q8_0.gguf": b"eight"}
    found = fetch(tmp_path, HubSource(hf="lab/ggufs", file="a.Q8_0.gguf"))
    assert [(name, file.path.read_bytes()) for name, file in found.items()] == [
        ("a.Q8_0.gguf", b"eight")
    ]


def test_the_token_is_sent_and_a_wrong_one_is_named(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "right"
    with pytest.raises(SourceError, match="if it is private, set HF_TOKEN"):
        fetch(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(SourceError, match="the hub does not take the token for lab/model: set"):
        fetch(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "right")
    assert "config.json" in fetch(tmp_path)


def test_no_network_says_so_and_what_to_do(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    set_endpoint(monkeypatch, address)
    with pytest.raises(SourceError, match=rf"cannot download lab/model from {address}: check the"):
        fetch(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match="HF_HUB_OFFLINE is set"):
        fetch(tmp_path)


def test_a_hub_that_fails_is_named(hub: FakeHub, tmp_path: Path) -> None:
    hub.is_broken = True
    with pytest.raises(SourceError, match="the hub answers 500 for lab/model: build again later"):
        fetch(tmp_path)


def test_a_disk_too_small_for_the_download_is_told_before_it(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 100_000})()
    monkeypatch.setattr("build_engines.checkpoints.hub.shutil.disk_usage", lambda path: usage)
    with pytest.raises(DiskSpaceError, match=r"needs 1 MB in .*, 0 MB are free: make room"):
        fetch(tmp_path)
    assert hub.downloads == []


def test_code_is_taken_where_the_spec_says_so(hub: FakeHub, tmp_path: Path) -> None:
    found = fetch(tmp_path, HubSource(hf="lab/model", with_code=True))
    assert "modeling_x.py" in found


def test_pickled_weights_are_taken_where_there_is_nothing_else() -> None:
    names = ["config.json", "pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"]
    assert needed_names([*names, "training_args.bin"]) == sorted(names)
    assert needed_names(["qwen.tiktoken", "vocab.txt", "notes.txt", "1_Pooling/config.json"]) == [
        "1_Pooling/config.json",
        "qwen.tiktoken",
        "vocab.txt",
    ]


def test_a_model_of_the_hub_is_planned_built_and_described(hub: FakeHub, tmp_path: Path) -> None:
    local = write_checkpoint(tmp_path / "local")
    hub.repositories["lab/model"] = {
        path.name: path.read_bytes() for path in sorted(local.iterdir())
    }
    order = order_of(Request(checkpoint="lab/model", variant="q8_0"), tmp_path / "home")
    recipes = {"cpu": FakeRecipe()}
    assert any("fetch" in line for line in plan_lines(order, recipes=recipes))
    assert hub.downloads == [("config.json", "")]

    artefact = build_order(order, recipes=recipes)
    assert artefact.manifest.source == {"hf": "lab/model", "revision": "main"}
    assert (artefact.manifest.name, artefact.manifest.family) == ("model", "llama")
    build_order(replace(order, variant=order.spec.variant("f16")), recipes=recipes)
    weights = [file for file, _ in hub.downloads if file == "model.safetensors"]
    assert len(weights) == 1  # the variants share what was downloaded


def test_what_cannot_be_built_of_a_model_is_refused_before_it_is_downloaded(
    hub: FakeHub, tmp_path: Path
) -> None:
    config = write_checkpoint(tmp_path / "local") / "config.json"
    large = msgspec.json.decode(config.read_bytes()) | {"vocab_size": 100_000_000}
    hub.repositories["lab/model"]["config.json"] = msgspec.json.encode(large)
    order = order_of(Request(checkpoint="lab/model", variant="q8_0"), tmp_path / "home")
    with pytest.raises(ChoiceError, match="q8_0 is made from a GGUF file, model is a Hugging Face"):
        build_order(order)
    small = Machine(free_bytes=lambda path: 2_000_000_000)
    recipes = {"cpu": FakeRecipe(needed_bytes=0)}
    with pytest.raises(DiskSpaceError, match=r"the build needs 3\.2 GB"):
        build_order(order, recipes=recipes, machine=small)
    assert {file for file, _ in hub.downloads} == {"config.json"}
