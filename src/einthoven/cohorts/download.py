"""Fetch a public cohort: in parallel, resumable, and every file checked against its SHA-256."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from einthoven.cohorts.transfer import Client, Failure, Outcome, Retry, fetch
from einthoven.errors import DownloadError

Progress = Callable[[int, int, int], None]
SUMS = "SHA256SUMS.txt"

_LINE = re.compile(r"([0-9a-fA-F]{64})[ \t]+\*?(.+)")
_AGAIN = "run the download again: it keeps what is whole and resumes the rest"


@dataclass(frozen=True)
class Source:
    """A public data set: where it is, which folder holds which rate, and how large files are.

    `sizes` estimates the bytes that a file takes on disk, by the beginning of its path and its
    suffix; it serves to refuse a disk that is too small before the first byte.
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
            ("records100", ".hea"): 4_096,
            ("records500", ".hea"): 4_096,
            ("", ".csv"): 8_000_000,
        },
    ),
}
"""Data sets by the name that `download` takes."""


@dataclass(frozen=True)
class DownloadReport:
    """What a download did.

    Attributes
    ----------
    dataset : str
        Name of the data set.
    folder : Path
        Where it is.
    files : int
        Files in place, each with the right hash.
    downloaded : int
        How many of them came, in whole or in part, over the network this time.
    skipped : int
        How many were there already.
    received : int
        Bytes that came over the network this time.
    """

    dataset: str
    folder: Path
    files: int
    downloaded: int
    skipped: int
    received: int


def download(
    dataset: str,
    dest: str | Path,
    *,
    base_url: str | None = None,
    workers: int = 8,
    rate: Literal["100", "500", "both"] = "100",
    progress: Progress | None = None,
    retry: Retry | None = None,
) -> DownloadReport:
    """Fetch a data set into a folder, in the layout of its publisher.

    A file under way is `<name>.part`; it gets its name only when its SHA-256 is the published
    one. A run that was stopped goes on where it was.

    Parameters
    ----------
    dataset : str
        A name of `SOURCES`: `ptb-xl`.
    dest : path-like
        Folder; made where it does not exist.
    base_url : str, optional
        A mirror that serves the same files; must hold `SHA256SUMS.txt`.
    workers : int
        Connections at a time.
    rate : {"100", "500", "both"}
        Sampling rate (Hz) of the records to fetch. Tables and licence always come.
    progress : callable, optional
        Called in this thread as `progress(done_files, total_files, bytes_done)`.
    retry : Retry, optional
        When to give up on a connection.

    Returns
    -------
    DownloadReport

    Raises
    ------
    DownloadError
        If the data set, rate or address is unknown; if the disk is too small; if the list of
        hashes is malformed or names a path outside the folder; if a file is missing on the
        server or has a wrong hash twice (all such files are listed, after the rest has come); if
        the network or the disk fails.
    """
    source = _source(dataset, rate, workers)
    url, folder, retry = _address(base_url or source.url), Path(dest), retry or Retry()
    _make_folder(folder)
    hashes = _select(_published(url, folder, retry), source.folders[rate], url)
    _check_space(folder, hashes, source)
    crew = _Crew(url, folder, retry)
    outcomes = _fetch_all(crew, hashes, workers=workers, progress=progress)
    new = [outcome for outcome in outcomes if outcome.received]
    return DownloadReport(
        dataset=dataset,
        folder=folder,
        files=len(outcomes),
        downloaded=len(new),
        skipped=len(outcomes) - len(new),
        received=sum(outcome.received for outcome in new),
    )


def parse_sums(text: str, file: str) -> dict[str, str]:
    """Read a list of `hash  path` lines, as `sha256sum` and PhysioNet write it.

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
                remedy="check the address; a login or proxy page may have come instead",
            )
        path = match[2].removeprefix("./")
        _check_inside(path, f"{file}, line {number}")
        if hashes.setdefault(path, match[1].lower()) != match[1].lower():
            raise DownloadError(
                f"{file}, line {number}: a second hash for {path}", remedy="use another mirror"
            )
    return hashes


def _check_inside(path: str, place: str) -> None:
    parts = path.split("/")
    if not path.isprintable() or set(path) & set("\\:") or set(parts) & {"", ".", ".."}:
        raise DownloadError(
            f"{place}: the path {path!r} does not stay inside the download folder",
            remedy="do not use this mirror; the publisher's own list has no such path",
        )


def _source(dataset: str, rate: str, workers: int) -> Source:
    if dataset not in SOURCES:
        raise DownloadError(
            f"the data set {dataset!r} is not known", remedy=f"choose one of {', '.join(SOURCES)}"
        )
    if rate not in SOURCES[dataset].folders:
        raise DownloadError(
            f"{dataset} has no records at the rate {rate!r}",
            remedy=f"choose one of {', '.join(SOURCES[dataset].folders)}",
        )
    if workers < 1:
        raise DownloadError(f"workers = {workers}, must be at least 1", remedy="leave it at 8")
    return SOURCES[dataset]


def _address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DownloadError(
            f"the address {url!r} is not one of a web server",
            remedy="give an address that begins with https:// or http://",
        )
    return url if url.endswith("/") else f"{url}/"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(
            f"{folder} cannot be made: {error.strerror or error}",
            remedy="name a folder that can be written to",
        ) from None


def _published(url: str, folder: Path, retry: Retry) -> dict[str, str]:
    """The publisher's hashes; the list itself stays in the folder."""
    try:
        with closing(Client(url, retry.timeout)) as client:
            fetch(client, SUMS, None, folder, retry=retry, stop=threading.Event())
        text = (folder / SUMS).read_text(encoding="utf-8")
    except Failure as failure:
        raise DownloadError(str(failure), remedy=failure.remedy or "check the address") from failure
    except UnicodeDecodeError:
        text = "(not text)"
    return parse_sums(text, url + SUMS)


def _select(hashes: dict[str, str], folders: tuple[str, ...], url: str) -> dict[str, str]:
    """Records of the folders asked for, with the tables and the licence."""
    chosen = {
        path: value
        for path, value in hashes.items()
        if path.split("/")[0] in folders
        or ("/" not in path and (path.endswith(".csv") or path.upper().startswith("LICENSE")))
    }
    for folder in folders:
        if not any(path.startswith(f"{folder}/") for path in chosen):
            raise DownloadError(
                f"{url}{SUMS} lists no file in {folder}/", remedy="check the address of the mirror"
            )
    return chosen


def _check_space(folder: Path, hashes: dict[str, str], source: Source) -> None:
    needed = sum(_estimate(path, source) for path in hashes if not (folder / path).exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{folder} has {free / 1e9:.2f} GB free, about {needed / 1e9:.2f} GB are needed",
            remedy="free space or name a folder on a larger disk; rate '100' needs the least",
        )


def _estimate(path: str, source: Source) -> int:
    top, _, rest = path.rpartition("/")
    suffix = Path(rest).suffix
    return source.sizes.get((top.split("/")[0], suffix), 4096)


class _Crew:
    """Threads of one download, each with connections of its own."""

    def __init__(self, url: str, folder: Path, retry: Retry) -> None:
        self._url, self._folder, self._retry = url, folder, retry
        self._local = threading.local()
        self._clients: list[Client] = []
        self._stop = threading.Event()

    def fetch(self, path: str, sha256: str) -> Outcome:
        if not hasattr(self._local, "client"):
            self._local.client = Client(self._url, self._retry.timeout)
            self._clients.append(self._local.client)
        client: Client = self._local.client
        return fetch(client, path, sha256, self._folder, retry=self._retry, stop=self._stop)

    def stop(self) -> None:
        """Let every thread end soon, also those that wait for the server."""
        self._stop.set()
        for client in self._clients:
            client.abort()

    def close(self) -> None:
        for client in self._clients:
            client.close()


def _fetch_all(
    crew: _Crew, hashes: dict[str, str], *, workers: int, progress: Progress | None
) -> list[Outcome]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="download")
    try:
        futures = [pool.submit(crew.fetch, path, value) for path, value in hashes.items()]
        return _collect(futures, progress)
    finally:  # Also after Ctrl-C: only .part files and whole files may stay.
        crew.stop()
        pool.shutdown(cancel_futures=True)
        crew.close()


def _collect(futures: list[Future[Outcome]], progress: Progress | None) -> list[Outcome]:
    outcomes: list[Outcome] = []
    failures: list[Failure] = []
    done = 0
    for future in as_completed(futures):
        try:
            outcomes.append(future.result())
            done += outcomes[-1].size
        except Failure as failure:
            if failure.fatal:
                left = len(futures) - len(outcomes)
                problem = f"{failure}; {left} of {len(futures)} files are still to come"
                raise DownloadError(problem, remedy=failure.remedy) from failure
            failures.append(failure)
        if progress:
            progress(len(outcomes), len(futures), done)
    if failures:
        raise _incomplete(failures, len(futures))
    return outcomes


def _incomplete(failures: list[Failure], files: int) -> DownloadError:
    listed = "\n".join(f"  {failure}" for failure in sorted(failures, key=lambda f: f.path))
    return DownloadError(
        f"{len(failures)} of {files} files could not be had:\n{listed}", remedy=_AGAIN
    )
