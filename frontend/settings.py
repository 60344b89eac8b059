"""All settings, in one frozen object. Flags win over INFLIGHT_* variables, those over the file
config.toml in the home folder, that over the defaults here.

Nothing else reads the environment or that file.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PREFIX = "INFLIGHT_"
# No @ or / but those that divide it: one in a password would make another address of its rest,
# which errors name.
_POSTGRES = re.compile(
    r"postgres(ql)?://([^\s@/]*@)?(\[[^\s\]]*\]|[^\s@/:]*)(:\d+)?/[^\s@/?]+(\?\S*)?"
)
_HOST_NAME = re.compile(r"[^\s/:]+")
_PLACEMENT = re.compile(r"\s*([^\s=]+=\d+(,\d+)*\s*)*")


class SettingsError(ValueError):
    """A setting has a value that cannot be used; the message names it and where it came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How this installation serves. Sizes in bytes, times in seconds."""

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1  # Sanic processes
    model: str = "smollm2-135m-instruct"  # what "default" and a missing `model` mean
    home: Path = Path("~/.local/share/inflight")

    triton_url: str | None = None  # host:port of a Triton's gRPC; None: start the embedded one
    triton_metrics_url: str | None = None  # of that Triton; None: same host, port 8002
    triton_binary: Path | None = None  # the tritonserver to start; None: the one that is found
    gpus: str = ""  # of models that share a Triton with others: "llama=0,1 qwen=2"; rest: the first
    triton_grpc_port: int = 8001  # the embedded Triton listens on loopback only
    triton_metrics_port: int = 8002
    triton_http_port: int = 8003

    kv_cache_bytes: int = 512 * 2**20  # of each model on the CPU engine
    max_num_sequences: int = 64  # running at once in the CPU engine's batch
    max_queue_size: int = 1024  # requests waiting in the CPU engine; more get 503
    num_threads: int = 0  # of the CPU engine; 0: one a core

    request_chat_template: bool = False  # whether requests may bring a template of their own

    authentication: str = "off"  # "on": all but health and the description want a key or a JWT
    database_url: str = field(default="", repr=False)  # PostgreSQL's; empty: SQLite in the home
    jwt_issuers: Path | None = None  # a file, see access/issuers.py; None: no JWT is taken
    listen_without_authentication: bool = False  # elsewhere than on this machine
    limits_url: str = field(default="", repr=False)  # redis://...; empty: this machine's memory
    limits_when_unavailable: str = "closed"  # "local": each machine then gives a share of them
    num_frontends: int = 1  # machines that share a limits_url
    trusted_proxies: int = 0  # in front of this server; each adds an address to X-Forwarded-For
    limits_file: Path | None = None  # see limits/policy_file.py; None: limits.toml in the home

    max_body_bytes: int = 16 * 2**20
    request_timeout_s: float = 600.0  # the longest silence of a response
    keep_alive_interval_s: float = 10.0  # between the SSE comments of a quiet stream
    drain_timeout_s: float = 30.0  # what running requests get when the server stops
    cors_origins: str = ""  # of web pages that may use this server, comma between; "*": of all
    # names by which this machine is asked, comma between, beside its own; "*": any
    allowed_hosts: str = ""
    response_retention_days: float = 30.0  # how long /v1/responses keeps what it stores
    usage_retention_days: float = 90.0  # how long each request's row is kept; sums stay for good
    log_level: str = "info"
    log_format: str = "text"  # or "json"

    def __post_init__(self) -> None:
        object.__setattr__(self, "home", Path(self.home).expanduser().absolute())
        for name in ("jwt_issuers", "limits_file"):
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, Path(path).expanduser().absolute())
        self._check("port", 0 <= self.port < 65536, "must be a port number")
        for name in ("triton_grpc_port", "triton_metrics_port", "triton_http_port"):
            self._check(name, 0 < getattr(self, name) < 65536, "must be a port number")
        self._check("workers", 1 <= self.workers <= 64, "must be between 1 and 64")
        self._check("max_body_bytes", self.max_body_bytes > 0, "must be positive")
        self._check("max_num_sequences", 1 <= self.max_num_sequences <= 1024, "must be 1 to 1024")
        self._check("max_queue_size", self.max_queue_size >= 1, "must be at least 1")
        self._check("kv_cache_bytes", self.kv_cache_bytes >= 2**20, "must be at least 1 MiB")
        levels = ("debug", "info", "warning", "error")
        self._check("log_level", self.log_level in levels, f"must be one of {', '.join(levels)}")
        self._check("log_format", self.log_format in ("text", "json"), "must be text or json")
        self._check("cors_origins", self._are_origins(), "must be * or URLs as https://example.com")
        are_names = all(map(_HOST_NAME.fullmatch, _listed(self.allowed_hosts)))
        self._check("allowed_hosts", are_names, "must be * or names as gpu.example.com")
        self._check("model", bool(self.model.strip()), "must not be empty")
        self._check("gpus", _PLACEMENT.fullmatch(self.gpus) is not None, "must be NAME=0,1 NAME=2")
        self._check("num_threads", self.num_threads >= 0, "must be 0 or more")
        self._check("request_timeout_s", 1 <= self.request_timeout_s <= 86400, "must be 1 to 86400")
        self._check(
            "keep_alive_interval_s", 0 < self.keep_alive_interval_s < inf, "must be positive"
        )
        self._check("drain_timeout_s", 0 <= self.drain_timeout_s < inf, "must be 0 or more")
        for name in ("response_retention_days", "usage_retention_days"):
            self._check(name, 0 < getattr(self, name) < inf, "must be positive")
        self._check("authentication", self.authentication in ("on", "off"), "must be on or off")
        if self.database_url and not _POSTGRES.fullmatch(self.database_url):
            # without its value, which has a password in it
            raise SettingsError(
                "setting 'database_url' must be postgresql://USER:PASSWORD@HOST/NAME "
                "(in the password %40 for @, %2F for /)"
            )
        if self.jwt_issuers is not None and not self.is_authenticated:
            raise SettingsError("setting 'jwt_issuers' needs the setting 'authentication' on")
        modes = ("closed", "local")
        is_mode = self.limits_when_unavailable in modes
        self._check("limits_when_unavailable", is_mode, f"must be {' or '.join(modes)}")
        self._check("num_frontends", self.num_frontends >= 1, "must be at least 1")
        self._check("trusted_proxies", self.trusted_proxies >= 0, "must be 0 or more")
        for name in ("triton_url", "triton_metrics_url"):
            self._check(name, _is_address(getattr(self, name)), "must be HOST:PORT")

    def _check(self, name: str, is_good: bool, problem: str) -> None:
        if not is_good:
            raise SettingsError(f"setting {name!r} {problem}, not {getattr(self, name)!r}")

    def _are_origins(self) -> bool:
        """Whether they are what browsers send: a scheme, a host, no path."""
        parts = [urlsplit(origin) for origin in self.allowed_origins - {"*"}]
        return all(one.scheme and one.netloc and not one.path for one in parts)

    @property
    def allowed_origins(self) -> frozenset[str]:
        return _listed(self.cors_origins)

    @property
    def allows_any_origin(self) -> bool:
        return "*" in self.allowed_origins

    @property
    def known_hosts(self) -> frozenset[str] | None:
        """Names, in small letters, of which one must stand in `Host` unless it is an address or a
        name of this machine's own; None: whatever stands there. Who has to send a key needs none.
        """
        names = _listed(self.allowed_hosts.lower())
        is_looked_at = is_loopback(self.host) or bool(names)
        return None if self.is_authenticated or "*" in names or not is_looked_at else names

    @property
    def is_authenticated(self) -> bool:
        """Whether a request has to say who sends it."""
        return self.authentication == "on"

    @property
    def database_address(self) -> str:
        """URL of the database that all workers share."""
        return self.database_url or f"sqlite:///{self.home / 'state' / 'inflight.db'}"

    @property
    def triton_address(self) -> str:
        """host:port of the Triton that serves, embedded or not."""
        return self.triton_url or f"127.0.0.1:{self.triton_grpc_port}"

    @property
    def triton_metrics_address(self) -> str:
        """host:port where that Triton serves its metrics."""
        if self.triton_metrics_url:
            return self.triton_metrics_url
        if self.triton_url:
            return f"{self.triton_url.rpartition(':')[0]}:8002"
        return f"127.0.0.1:{self.triton_metrics_port}"


def _listed(text: str) -> frozenset[str]:
    return frozenset(one.strip() for one in text.split(",") if one.strip())


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_address(address: str | None) -> bool:
    host, _, port = (address or "").rpartition(":")
    return address is None or (bool(host) and port.isdecimal())


def load_settings(
    flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Merge flags (None: not given), environment, file and defaults.

    Raises:
        SettingsError: a value cannot be used, or a name is unknown.
    """
    environ = os.environ if environ is None else environ
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    from_env = _from_env(environ)
    home = given.get("home", from_env.get("home", Settings.__dataclass_fields__["home"].default))
    from_file = _from_file(Path(str(home)).expanduser() / "config.toml")
    return Settings(**{**from_file, **from_env, **given})


def _from_env(environ: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: _convert(name, environ[PREFIX + name.upper()], PREFIX + name.upper())
        for name in _TYPES
        if environ.get(PREFIX + name.upper())
    }


def _from_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except ValueError as exc:  # no TOML, or no UTF-8
        raise SettingsError(f"{path}: {exc}") from exc
    for name, value in table.items():
        if name not in _TYPES:
            raise SettingsError(f"{path}: unknown setting {name!r}")
        if not _has_type_of(name, value):
            raise SettingsError(f"{path}: {name} cannot be {value!r}")
    return {name: _TYPES[name](value) for name, value in table.items()}


def _has_type_of(name: str, value: object) -> bool:
    """Whether a TOML value is of a setting's type; nothing is rounded or made a text."""
    if isinstance(value, bool) or _TYPES[name] is _to_bool:
        return isinstance(value, bool) and _TYPES[name] is _to_bool
    wanted: dict[object, tuple[type, ...]] = {int: (int,), float: (int, float)}
    return isinstance(value, wanted.get(_TYPES[name], (str,)))


def _convert(name: str, value: str, source: str) -> object:
    try:
        return _TYPES[name](value)
    except ValueError as exc:
        raise SettingsError(f"{source}: {name} cannot be {value!r}") from exc


def _to_bool(value: object) -> bool:
    """Raises ValueError for a text that is neither yes nor no."""
    if isinstance(value, bool):
        return value
    try:
        return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[
            str(value).strip().lower()
        ]
    except KeyError as exc:
        raise ValueError(value) from exc


def _converter(annotation: str) -> Callable[[Any], object]:
    converters: dict[str, Callable[[Any], object]] = {
        "int": int,
        "float": float,
        "Path": Path,
        "Path | None": Path,
        "bool": _to_bool,
    }
    return converters.get(annotation, str)


_TYPES = {field.name: _converter(str(field.type)) for field in fields(Settings)}
