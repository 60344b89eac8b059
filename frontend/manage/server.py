"""The running server of a home folder, asked over its HTTP API."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

TIMEOUT_S = 10.0
LOAD_TIMEOUT_S = 3600.0


class ServerError(Exception):
    """The server cannot do it, or there is none; one line says why and what to do."""

    exit_code = 1


class NoServerError(ServerError):
    """Nothing answers there."""


def write_server_file(home: Path, url: str) -> Path:
    """Notes where the server of a home folder listens; whoever writes it deletes it at its end."""
    path = _server_file(home)
    new = path.with_suffix(f".{os.getpid()}.new")
    new.write_text(json.dumps({"url": url}))
    new.replace(path)
    return path


def find_server(home: Path, url: str | None, api_key: str | None) -> Server | None:
    """The server at `url`, else the one that runs from `home`; None: there is no such one."""
    if url is not None:
        return Server(url=url.rstrip("/"), api_key=api_key)
    try:
        noted = json.loads(_server_file(home).read_text())["url"]
    except (OSError, ValueError, KeyError):
        return None
    server = Server(url=str(noted), api_key=api_key)
    return server if server.answers() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server. Every method raises ServerError."""

    url: str
    api_key: str | None = None

    def answers(self) -> bool:
        """Whether it is there; what was killed has left its note behind."""
        try:
            self._ask("GET", "/health", TIMEOUT_S)
        except NoServerError:
            return False
        except ServerError:  # it answers, if only that it is not well
            return True
        return True

    def models(self) -> dict[str, dict[str, Any]]:
        """What GET /api/v1/models says, by name."""
        found = self._ask("GET", "/api/v1/models", TIMEOUT_S).get("models")
        if not isinstance(found, list):
            raise ServerError(f"what answers at {self.url} is no Inflight server: check --url")
        return {model["name"]: model for model in found}

    def load(self, name: str, variant: str | None, *, prefer_gpu: bool) -> dict[str, Any]:
        """Load a model; returns its entry."""
        body = {"quantization": variant, "prefer_gpu": prefer_gpu}
        path = f"/api/v1/models/{quote(name, safe='')}/load"
        return self._ask("POST", path, LOAD_TIMEOUT_S, body)

    def unload(self, name: str) -> dict[str, Any]:
        """Unload a model; returns its entry."""
        return self._ask("POST", f"/api/v1/models/{quote(name, safe='')}/unload", LOAD_TIMEOUT_S)

    def _ask(self, method: str, path: str, timeout_s: float, body: object = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        content = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(  # noqa: S310, the user's own server
                f"{self.url}{path}", data=content, headers=headers, method=method
            )
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as exc:
            raise ServerError(_reason(exc)) from exc
        except json.JSONDecodeError as exc:
            raise ServerError(
                f"what answers at {self.url} is no Inflight server: check --url"
            ) from exc
        except (OSError, ValueError) as exc:
            reason = getattr(exc, "reason", exc)
            raise NoServerError(f"no server answers at {self.url} ({reason})") from exc


def _reason(exc: urllib.error.HTTPError) -> str:
    try:
        error = json.load(exc)["error"]
        text = f"{error['message']} {error.get('details') or ''}".strip()
    except (ValueError, KeyError, TypeError):
        text = f"the server answers {exc.code} {exc.reason}"
    return f"{text} (give a key in INFLIGHT_API_KEY)" if exc.code == 401 else text


def _server_file(home: Path) -> Path:
    return home / "state" / "server.json"
