"""Downloads a checkpoint from the Hugging Face hub, and goes on with what a killed one has left.

The token and the hub's address are huggingface_hub's own: HF_TOKEN (or its login) and HF_ENDPOINT.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from build_engines.artefacts.artefact import hash_file
from build_engines.checkpoints.needed_files import GGUF_SUFFIX, Found, Report, needed_names
from build_engines.checkpoints.shards import shard_names
from build_engines.errors import DiskSpaceError, SourceError
from build_engines.lock import build_lock
from build_engines.spec import HubSource
from build_engines.stages import own_bytes

PART_SUFFIX = ".part"


@dataclass(frozen=True, slots=True, kw_only=True)
class _RemoteFile:
    name: str
    size_bytes: int
    sha256: str | None  # of large files; small ones have a git hash


def downloads_dir(home: Path) -> Path:
    """What was downloaded: a folder a repository, in it one a commit. The variants share it."""
    return home / "downloads"


def downloaded_bytes(source: HubSource, home: Path) -> int:
    """What of a repository has arrived."""
    folder = downloads_dir(home) / source.hf.replace("/", "--")
    return own_bytes(folder) if folder.exists() else 0


def download(source: HubSource, home: Path, report: Report) -> dict[str, Found]:
    """The needed files of a repository, on this machine.

    Each is compared with the size, and if it is a large one the SHA-256, that the hub tells.
    Raises SourceError, which says what to do, and DiskSpaceError.
    """
    with _hub_errors(source):
        commit, files = _list_files(source)
        root = downloads_dir(home) / source.hf.replace("/", "--") / commit
        # the lock waits for another variant's build that downloads the same
        with build_lock(home, "download", f"{source.hf.replace('/', '--')}-{commit}", _silent):
            _check_room(files, root, home)
            return _download(source, commit, files, root, report)


def read_config(source: HubSource) -> dict[str, Any]:
    """A repository's config.json, without downloading the model. Raises SourceError."""
    with _hub_errors(source):
        from huggingface_hub import get_session, hf_hub_url
        from huggingface_hub.utils._headers import build_hf_headers
        from huggingface_hub.utils._http import hf_raise_for_status

        url = hf_hub_url(source.hf, "config.json", revision=source.revision)
        response = get_session().get(url, headers=build_hf_headers(), follow_redirects=True)
        hf_raise_for_status(response)
        try:
            return msgspec.json.decode(response.content, type=dict[str, Any])
        except msgspec.DecodeError as exc:
            raise SourceError(f"{source.hf}: config.json: {exc}") from exc


def _list_files(source: HubSource) -> tuple[str, list[_RemoteFile]]:
    """The commit that the revision stands for, and what is needed of it."""
    from huggingface_hub import HfApi

    info = HfApi().model_info(source.hf, revision=source.revision, files_metadata=True)
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
    names = _choose(source, list(siblings))
    files = [
        _RemoteFile(
            name=name,
            size_bytes=siblings[name].size or 0,
            sha256=lfs.sha256 if (lfs := siblings[name].lfs) else None,
        )
        for name in names
    ]
    return str(info.sha), files


def _choose(source: HubSource, names: list[str]) -> list[str]:
    if source.file is not None:
        wanted = shard_names(source.file)
        if missing := [name for name in wanted if name not in names]:
            raise SourceError(f"{source.hf} has no file {missing[0]}: choose {_ggufs(names)}")
        return wanted
    if "config.json" not in names:
        raise SourceError(
            f"{source.hf} has no config.json: name one of its GGUF files as "
            f"{source.hf}/FILE.gguf, there are {_ggufs(names)}"
        )
    return needed_names(names, with_code=source.with_code)


def _download(
    source: HubSource, commit: str, files: list[_RemoteFile], root: Path, report: Report
) -> dict[str, Found]:
    total = sum(file.size_bytes for file in files)
    done = 0
    found: dict[str, Found] = {}
    for file in files:
        path = root / file.name
        if not path.exists():
            _fetch_file(source.hf, commit, file, path, _bar_class(report, done, total))
        found[file.name] = Found(_checked(file, path), file.sha256)
        done += file.size_bytes
        report(done, total)
    return found


def _fetch_file(hf: str, commit: str, file: _RemoteFile, path: Path, bar: type[Any]) -> None:
    """By huggingface_hub's parts: its hf_hub_download begins anew after a kill."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    url = hf_hub_url(hf, file.name, revision=commit)
    location = get_hf_file_metadata(url).location
    headers = build_hf_headers()
    if urlsplit(location).netloc != urlsplit(url).netloc:
        headers.pop("authorization", None)  # the address of a content network is signed itself
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + PART_SUFFIX)
    with part.open("ab") as target:
        http_get(
            location,
            target,
            resume_size=target.tell(),
            headers=headers,
            expected_size=file.size_bytes,
            tqdm_class=bar,
        )
    part.rename(path)


def _checked(file: _RemoteFile, path: Path) -> Path:
    """Deletes what is not what the hub has, so that the next try downloads it again."""
    is_whole = path.stat().st_size == file.size_bytes
    if is_whole and (file.sha256 is None or hash_file(path) == file.sha256):
        return path
    path.unlink()
    raise SourceError(f"{file.name} arrived damaged and was deleted: build again to download it")


def _check_room(files: list[_RemoteFile], root: Path, home: Path) -> None:
    missing = sum(file.size_bytes for file in files if not (root / file.name).exists())
    there = sum(path.stat().st_size for path in root.rglob(f"*{PART_SUFFIX}"))
    free = shutil.disk_usage(home).free
    if free < missing - there:
        raise DiskSpaceError(
            f"the download needs {(missing - there) / 1e6:.0f} MB in {home}, {free / 1e6:.0f} MB "
            "are free: make room or choose another directory by --home"
        )


def _bar_class(report: Report, before: int, total: int) -> type[Any]:
    """What huggingface_hub takes for its progress bar, telling `report` instead."""

    class Bar:
        def __init__(self, *args: object, initial: int = 0, **kwargs: object) -> None:
            self.n = initial
            report(before + self.n, total)

        def update(self, num_bytes: float | None = 1) -> None:
            self.n += int(num_bytes or 0)
            report(before + self.n, total)

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *exc: object) -> None:
            self.close()

        def close(self) -> None:
            """There is nothing to close."""

    return Bar


@contextmanager
def _hub_errors(source: HubSource) -> Iterator[None]:
    """Raises SourceError for what the hub or the network says, with what to do about it."""
    from httpx2 import HTTPError  # what huggingface_hub's own are made of
    from huggingface_hub import constants, errors

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries are no news
    hub = constants.ENDPOINT
    try:
        yield
    except errors.HFValidationError as exc:
        raise SourceError(
            f"{source.hf} is not the name of a repository: give OWNER/NAME, a folder or a GGUF file"
        ) from exc
    except errors.GatedRepoError as exc:
        raise SourceError(
            f"{source.hf} is gated: accept its terms at {hub}/{source.hf} and set HF_TOKEN to a "
            "token of that account"
        ) from exc
    except errors.RepositoryNotFoundError as exc:
        raise SourceError(
            f"the hub shows no repository {source.hf}: check its name; if it is private, set "
            "HF_TOKEN to a token that may read it"
        ) from exc
    except errors.RevisionNotFoundError as exc:
        raise SourceError(
            f"{source.hf} has no revision {source.revision}: leave it out or name another"
        ) from exc
    except errors.EntryNotFoundError as exc:
        raise SourceError(
            f"{source.hf} has no config.json: name one of its GGUF files as {source.hf}/FILE.gguf"
        ) from exc
    except errors.HfHubHTTPError as exc:
        raise SourceError(_http_reason(source, exc.response.status_code)) from exc
    except (HTTPError, errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as exc:
        offline = isinstance(exc, errors.OfflineModeIsEnabled)
        reason = "HF_HUB_OFFLINE is set" if offline else "check the network and HF_ENDPOINT"
        raise SourceError(
            f"cannot download {source.hf} from {hub}: {reason}, then build again (what has arrived "
            "is kept), or give a downloaded folder by --checkpoint"
        ) from exc
    except OSError as exc:
        if exc.errno is not None:
            raise  # this machine's, not the hub's
        raise SourceError(f"{source.hf} did not arrive whole: build again to go on") from exc


def _http_reason(source: HubSource, status: int) -> str:
    if status == 401:
        return (
            f"the hub does not take the token for {source.hf}: set HF_TOKEN to a valid one, or "
            "unset it for a public model"
        )
    if status == 403:
        return f"the token may not read {source.hf}: give it that right or set another HF_TOKEN"
    return f"the hub answers {status} for {source.hf}: build again later"


def _ggufs(names: list[str]) -> str:
    return ", ".join(name for name in names if name.endswith(GGUF_SUFFIX)) or "no GGUF files"


def _silent() -> None:
    """Waiting for the same download is part of downloading."""
