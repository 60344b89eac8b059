"""What keys and limits cost a request: counted, for times mean nothing on a busy machine."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import pytest
from typer.testing import CliRunner

from frontend.bench import check as module
from frontend.bench.check import PARTS, Check, Cost, measure, opened
from frontend.bench.goals import check_goal
from frontend.cli import app
from frontend.limits.lmdb_table import LmdbTable
from frontend.limits.policy import Policy
from frontend.store.api_keys import ApiKeyStore


@pytest.fixture
async def ready(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Check, list[str]]]:
    monkeypatch.setattr(module, "NUM_KEYS", 4)
    with TemporaryDirectory(dir="/dev/shm") as folder:
        async with opened(Path(folder)) as ready:
            yield ready


def calls(frames: Counter[str]) -> None:
    def count(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            frames[frame.f_code.co_qualname] += 1

    sys.setprofile(count)


async def test_a_request_is_two_transactions_and_asks_no_database(
    ready: tuple[Check, list[str]],
) -> None:
    check, secrets = ready
    frames: Counter[str] = Counter()
    calls(frames)
    for secret in secrets * 5:
        await check.request(secret)
    sys.setprofile(None)
    num_requests = 5 * len(secrets)
    assert frames[LmdbTable.begin.__qualname__] == 2 * num_requests
    assert frames[ApiKeyStore.find.__qualname__] == 0
    assert frames[Policy._rules.__qualname__] == 0, "they are made once for a key and a model"
    assert sum(frames.values()) / num_requests < 125, frames.most_common(12)


async def test_eight_buckets_are_decided_and_told_of(ready: tuple[Check, list[str]]) -> None:
    check, (secret, *_) = ready
    headers = await check.request(secret)
    identity = await check.authenticator.identify((f"Bearer {secret}",), ())
    assert len(check.limits.policy.rules(identity, "", module.MODEL)) == 8
    assert len(headers) == 9


async def test_each_part_and_the_whole_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NUM_KEYS", 2)
    cost = await measure(num_rounds=3, num_requests=20)
    assert tuple(cost.parts_us) == PARTS
    assert all(part > 0 for part in cost.parts_us.values())
    assert cost.whole_us > max(cost.parts_us.values())


@pytest.mark.parametrize(("cost_us", "is_met"), [(60.0, True), (60.1, False)])
def test_the_command_fails_where_the_goal_is_missed(
    cost_us: float, is_met: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def measured() -> Cost:
        return Cost(whole_us=cost_us, parts_us=dict.fromkeys(PARTS, 1.5))

    monkeypatch.setattr(module, "measure", measured)
    path = tmp_path / "check.json"
    result = CliRunner().invoke(app, ["bench", "--check", "--json", str(path)])
    assert result.exit_code == (0 if is_met else 1)
    assert ("pass" if is_met else "fail") in result.output
    assert "acquire" in result.output
    written = json.loads(path.read_text())
    assert written["check"]["whole_us"] == cost_us
    assert written["goals"][0]["is_met"] is is_met
    assert check_goal(cost_us).is_met is is_met
