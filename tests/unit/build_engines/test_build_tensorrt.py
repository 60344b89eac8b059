"""The whole GPU pipeline with stand-in tools: what it makes, and that kill -9 loses one stage."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from build_engines.artefacts.artefact import find_artefact, verify_hashes
from build_engines.errors import ChoiceError, ConversionError, SourceError, ToolError
from build_engines.lora.files import WEIGHTS_NAME
from build_engines.ordering import order_for
from build_engines.plan import plan_lines
from build_engines.spec import load_spec
from build_engines.tensorrt.toolchain import IMAGE
from build_engines.variants import Lora, Speculative
from tests.fakes.trtllm.install import FakeTools, install_tools
from tests.unit.build_engines.tensorrt_fakes import (
    build_tiny_engine,
    recipe,
    tiny_spec,
    with_numbers,
    write_checkpoint,
    write_texts,
)
from tests.unit.build_engines.test_lora import write_peft

PROJECT = Path(__file__).parents[3]
PLAIN = ("fp16", "bf16", "int8_wo", "int4_wo")  # what needs no calibration


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint")


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    return tmp_path / "calls"


def use(tools: FakeTools, monkeypatch: pytest.MonkeyPatch, calls: Path | None = None) -> None:
    for name, value in tools.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("INFLIGHT_TRTLLM_EXAMPLES", str(tools.examples))
    if calls is not None:
        monkeypatch.setenv("FAKE_TRTLLM_CALLS", str(calls))


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: Path) -> FakeTools:
    installed = install_tools(tmp_path / "tools")
    use(installed, monkeypatch, calls)
    return installed


def names_of(calls: Path) -> list[str]:
    return [line.split(" ", 1)[1] for line in calls.read_text().splitlines()]


def build_log(home: Path, variant: str) -> str:
    return (home / "builds" / "tiny" / variant / "build.log").read_text()


@pytest.mark.usefixtures("tools")
def test_an_engine_is_built_and_published_with_its_own_limits(
    tmp_path: Path, checkpoint: Path, calls: Path
) -> None:
    built = build_tiny_engine(tmp_path / "home", checkpoint, "fp16")
    assert names_of(calls) == ["convert_checkpoint.py", "trtllm-build"]
    assert sorted(built.manifest.files) == [
        "engine/config.json",
        "engine/rank0.engine",
        "tokenizer/generation_config.json",
        "tokenizer/tokenizer.json",
        "xgrammar_tokenizer_info.json",
    ]
    manifest = built.manifest
    assert (manifest.kind, manifest.format) == ("tensorrt_llm", "tensorrt_engine")
    assert (manifest.limits.max_seq_len, manifest.limits.max_input_len) == (256, 255)
    assert manifest.limits.vocab_size == 64
    assert (manifest.tokens.eos_ids, manifest.tokens.pad_id) == ([2], 0)
    assert manifest.engine is not None
    assert (manifest.engine.max_batch_size, manifest.engine.max_num_tokens) == (8, 8192)
    assert manifest.engine.has_chunked_context
    verify_hashes(built)


@pytest.mark.usefixtures("tools")
def test_an_engine_has_a_file_for_each_gpu(tmp_path: Path, checkpoint: Path) -> None:
    built = build_tiny_engine(tmp_path / "home", checkpoint, "two_gpus")
    assert {"engine/rank0.engine", "engine/rank1.engine"} < built.manifest.files.keys()
    assert built.manifest.engine is not None
    assert built.manifest.engine.world_size == 2
    # this machine has one GPU, and a worker takes one of its own
    assert "--workers 1" in build_log(tmp_path / "home", "two_gpus")


@pytest.mark.usefixtures("tools")
def test_an_int8_kv_cache_is_calibrated_and_gives_up_what_it_cannot_do(
    tmp_path: Path, checkpoint: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFLIGHT_CALIBRATION_DATA", str(write_texts(tmp_path / "texts")))
    built = build_tiny_engine(tmp_path / "home", checkpoint, "int8_kv")
    assert names_of(calls) == ["quantize.py", "trtllm-build"]
    assert built.manifest.engine is not None
    assert built.manifest.engine.kv_cache == "int8"
    assert not built.manifest.engine.has_chunked_context
    assert not built.manifest.engine.has_kv_reuse


@pytest.mark.usefixtures("tools")
def test_a_lookahead_engine_knows_its_window(tmp_path: Path, checkpoint: Path) -> None:
    engine = build_tiny_engine(tmp_path / "home", checkpoint, "lookahead").manifest.engine
    assert engine is not None
    assert engine.drafting is not None
    assert (engine.drafting.mode, engine.drafting.lookahead) == ("lookahead", [7, 7, 7])
    assert engine.drafting.max_draft_len == 83  # examples/lookahead/README.md


@pytest.mark.usefixtures("tools")
def test_an_engine_for_adapters_takes_their_folders(tmp_path: Path, checkpoint: Path) -> None:
    adapter = write_peft(tmp_path / "adapter")
    lora = Lora(max_rank=16, target_modules=("q_proj",), adapters={"poet": str(adapter)})
    built = build_tiny_engine(tmp_path / "home", checkpoint, "fp16", lora=lora)
    assert built.manifest.engine is not None
    assert built.manifest.engine.max_lora_rank == 16
    config = json.loads((built.path / "engine" / "config.json").read_text())
    assert config["build_config"]["lora_config"]["lora_dir"] == ["adapter"]
    assert config["build_config"]["lora_config"]["lora_target_modules"] == ["attn_q"]
    poet = built.manifest.adapters["poet"]
    assert (poet.directory, poet.task_id > 0) == ("adapters/poet", True)
    assert f"{poet.directory}/model.lora_weights.npy" in built.manifest.files
    assert built.manifest.adapters["poet"].rank == 4
    weights = np.load(built.path / "adapters" / "poet" / WEIGHTS_NAME)
    assert (str(weights.dtype), len(weights)) == ("float16", 8)


@pytest.mark.usefixtures("tools")
def test_an_adapter_that_is_not_here_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    lora = Lora(max_rank=16, target_modules=(), adapters={"poet": "someone/poet"})
    with pytest.raises(ChoiceError, match=r"adapter poet is someone/poet.* download it"):
        build_tiny_engine(tmp_path / "home", checkpoint, "fp16", lora=lora)


@pytest.mark.usefixtures("tools")
def test_a_draft_network_becomes_part_of_the_engine(
    tmp_path: Path, checkpoint: Path, calls: Path
) -> None:
    draft = write_checkpoint(tmp_path / "draft")
    speculative = Speculative(mode="eagle", draft_model=str(draft))
    built = build_tiny_engine(tmp_path / "home", checkpoint, "fp16", speculative=speculative)
    engine = built.manifest.engine
    assert engine is not None
    assert engine.drafting is not None
    assert (engine.drafting.mode, len(engine.drafting.tree)) == ("eagle", 63)
    assert not engine.has_chunked_context  # EAGLE's README
    assert "eagle/convert_checkpoint.py" in build_log(tmp_path / "home", "fp16")


@pytest.mark.usefixtures("tools")
def test_calibration_without_texts_is_refused_before_anything_runs(
    tmp_path: Path, checkpoint: Path, calls: Path
) -> None:
    with pytest.raises(ChoiceError, match="INFLIGHT_CALIBRATION_DATA"):
        build_tiny_engine(tmp_path / "home", checkpoint, "int4_awq")
    assert not calls.exists()
    spec = with_numbers(tiny_spec(checkpoint))
    shown = "\n".join(plan_lines(order_for(spec, "int4_awq", tmp_path / "b")))
    assert "in INFLIGHT_CALIBRATION_DATA" in shown
    assert "--calib_dataset CALIBRATION_DATA" in shown


@pytest.mark.usefixtures("tools")
def test_code_that_the_converter_would_run_must_be_there(tmp_path: Path, calls: Path) -> None:
    named = {"AutoConfig": "configuration_x.XConfig", "AutoModel": "other/repo--modeling_x.X"}
    checkpoint = write_checkpoint(tmp_path / "own code", {"auto_map": named})
    with pytest.raises(SourceError, match=r"no configuration_x\.py.*with_code = true"):
        build_tiny_engine(tmp_path / "home", checkpoint, "fp16")
    assert not calls.exists()
    (checkpoint / "configuration_x.py").write_text("raise ImportError('not by us')\n")
    build_tiny_engine(tmp_path / "home", checkpoint, "fp16")


def test_the_tools_run_in_the_pinned_container_where_there_are_none(
    tmp_path: Path, checkpoint: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(install_tools(tmp_path / "tools", in_place=False), monkeypatch, calls)
    monkeypatch.setenv("INFLIGHT_CALIBRATION_DATA", str(write_texts(tmp_path / "texts")))
    built = build_tiny_engine(tmp_path / "home", checkpoint, "int4_awq")
    assert names_of(calls) == ["quantize.py", "trtllm-build"]
    log = build_log(tmp_path / "home", "int4_awq")
    assert "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3 trtllm-build" in log
    assert f"--user {os.getuid()}:{os.getgid()}" in log
    assert not any("checkpoint" in path for path in built.manifest.files)


def test_the_container_makes_the_same_engine(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(install_tools(tmp_path / "here"), monkeypatch)
    here = build_tiny_engine(tmp_path / "home1", checkpoint, "fp16")
    use(install_tools(tmp_path / "there", in_place=False), monkeypatch)
    there = build_tiny_engine(tmp_path / "home2", checkpoint, "fp16")
    assert here.content_hash == there.content_hash


def test_a_tool_that_fails_is_named_with_its_last_words(
    tmp_path: Path, tools: FakeTools, checkpoint: Path
) -> None:
    script = tools.examples / "models/core/llama/convert_checkpoint.py"
    script.write_text("import sys\nprint('loading')\nsys.exit('CUDA out of memory')\n")
    home = tmp_path / "home"
    with pytest.raises(ToolError) as caught:
        build_tiny_engine(home, checkpoint, "fp16")
    log = home / "builds" / "tiny" / "fp16" / "build.log"
    assert str(caught.value) == (
        f"convert_checkpoint.py failed (exit 1): CUDA out of memory (all of it is in {log})"
    )
    assert "loading" in log.read_text()
    assert find_artefact(home, "tiny", "fp16") is None


def test_a_tool_that_ends_well_and_writes_nothing_is_found_out(
    tmp_path: Path, tools: FakeTools, checkpoint: Path
) -> None:
    (tools.examples / "models/core/llama/convert_checkpoint.py").write_text("")
    with pytest.raises(ConversionError, match=r"written no config.json, rank0.safetensors"):
        build_tiny_engine(tmp_path / "home", checkpoint, "fp16")


def wait_for(calls: Path, text: str) -> None:
    deadline = time.monotonic() + 30
    while not (calls.exists() and text in calls.read_text()):
        assert time.monotonic() < deadline, f"{text!r} did not appear"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


def run_and_kill(arguments: list[str], stage: str, tool: str | None, calls: Path) -> None:
    """Starts a build, kills it in the middle of a stage, and waits until its tool has died."""
    marker = f"in the middle of {tool or stage}"
    environment = {**os.environ, **({"FAKE_TRTLLM_STOP": tool} if tool else {})}
    module = [sys.executable, "-m", "tests.unit.build_engines.tensorrt_fakes", *arguments]
    process = subprocess.Popen([*module, *([] if tool else [stage])], cwd=PROJECT, env=environment)
    try:
        wait_for(calls, marker)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    lines = [line for line in calls.read_text().splitlines() if line.endswith(marker)]
    deadline = time.monotonic() + 10
    while is_alive(int(lines[-1].split()[0])):
        assert time.monotonic() < deadline, "the tool outlives the build"
        time.sleep(0.01)


def in_flight(home: Path) -> str:
    """The one stage or step that has begun and has not ended."""
    begun = {path.name.partition("-")[0] for path in home.glob("builds/tiny/*/*.partial")}
    begun |= {"assemble" for _ in home.glob("models/tiny/.*.building")}
    begun |= {"publish" for _ in home.glob("models/tiny/*/[0-9]*")}
    (found,) = begun
    return found


def test_killed_in_every_stage_it_resumes_to_the_same_artefact(
    tmp_path: Path, tools: FakeTools, checkpoint: Path, calls: Path
) -> None:
    untouched = build_tiny_engine(tmp_path / "untouched", checkpoint, "two_gpus")
    calls.unlink()
    home = tmp_path / "home"
    arguments = [str(home), str(checkpoint), "two_gpus"]
    for stage, tool in (
        ("fetch", None),
        ("tokenizer", None),
        ("convert", "convert_checkpoint.py"),
        ("build", "trtllm-build"),
        ("verify", None),
        ("assemble", None),
        ("publish", None),
    ):
        run_and_kill(arguments, stage, tool, calls)
        assert in_flight(home) == stage
        assert find_artefact(home, "tiny", "two_gpus") is None
    built = build_tiny_engine(home, checkpoint, "two_gpus")
    assert built.content_hash == untouched.content_hash
    assert built.manifest.files == untouched.manifest.files
    assert built.manifest.version == 1  # that which nothing chose yet
    # each tool once in vain, and once to the end
    started = [name for name in names_of(calls) if "middle" not in name]
    assert started == ["convert_checkpoint.py"] * 2 + ["trtllm-build"] * 2
    assert not list((home / "models" / "tiny").glob(".*.building"))


def test_a_plan_shows_memory_fit_and_how_several_gpus_serve_it(
    tmp_path: Path, checkpoint: Path
) -> None:
    spec = with_numbers(tiny_spec(checkpoint))
    order = order_for(spec, "two_gpus", tmp_path / "home")
    text = "\n".join(plan_lines(order, recipes={"tensorrt_llm": recipe()}))
    assert re.search(r"GPUs +2 \(tp 2, pp 1\)", text)
    assert re.search(r" trtllm-build( \\\n )? --checkpoint_dir ", text)
    assert re.search(r"KV cache of a token +2\.0 KiB", text)  # 2 layers, 2 of 4 heads of 128
    assert re.search(r"any +8 +no +4 heads", text)
    assert re.search(r"leader +mpirun .*-n 1 .*tritonserver .* : -n 1 ", text)
    assert re.search(r"orchestrator +TRTLLM_ORCHESTRATOR=1 ", text)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "model",
    ["qwen-7b-chat", "qwen-14b-chat", "gemma-7b", "gemma-2b", "llama-2-7b-chat", "chatglm3-6b"],
)
def test_the_six_models_are_planned_before_anything_is_fetched(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFLIGHT_CALIBRATION_DATA", str(write_texts(tmp_path / "texts")))
    monkeypatch.setenv("PATH", str(tmp_path))  # no tools here: the container's
    planner = replace(recipe(), gpus=list)
    spec = load_spec(model)
    for variant in spec.variants:
        order = order_for(spec, variant, tmp_path / "home")
        if order.variant.kind != "tensorrt_llm":
            continue
        plan = planner.plan(order)
        makes = plan.stages[1]
        is_plain = order.variant.kv_cache == "auto" and variant in PLAIN
        assert makes.name == ("convert" if is_plain else "quantize")
        assert [len(stage.commands) for stage in plan.stages] == [0, 1, 1, 0]
        assert all(IMAGE in command for stage in plan.stages for command in stage.commands)
        assert makes.required_bytes > 1e9
        titles = [section.title for section in planner.sections(order)]
        assert titles[:2] == ["Engine", "Memory of a GPU"]
        assert titles[2].startswith(f"What fits: {order.variant.quantization}, KV cache ")
        assert all(stage.takes for stage in plan.stages[1:3])
