"""Download PTB-XL in parallel, with every file verified against its published SHA-256.

Transfers go through pooch: a file gets its name only once its hash is right, a broken connection
is retried, and a file that is already in place is not transferred again, so that an interrupted
download continues when the command is repeated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pooch
import requests
from requests.adapters import HTTPAdapter

from einthoven.errors import DownloadError
from einthoven.files import write_text
from einthoven.progress import Progress

SOURCES = {"ptb-xl": "https://physionet.org/files/ptb-xl/1.0.3/"}
"""Address of each data set; its records lie in `records100` and `records500`."""

SUMS = "SHA256SUMS.txt"
_FOLDERS = {
    "100": ("records100",),
    "500": ("records500",),
    "both": ("records100", "records500"),
}
_LINE = re.compile(r"([0-9a-fA-F]{64})[ \t]+\*?(.+)")


def download(
    dataset: str,
    dest: str | Path,
    *,
    base_url: str | None = None,
    workers: int = 8,
    rate: Literal["100", "500", "both"] = "100",
    progress: Progress | None = None,
    timeout: float = 30.0,
) -> int:
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

    Returns
    -------
    int
        Files transferred by this call; the others were in place before.

    Raises
    ------
    DownloadError
        If the data set, rate or address is unknown; if the list of hashes is malformed or names a
        path outside the folder; if files are missing on the server or have a wrong hash (listed
        after all others have been transferred); if the network or the disk fails.
    """
    url = _address(dataset, base_url)
    if rate not in _FOLDERS:
        raise DownloadError(
            f"{dataset} has no records at the rate {rate!r}",
            remedy=f"choose one of {', '.join(_FOLDERS)}",
        )
    folder, transferred = Path(dest), set[str]()
    with requests.Session() as session:
        session.mount(url, HTTPAdapter(pool_maxsize=workers))  # connections stay open

        def transfer(address: str, output_file: str, _pooch: Any) -> None:
            headers = {"Accept-Encoding": "identity"}
            with (
                session.get(address, stream=True, timeout=timeout, headers=headers) as answer,
                open(output_file, "wb") as file,
            ):
                if answer.status_code in (401, 403, 404, 410):  # permanent, not retried
                    raise FileNotFoundError(f"status {answer.status_code} {answer.reason}")
                answer.raise_for_status()
                for chunk in answer.iter_content(1 << 16):
                    file.write(chunk)
            transferred.add(address)

        hashes = _select(_published(session, url, folder, timeout), _FOLDERS[rate], url)
        registry = pooch.create(folder, url, registry=hashes, retry_if_failed=4)
        pooch.get_logger().setLevel("WARNING")
        _fetch_all(registry, transfer, workers, progress)
    return len(transferred)


def parse_sums(text: str, file: str) -> dict[str, str]:
    """Parse lines of `hash  path`, the format of `sha256sum` and PhysioNet.

    Returns relative path to hash, in lower case. `file` is the address of the list, for messages.

    Raises
    ------
    DownloadError
        If a line is malformed or its path leaves the folder.
    """
    hashes: dict[str, str] = {}
    for number, line in enumerate(filter(str.strip, text.splitlines()), start=1):
        match = _LINE.fullmatch(line.rstrip())
        path = match[2].removeprefix("./") if match else ""
        outside = set(path) & set("\\:") or {"", ".", ".."} & set(path.split("/"))
        if match is None or outside or not path.isprintable():
            raise DownloadError(
                f"{file}, entry {number}: {line[:80]!r} is not a SHA-256 and a path in the folder",
                remedy="check the address; the server may have answered with a login page",
            )
        hashes[path] = match[1].lower()
    return hashes


def _address(dataset: str, base_url: str | None) -> str:
    if dataset not in SOURCES:
        raise DownloadError(
            f"unknown data set {dataset!r}", remedy=f"choose one of {', '.join(SOURCES)}"
        )
    url = base_url or SOURCES[dataset]
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DownloadError(
            f"{url!r} is not the address of a web server",
            remedy="use an address that begins with https:// or http://",
        )
    return f"{url.removesuffix('/')}/"


def _published(session: requests.Session, url: str, folder: Path, timeout: float) -> dict[str, str]:
    """Hashes from the publisher; a copy of the list is written to the folder."""
    with _refusing_io(f"{url}{SUMS}"):
        answer = session.get(url + SUMS, timeout=timeout)
        answer.raise_for_status()
    hashes = parse_sums(answer.content.decode("utf-8", errors="replace"), url + SUMS)
    with _refusing_io(folder):
        write_text(folder / SUMS, answer.text)
    return hashes


def _select(hashes: dict[str, str], folders: tuple[str, ...], url: str) -> dict[str, str]:
    """Records in the given folders, with the tables and the licence."""
    for folder in folders:
        if not any(path.startswith(f"{folder}/") for path in hashes):
            raise DownloadError(
                f"{url}{SUMS} lists no file in {folder}/", remedy="check the address of the mirror"
            )
    return {
        path: digest
        for path, digest in hashes.items()
        if path.split("/")[0] in folders
        or ("/" not in path and (path.endswith(".csv") or path.upper().startswith("LICENSE")))
    }


def _fetch_all(
    registry: pooch.Pooch,
    transfer: Callable[[str, str, Any], None],
    workers: int,
    progress: Progress | None,
) -> None:
    paths = registry.registry_files
    with _refusing_io(registry.path):  # before the threads start: pooch does this unsafely in them
        for folder in {Path(registry.path, path).parent for path in paths}:
            folder.mkdir(parents=True, exist_ok=True)
    failures: dict[str, str] = {}
    completed = 0
    pool = ThreadPoolExecutor(workers, thread_name_prefix="download")
    try:
        futures = {pool.submit(registry.fetch, path, downloader=transfer): path for path in paths}
        for future in as_completed(futures):
            with _refusing_io(futures[future]):
                try:
                    future.result()
                except (FileNotFoundError, ValueError) as error:  # ValueError: a wrong hash
                    failures[futures[future]] = str(error)
                    continue
            completed += 1
            if progress:
                progress("download", completed, len(paths))
    finally:
        pool.shutdown(cancel_futures=True)
    if failures:
        listed = "\n".join(f"  {path}: {reason}" for path, reason in sorted(failures.items()))
        raise DownloadError(
            f"{len(failures)} of {len(paths)} files could not be downloaded:\n{listed}",
            remedy="repeat the command: files that are in place are not transferred again",
        )


@contextmanager
def _refusing_io(place: str | Path) -> Iterator[None]:
    """Turn errors of the network and of the disk into refusals."""
    try:
        yield
    except OSError as error:
        network = isinstance(error, requests.RequestException)
        raise DownloadError(
            f"{place}: {error}",
            remedy="check the connection and the address, then repeat the command to continue"
            if network
            else "free space or correct the permissions, then repeat the command to continue",
        ) from error
