"""Download a public data set in parallel, with every file verified against its SHA-256.

Transfers go through pooch: a file gets its name only once its hash is right, a broken connection
is retried, and a file that is already in place is not transferred again, so that an interrupted
download continues when the command is repeated.
"""

from __future__ import annotations

import re
import shutil
import threading
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pooch
import requests

from einthoven.errors import DownloadError
from einthoven.files import file_sha256, write_text
from einthoven.progress import Progress

SUMS = "SHA256SUMS.txt"

_LINE = re.compile(r"([0-9a-fA-F]{64})[ \t]+\*?(.+)")
_RETRIES = 4


@dataclass(frozen=True)
class Source:
    """A public data set: its address, the folders of each sampling rate, and typical file sizes.

    `sizes` gives the bytes of a file by the first folder of its path and its suffix. It serves to
    detect a disk that is too small before the transfer begins.
    """

    url: str
    folders: dict[str, tuple[str, ...]]
    sizes: dict[tuple[str, str], int]


SOURCES = {
    "ptb-xl": Source(
        url="https://physionet.org/files/ptb-xl/1.0.3/",
        folders={
            "100": ("records100",),
            "500": ("records500",),
            "both": ("records100", "records500"),
        },
        sizes={
            ("records100", ".dat"): 24_576,
            ("records500", ".dat"): 122_880,
            ("", ".csv"): 8_000_000,
        },
    ),
}
"""Data sets by name."""


@dataclass(frozen=True)
class DownloadReport:
    """Result of a download.

    Attributes
    ----------
    dataset : str
        Name of the data set.
    folder : Path
        Its folder.
    files : int
        Files in place, each with the published hash.
    downloaded : int
        Files transferred by this call; the others were in place before.
    received : int
        Bytes of these files.
    """

    dataset: str
    folder: Path
    files: int
    downloaded: int
    received: int


def download(
    dataset: str,
    dest: str | Path,
    *,
    base_url: str | None = None,
    workers: int = 8,
    rate: Literal["100", "500", "both"] = "100",
    progress: Progress | None = None,
    timeout: float = 30.0,
) -> DownloadReport:
    """Download a data set into a folder, in its publisher's layout.

    Parameters
    ----------
    dataset : str
        A name in `SOURCES`: `ptb-xl`.
    dest : path-like
        Folder; created if it does not exist.
    base_url : str, optional
        Mirror that serves the same files, including `SHA256SUMS.txt`.
    workers : int
        Number of parallel connections.
    rate : {"100", "500", "both"}
        Sampling rate of the records, Hz. Tables and licence are always included.
    progress : Progress, optional
        Called with the number of files in place.
    timeout : float
        Seconds without an answer after which a connection is retried.

    Raises
    ------
    DownloadError
        If the data set, rate or address is unknown; if the disk is too small; if the list of
        hashes is malformed or names a path outside the folder; if files are missing on the
        server or have a wrong hash (listed after all others have been transferred); if the
        network or the disk fails.
    """
    source = _source(dataset, rate, workers)
    url, folder = _address(base_url or source.url), Path(dest)
    hashes = _select(_published(url, folder, timeout), source.folders[rate], url)
    _check_space(folder, hashes, source)
    registry = pooch.create(
        folder,
        url,
        registry={path: f"sha256:{digest}" for path, digest in hashes.items()},
        retry_if_failed=_RETRIES,
    )
    pooch.get_logger().setLevel("WARNING")
    transfer = _Transfer(timeout)
    sizes = _fetch_all(registry, transfer, workers, progress)
    return DownloadReport(
        dataset=dataset,
        folder=folder,
        files=len(sizes),
        downloaded=sum(size > 0 for size in sizes),
        received=sum(sizes),
    )


def parse_sums(text: str, file: str) -> dict[str, str]:
    """Parse lines of `hash  path`, the format of `sha256sum` and PhysioNet.

    Parameters
    ----------
    text : str
        Content of the list.
    file : str
        Its address, for messages.

    Returns
    -------
    dict of str to str
        Relative path to hash, in lower case.

    Raises
    ------
    DownloadError
        If a line is malformed, a path leaves the folder, or a path has two hashes.
    """
    hashes: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            raise DownloadError(
                f"{file}, line {number}: {line[:80]!r} is not a SHA-256 and a path",
                remedy="check the address; the server may have answered with a login page",
            )
        path = match[2].removeprefix("./")
        _check_inside(path, f"{file}, line {number}")
        if hashes.setdefault(path, match[1].lower()) != match[1].lower():
            raise DownloadError(
                f"{file}, line {number}: a second hash for {path}", remedy="use another mirror"
            )
    return hashes


class _Transfer:
    """Downloader for pooch with one connection a thread, kept open from file to file."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.stopped = False
        self._local = threading.local()

    def __call__(self, url: str, output_file: str, _pooch: Any) -> None:
        """Stream a file to disk; raise ConnectionError if it ends early."""
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        headers = {"Accept-Encoding": "identity"}
        with (
            self._local.session.get(
                url, stream=True, timeout=self.timeout, headers=headers
            ) as answer,
            open(output_file, "wb") as file,
        ):
            if answer.status_code in (401, 403, 404, 410):
                raise _Unavailable(f"the server answers {answer.status_code} {answer.reason}")
            answer.raise_for_status()
            for chunk in answer.iter_content(1 << 16):
                if self.stopped:
                    raise _Stopped
                file.write(chunk)


class _Unavailable(Exception):  # noqa: N818 - reported as a DownloadError
    """A file that the server does not have; a second attempt would not change that."""


class _Stopped(Exception):  # noqa: N818 - a signal between threads, not an error
    """The download was interrupted."""


def _fetch_all(
    registry: pooch.Pooch, transfer: _Transfer, workers: int, progress: Progress | None
) -> list[int]:
    """Bytes transferred for each file; 0 for files that were in place."""
    folder, files = Path(registry.path), registry.registry

    def fetch(path: str) -> int:
        target = folder / path
        if target.is_file() and file_sha256(target) == files[path].removeprefix("sha256:"):
            return 0
        if transfer.stopped:
            raise _Stopped
        target.parent.mkdir(parents=True, exist_ok=True)  # pooch is not safe against threads here
        registry.fetch(path, downloader=transfer)
        return target.stat().st_size

    pool = ThreadPoolExecutor(workers, thread_name_prefix="download")
    try:
        return _collect({pool.submit(fetch, path): path for path in files}, progress)
    finally:  # after an interruption as well: only complete files may remain
        transfer.stopped = True
        pool.shutdown(cancel_futures=True)


def _collect(futures: dict[Future[int], str], progress: Progress | None) -> list[int]:
    sizes: list[int] = []
    failures: dict[str, str] = {}
    for future in as_completed(futures):
        path = futures[future]
        try:
            sizes.append(future.result())
        except (_Unavailable, ValueError) as error:  # ValueError: a wrong hash
            failures[path] = str(error)
        except OSError as error:
            network = isinstance(error, requests.RequestException)
            raise DownloadError(
                f"{path}: {error}; {len(futures) - len(sizes)} of {len(futures)} files are missing",
                remedy="check the connection and the address, then repeat the command to continue"
                if network
                else "free space or correct the permissions, then repeat the command to continue",
            ) from error
        if progress:
            progress("download", len(sizes), len(futures))
    if failures:
        listed = "\n".join(f"  {path}: {reason}" for path, reason in sorted(failures.items()))
        raise DownloadError(
            f"{len(failures)} of {len(futures)} files could not be downloaded:\n{listed}",
            remedy="repeat the command: files that are in place are not transferred again",
        )
    return sizes


def _check_inside(path: str, place: str) -> None:
    parts = path.split("/")
    if not path.isprintable() or set(path) & set("\\:") or set(parts) & {"", ".", ".."}:
        raise DownloadError(
            f"{place}: the path {path!r} leaves the download folder",
            remedy="do not use this mirror; the publisher's list has no such path",
        )


def _source(dataset: str, rate: str, workers: int) -> Source:
    if dataset not in SOURCES:
        raise DownloadError(
            f"unknown data set {dataset!r}", remedy=f"choose one of {', '.join(SOURCES)}"
        )
    if rate not in SOURCES[dataset].folders:
        raise DownloadError(
            f"{dataset} has no records at the rate {rate!r}",
            remedy=f"choose one of {', '.join(SOURCES[dataset].folders)}",
        )
    if workers < 1:
        raise DownloadError(f"workers = {workers}, must be at least 1", remedy="use the default, 8")
    return SOURCES[dataset]


def _address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DownloadError(
            f"{url!r} is not the address of a web server",
            remedy="use an address that begins with https:// or http://",
        )
    return url if url.endswith("/") else f"{url}/"


def _published(url: str, folder: Path, timeout: float) -> dict[str, str]:
    """Hashes from the publisher; a copy of the list is kept in the folder."""
    try:
        answer = requests.get(url + SUMS, timeout=timeout)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise DownloadError(
            f"{url}{SUMS}: {error}", remedy="check the connection and the address"
        ) from error
    hashes = parse_sums(answer.content.decode("utf-8", errors="replace"), url + SUMS)
    try:
        write_text(folder / SUMS, answer.text)
    except OSError as error:
        raise DownloadError(
            f"{folder}: {error.strerror or error}", remedy="choose a folder that can be written to"
        ) from error
    return hashes


def _select(hashes: dict[str, str], folders: tuple[str, ...], url: str) -> dict[str, str]:
    """Records in the given folders, with the tables and the licence."""
    selection = {
        path: digest
        for path, digest in hashes.items()
        if path.split("/")[0] in folders
        or ("/" not in path and (path.endswith(".csv") or path.upper().startswith("LICENSE")))
    }
    for folder in folders:
        if not any(path.startswith(f"{folder}/") for path in selection):
            raise DownloadError(
                f"{url}{SUMS} lists no file in {folder}/", remedy="check the address of the mirror"
            )
    return selection


def _check_space(folder: Path, hashes: dict[str, str], source: Source) -> None:
    needed = sum(
        source.sizes.get((path.split("/")[0] if "/" in path else "", Path(path).suffix), 4096)
        for path in hashes
        if not (folder / path).exists()
    )
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{folder}: {free / 1e9:.2f} GB free, about {needed / 1e9:.2f} GB needed",
            remedy="free space, choose a folder on a larger disk, or use --rate 100",
        )
