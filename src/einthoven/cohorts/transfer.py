"""One file over HTTP: resumed, hashed while it streams, and named only when it is whole."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from einthoven.version import __version__

_CHUNK = 1 << 16
_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Retry:
    """How often a transfer that gets no further is tried, and how long it waits.

    Attributes
    ----------
    attempts : int
        Attempts in a row without one new byte.
    wait : float
        Seconds before the second attempt; doubled for each one after it.
    timeout : float
        Seconds without an answer after which a connection is given up.
    """

    attempts: int = 5
    wait: float = 0.5
    timeout: float = 30.0


@dataclass(frozen=True)
class Outcome:
    """A file that is in place: its size, and how many bytes came over the network for it."""

    path: str
    size: int
    received: int


class Failure(Exception):  # noqa: N818 - never reaches a user: `download` reports it
    """A file that could not be had; `fatal` when no other file can be had either."""

    def __init__(self, path: str, reason: str, *, remedy: str = "", fatal: bool = False) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason, self.remedy, self.fatal = path, reason, remedy, fatal


class Stopped(Exception):  # noqa: N818 - a signal between threads, not an error
    """The download was given up while this file was under way; its `.part` stays."""


class Client:
    """Connections of one thread, kept open from file to file.

    Parameters
    ----------
    base_url : str
        Address of the folder, `http` or `https`, ending in `/`.
    timeout : float
        Seconds.
    """

    def __init__(self, base_url: str, timeout: float) -> None:
        self.base_url = base_url
        self.timeout = timeout
        self._connections: dict[tuple[str, str], http.client.HTTPConnection] = {}

    def get(self, path: str, start: int = 0) -> http.client.HTTPResponse:
        """Ask for a file from byte `start` on; redirections are followed."""
        headers = {"User-Agent": f"einthoven/{__version__}", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        url = urljoin(self.base_url, quote(path))
        for _ in range(5):
            response = self._ask(urlsplit(url), headers)
            if response.status not in _REDIRECTS:
                return response
            response.read()
            target = urljoin(url, response.headers.get("Location", ""))
            if urlsplit(target).scheme not in ("https", urlsplit(url).scheme):
                raise Failure(path, f"redirected from {url} to {target}, which is less safe")
            url = target
        raise Failure(path, f"more than five redirections, the last to {url}")

    def _ask(self, url: SplitResult, headers: dict[str, str]) -> http.client.HTTPResponse:
        key = (url.scheme, url.netloc)
        if key not in self._connections:
            self._connections[key] = _connect(url, self.timeout)
        connection = self._connections[key]
        target = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
        if url.scheme == "http" and _proxy(url):
            target = url.geturl()
            headers = headers | _authorization(_proxy(url))
        connection.request("GET", target, headers=headers)
        return connection.getresponse()

    def close(self) -> None:
        """Close every connection; the next `get` opens a new one."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def abort(self) -> None:
        """Wake a thread that waits for bytes, from another thread."""
        for connection in list(self._connections.values()):
            with suppress(OSError, AttributeError):
                connection.sock.shutdown(socket.SHUT_RDWR)


def _proxy(url: SplitResult) -> SplitResult | None:
    """Proxy that the environment or the system names for this address."""
    found = urllib.request.getproxies().get(url.scheme)
    if not found or urllib.request.proxy_bypass(url.hostname or ""):
        return None
    return urlsplit(found if "://" in found else f"http://{found}")


def _authorization(proxy: SplitResult | None) -> dict[str, str]:
    if proxy is None or proxy.username is None:
        return {}
    word = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(word).decode()}"}


def _connect(url: SplitResult, timeout: float) -> http.client.HTTPConnection:
    proxy = _proxy(url)
    secure = url.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    place = proxy or url
    connection = kind(place.hostname or "", place.port, timeout=timeout)
    if proxy and secure:
        connection.set_tunnel(url.hostname or "", url.port, headers=_authorization(proxy))
    return connection


def fetch(
    client: Client,
    path: str,
    sha256: str | None,
    folder: Path,
    *,
    retry: Retry,
    stop: threading.Event,
) -> Outcome:
    """Put one file in place, whatever of it is there already.

    Parameters
    ----------
    client : Client
        Connections of this thread.
    path : str
        Relative path of the file, on the server and below `folder`.
    sha256 : str or None
        Hexadecimal hash that it must have; None takes what the server gives, afresh.
    folder : Path
        Where it goes. A file under way is `<name>.part`.
    retry : Retry
        When to give up.
    stop : threading.Event
        Set when the whole download is given up.

    Raises
    ------
    Failure
        If it cannot be had, or has a wrong hash twice.
    Stopped
        If `stop` is set meanwhile.
    """
    target = folder.joinpath(*path.split("/"))
    part = target.with_name(f"{target.name}.part")
    with _disk(path):
        if sha256 and target.is_file() and _hashed(target)[0].hexdigest() == sha256:
            return Outcome(path, target.stat().st_size, 0)
        target.parent.mkdir(parents=True, exist_ok=True)
        if sha256 is None:
            part.unlink(missing_ok=True)
    received, found = 0, ""
    for _ in range(2):  # A file with a wrong hash is fetched once more, from its first byte.
        more, found = _complete(client, path, sha256, part, retry, stop)
        received += more
        with _disk(path):
            if sha256 in (None, found):
                os.replace(part, target)
                return Outcome(path, target.stat().st_size, received)
            part.unlink()
    raise Failure(path, f"SHA-256 expected {sha256}, found {found}, twice")


def _complete(
    client: Client,
    path: str,
    sha256: str | None,
    part: Path,
    retry: Retry,
    stop: threading.Event,
) -> tuple[int, str]:
    """Stream until the server has no more; gives bytes received and the hash of the whole."""
    received, failures = 0, 0
    while not stop.is_set():
        with _disk(path):
            hasher, size = _hashed(part)
        if size and hasher.hexdigest() == sha256:
            return received, hasher.hexdigest()
        try:
            more, found = _stream(client, path, part, hasher, size, stop)
            return received + more, found
        except (OSError, http.client.HTTPException, ValueError) as error:
            client.close()
            reached = part.stat().st_size if part.exists() else 0
            received += max(0, reached - size)
            failures = 1 if reached > size else failures + 1
            if failures >= retry.attempts and not stop.is_set():
                raise _unreachable(client, path, failures, error) from error
            stop.wait(retry.wait * 2 ** (failures - 1))
    raise Stopped


def _unreachable(client: Client, path: str, failures: int, error: Exception) -> Failure:
    said = str(error) or type(error).__name__
    return Failure(
        path,
        f"{failures} attempts at {client.base_url} got no further: {said}",
        remedy="check the connection and the address, then run the download again: it resumes",
        fatal=True,
    )


def _stream(
    client: Client, path: str, part: Path, hasher: Any, size: int, stop: threading.Event
) -> tuple[int, str]:
    """Append what the server has beyond `size` bytes, or start over where it does not resume."""
    with client.get(path, start=size) as response:
        if response.status == 416:  # Nothing beyond what is here: the hash decides.
            response.read()
            return 0, hasher.hexdigest()
        _check_status(path, response)
        resumed = response.status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {size}-"):
            with _disk(path):
                part.unlink(missing_ok=True)
            raise ConnectionError("the server resumed at another byte than it was asked for")
        hasher = hasher if resumed else hashlib.sha256()
        received = _save(response, path, part, hasher, stop)
        announced = response.headers.get("Content-Length")
    if announced is not None and received != int(announced):
        raise ConnectionError(f"cut off after {received} of {announced} bytes")
    return received, hasher.hexdigest()


def _save(
    response: http.client.HTTPResponse, path: str, part: Path, hasher: Any, stop: threading.Event
) -> int:
    """Write and hash a body as it comes; appended where the server resumes."""
    received = 0
    with ExitStack() as stack:
        with _disk(path):
            mode = "a" if response.status == 206 else "w"
            # Not buffered: what was received is on disk when the line drops.
            handle = stack.enter_context(FileIO(part, mode))
        while chunk := response.read(_CHUNK):
            if stop.is_set():
                raise Stopped
            hasher.update(chunk)
            with _disk(path):
                _write_all(handle, chunk)
            received += len(chunk)
    return received


def _write_all(handle: FileIO, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:  # A disk that is nearly full takes a part of it first.
        left = left[handle.write(left) :]


def _check_status(path: str, response: http.client.HTTPResponse) -> None:
    if response.status in (200, 206):
        return
    response.read()
    if response.status in _PASSING:
        raise ConnectionError(f"the server answers {response.status} {response.reason}")
    raise Failure(path, f"the server answers {response.status} {response.reason}")


def _hashed(path: Path) -> tuple[Any, int]:
    """Hash so far and size of a file; of nothing where there is none."""
    hasher, size = hashlib.sha256(), 0
    if path.is_file():
        with open(path, "rb") as handle:
            while chunk := handle.read(1 << 20):
                hasher.update(chunk)
                size += len(chunk)
    return hasher, size


@contextmanager
def _disk(path: str) -> Iterator[None]:
    """Tell what the disk refuses from what the network refuses: both are OSErrors."""
    try:
        yield
    except OSError as error:
        raise Failure(
            path,
            f"cannot be stored: {error.strerror or error}",
            remedy="free space or mend the permissions there, then run it again: it resumes",
            fatal=True,
        ) from error
