"""A process that serves as a worker does, with a fake engine.

python -m tests.fakes.worker HOME FD [SETTINGS [SECONDS]]: SETTINGS are other settings, in JSON. The
engine answers "abcd", a letter every 0.25 s, or in so many SECONDS.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

from frontend.app import create_app
from frontend.settings import Settings
from tests.fakes.engine import FakeEngine, FakeRepository, Script, one_token_a_step
from tests.fakes.tokenizers import byte_level_tokenizer


def main(home: str, socket_fd: str, other_settings: str = "{}", every_s: str = "0.25") -> None:
    letters = byte_level_tokenizer().encode("abcd").ids
    engine = FakeEngine(Script(steps=one_token_a_step(letters, every_s=float(every_s))))
    engine.load("tiny")
    settings = Settings(home=Path(home), model="tiny", **json.loads(other_settings))
    app = create_app(settings, engine=engine, repository=FakeRepository(engine))
    app.run(sock=socket.socket(fileno=int(socket_fd)), single_process=True, motd=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
