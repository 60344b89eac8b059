"""`inflight bench` against the running stack."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.e2e.stack import Stack

ROOT = Path(__file__).parents[2]


def test_the_benchmark_measures_a_running_server(stack: Stack, home: Path, tmp_path: Path) -> None:
    figures, picture = tmp_path / "figures.json", tmp_path / "figures.svg"
    command = [sys.executable, "-m", "frontend", "bench", "--url", stack.url, "--home", str(home)]
    command += ["--engines", "stack", "--streams", "1,4", "--repeats", "1", "--max-tokens", "16"]
    command += ["--json", str(figures), "--plot", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(figures.read_text())
    summary = measured["summary"]["stack"]
    assert summary.keys() == {"1", "4"}
    for num_streams, one in summary.items():
        assert one["errors"] == []
        assert one["num_tokens"] == 16 * max(4, int(num_streams))
        assert one["num_prompt_tokens"] == 45
        assert 0 < one["ttft_s"]["p50"] <= one["ttft_s"]["p99"]
        assert one["cpu_s"].keys() >= {"frontend", "tritonserver", "python stub", "load client"}
        assert one["cpu_s"]["python stub"] > 0
    assert measured["prefix_cache"]["num_prompt_tokens"] == 400
    goals = {goal["name"]: goal["is_met"] for goal in measured["goals"]}
    assert None in goals.values()  # the other engines were not measured
    assert picture.read_text().startswith("<svg")
    assert "not measured" in done.stdout


def test_the_benchmark_measures_another_checkout_in_turns(
    stack: Stack, home: Path, tmp_path: Path
) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "frontend", "bench", "--url", stack.url, "--home", str(home)]
    command += ["--engines", "stack", "--before", str(ROOT), "--streams", "2", "--repeats", "1"]
    command += ["--max-tokens", "8", "--json", str(figures)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(figures.read_text())
    assert {name: one["2"]["errors"] for name, one in measured["summary"].items()} == {
        "stack": [],
        "before": [],
    }
    goals = {goal["name"]: goal["value"] for goal in measured["goals"]}
    assert goals["stack / stack before at 2 streams"] > 0
