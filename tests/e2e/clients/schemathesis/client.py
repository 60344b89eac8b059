"""Run schemathesis on a server's own description; writes what it did as JSON.

Arguments: the server's URL, the most tokens to ask for, models by path as JSON; then options of
`schemathesis run`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SEED = 20251122
HERE = Path(__file__).parent


def main() -> None:
    url, max_tokens, models, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [
            sys.executable, "-m", "schemathesis.cli",
            "--config-file", str(HERE / "schemathesis.toml"), "--no-color",
            "run", f"{url}/openapi.json", "--seed", str(SEED), "--generation-database", "none",
            "--no-shrink", *options,
            "--report", "json", "--report-json-path", str(report),
        ]  # fmt: skip
        environment = {
            **os.environ,
            "SCHEMATHESIS_HOOKS": str(HERE / "hooks.py"),
            "FUZZ_MAX_TOKENS": max_tokens,
            "FUZZ_MODELS": models,
        }
        # In a folder that goes away: a run must not remember what another one found.
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        found = {"exit_code": done.returncode, "output": done.stdout + done.stderr}
        found["report"] = json.loads(report.read_text()) if report.exists() else {}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
