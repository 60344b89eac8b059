from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from frontend.processes import settings_dict
from frontend.settings import Settings, SettingsError, load_settings


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def write_config(home: Path, text: str) -> None:
    (home / "config.toml").write_text(text)


def test_defaults(home: Path) -> None:
    settings = load_settings({"home": home}, {})
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8000, 1)
    assert settings.triton_address == "127.0.0.1:8001"
    assert settings.triton_metrics_address == "127.0.0.1:8002"


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(home: Path) -> None:
    assert load_settings({"home": home}, {}).port == 8000
    write_config(home, "port = 1001\nworkers = 2\n")
    assert load_settings({"home": home}, {}).port == 1001
    environ = {"INFLIGHT_PORT": "1002"}
    assert load_settings({"home": home}, environ).port == 1002
    assert load_settings({"home": home, "port": 1003}, environ).port == 1003
    assert load_settings({"home": home, "port": None}, environ).port == 1002
    assert load_settings({"home": home}, environ).workers == 2


def test_the_file_is_that_of_the_home_that_is_asked_for(home: Path) -> None:
    write_config(home, "port = 1001\n")
    assert load_settings({}, {"INFLIGHT_HOME": str(home)}).port == 1001
    assert load_settings({"home": home / "other"}, {"INFLIGHT_HOME": str(home)}).port == 8000


def test_the_process_environment_is_read_when_none_is_given(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFLIGHT_PORT", "1234")
    assert load_settings({"home": home}).port == 1234


def test_an_empty_variable_is_none_at_all(home: Path) -> None:
    assert load_settings({"home": home}, {"INFLIGHT_PORT": ""}).port == 8000
    assert load_settings({"home": home}, {"INFLIGHT_TRITON_URL": ""}).triton_url is None


@pytest.mark.parametrize("name", [field.name for field in fields(Settings)])
def test_every_setting_can_be_given_as_a_variable(home: Path, name: str) -> None:
    values = {
        "host": "::1", "port": "1", "workers": "2", "model": "m", "home": str(home / "x"),
        "triton_url": "t:1", "triton_metrics_url": "t:2", "log_level": "debug",
        "log_format": "json", "cors_origins": "https://a.example", "request_chat_template": "true",
        "gpus": "a=0,1 b=2", "authentication": "on", "database_url": "postgresql://u:p@h/d",
        "jwt_issuers": str(home / "i.toml"), "listen_without_authentication": "true",
        "limits_file": str(home / "l.toml"), "limits_when_unavailable": "local",
    }  # fmt: skip
    value = values.get(name, str(2**21) if name.endswith("bytes") else "7")
    given = {"INFLIGHT_HOME": str(home), f"INFLIGHT_{name.upper()}": value}
    if name == "jwt_issuers":
        given["INFLIGHT_AUTHENTICATION"] = "on"
    settings = load_settings({}, given)
    assert str(getattr(settings, name)).removesuffix(".0").lower() == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "http"),
        ("port", "65536"),
        ("port", "-1"),
        ("port", "80.5"),
        ("workers", "0"),
        ("workers", "65"),
        ("model", " "),
        ("triton_url", "localhost"),
        ("triton_url", ":8001"),
        ("triton_url", "host:port"),
        ("triton_metrics_url", "host"),
        ("triton_grpc_port", "0"),
        ("triton_metrics_port", "70000"),
        ("triton_http_port", "-5"),
        ("kv_cache_bytes", "10"),
        ("max_num_sequences", "0"),
        ("max_queue_size", "0"),
        ("num_threads", "-1"),
        ("limits_when_unavailable", "open"),
        ("num_frontends", "0"),
        ("trusted_proxies", "-1"),
        ("gpus", "llama"),
        ("gpus", "llama=0 1"),
        ("max_body_bytes", "0"),
        ("request_timeout_s", "0"),
        ("request_timeout_s", "inf"),
        ("request_timeout_s", "nan"),
        ("keep_alive_interval_s", "0"),
        ("keep_alive_interval_s", "-1"),
        ("keep_alive_interval_s", "nan"),
        ("drain_timeout_s", "-1"),
        ("log_level", "loud"),
        ("authentication", "maybe"),
    ],
)
def test_a_bad_value_names_the_setting(home: Path, name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name) as failure:
        load_settings({"home": home}, {f"INFLIGHT_{name.upper()}": value})
    assert value.strip() in str(failure.value)


def test_a_bad_variable_is_named_as_it_is_written(home: Path) -> None:
    with pytest.raises(SettingsError, match="INFLIGHT_PORT"):
        load_settings({"home": home}, {"INFLIGHT_PORT": "http"})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("prot = 1", "prot"),
        ("port = 'http'", "port"),
        ("port = 80.5", "port"),
        ("port = true", "port"),
        ("workers = [1]", "workers"),
        ("model = 5", "model"),
        ("model = {a = 1}", "model"),
        ("request_timeout_s = '1'", "request_timeout_s"),
        ("home = 5", "home"),
        ("port = ", "config.toml"),
        ("\ufffe\0", "config.toml"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(home: Path, text: str, named: str) -> None:
    write_config(home, text)
    with pytest.raises(SettingsError, match=named) as failure:
        load_settings({"home": home}, {})
    assert str(home / "config.toml") in str(failure.value)


def test_a_file_that_is_no_utf8_is_named(home: Path) -> None:
    (home / "config.toml").write_bytes(b"model = '\xff'")
    with pytest.raises(SettingsError, match=r"config\.toml"):
        load_settings({"home": home}, {})


def test_the_file_can_give_numbers_as_toml_does(home: Path) -> None:
    write_config(home, "request_timeout_s = 5\nport = 99\nmodel = 'm'\n")
    settings = load_settings({"home": home}, {})
    assert (settings.request_timeout_s, settings.port, settings.model) == (5.0, 99, "m")


def test_the_home_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings(home=Path("~/x")).home == tmp_path / "x"
    monkeypatch.chdir(tmp_path)
    assert Settings(home=Path("y")).home == tmp_path / "y"


def test_a_triton_elsewhere_has_its_metrics_there_too(home: Path) -> None:
    settings = Settings(home=home, triton_url="gpu:9001")
    assert settings.triton_address == "gpu:9001"
    assert settings.triton_metrics_address == "gpu:8002"
    settings = Settings(home=home, triton_url="gpu:9001", triton_metrics_url="gpu:9002")
    assert settings.triton_metrics_address == "gpu:9002"


def test_settings_cannot_be_changed(home: Path) -> None:
    with pytest.raises(FrozenInstanceError):
        Settings(home=home).port = 1  # type: ignore[misc]


def test_a_worker_gets_the_same_settings(home: Path) -> None:
    settings = Settings(home=home, port=99, triton_url="gpu:9001")
    assert Settings(**settings_dict(settings)) == settings  # type: ignore[arg-type]


@pytest.mark.parametrize("origins", ["*", "https://a.example", "http://a:1 , https://b.example"])
def test_origins_of_pages_are_read_as_browsers_write_them(home: Path, origins: str) -> None:
    settings = load_settings({"home": home, "cors_origins": origins})
    assert settings.allowed_origins == {origin.strip() for origin in origins.split(",")}
    assert settings.allows_any_origin == (origins == "*")


@pytest.mark.parametrize(
    "origins", ["a.example", "https://a.example/path", "https://a, b", "https:"]
)
def test_what_no_browser_sends_as_an_origin_stops_the_start(home: Path, origins: str) -> None:
    with pytest.raises(SettingsError, match="cors_origins"):
        load_settings({"home": home, "cors_origins": origins})


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ({}, frozenset()),
        ({"host": "::1", "allowed_hosts": "A.example, b"}, {"a.example", "b"}),
        ({"allowed_hosts": "*"}, None),
        ({"authentication": "on"}, None),
        ({"host": "0.0.0.0"}, None),
        ({"host": "0.0.0.0", "allowed_hosts": "a.example"}, {"a.example"}),
    ],
)
def test_names_of_hosts_are_looked_at_where_no_key_protects_this_machine(
    home: Path, given: dict[str, str], known: object
) -> None:
    assert load_settings({"home": home, **given}).known_hosts == known


@pytest.mark.parametrize("names", ["http://a", "a:8000", "a b"])
def test_what_is_no_name_of_a_host_stops_the_start(home: Path, names: str) -> None:
    with pytest.raises(SettingsError, match="allowed_hosts"):
        load_settings({"home": home, "allowed_hosts": names})


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:secret@h/d",
        "postgresql:secret",
        "secret",
        "sqlite:///secret",
        "postgresql://u:a@secret@h/d",  # whose host would be secret@h, or whose name d
        "postgresql://u:a/secret@h/d",
        "postgresql://u:secret@h:port/d",
        "postgresql://u:secret@h",
    ],
)
def test_a_bad_database_is_named_without_its_password(home: Path, url: str) -> None:
    with pytest.raises(SettingsError, match="database_url") as failure:
        load_settings({"home": home}, {"INFLIGHT_DATABASE_URL": url})
    assert "secret" not in str(failure.value)
    assert "secret" not in repr(Settings(home=home, database_url="postgresql://u:secret@h/d"))


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:a%40b%2Fc@db.example.com:5432/inflight",
        "postgresql://u@[::1]:5432/inflight?sslmode=require",
        "postgresql:///inflight?host=/run/postgresql",
    ],
)
def test_a_database_is_named_as_everywhere(home: Path, url: str) -> None:
    assert load_settings({"home": home, "database_url": url}).database_address == url


def test_issuers_without_authentication_stop_the_start(home: Path) -> None:
    with pytest.raises(SettingsError, match="jwt_issuers"):
        Settings(home=home, jwt_issuers=home / "issuers.toml")
