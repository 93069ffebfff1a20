"""Downloads from a local web server that fails in the ways that servers do."""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from einthoven.cohorts.download import SUMS, download, parse_sums
from einthoven.errors import DownloadError

BIG = "records100/00000/00001_lr.dat"


def tree() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    files = {
        "ptbxl_database.csv": rng.bytes(30_000),
        "scp_statements.csv": b"a,b\n",
        "LICENSE.txt": b"CC BY 4.0",
        "RECORDS": b"records100/00000/00001_lr\n",
        "example_physionet.py": b"print()\n",
        BIG: rng.bytes(400_000),
    }
    for number in range(1, 5):
        files[f"records100/00000/0000{number}_lr.hea"] = rng.bytes(300)
        files[f"records500/00000/0000{number}_hr.dat"] = rng.bytes(900)
    return files


@dataclass
class Behaviour:
    """Files of the server, the failures to produce, and the requests that it received."""

    files: dict[str, bytes] = field(default_factory=tree)
    cut: dict[str, int] = field(default_factory=dict)  # path -> connections still to cut
    corrupt: dict[str, int] = field(default_factory=dict)  # path -> answers still to corrupt
    status: dict[str, list[int]] = field(default_factory=dict)  # path -> answers before the file
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        lines = [f"{hashlib.sha256(v).hexdigest()} {k}" for k, v in self.files.items()]
        self.files[SUMS] = "\n".join(lines).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        behaviour, path = self.server.behaviour, urlsplit(self.path).path.removeprefix("/data/")
        behaviour.requests.append(path)
        if behaviour.status.get(path):
            self.answer(behaviour.status[path].pop(0), b"no")
        elif path not in behaviour.files:
            self.answer(404, b"no such file")
        else:
            body = behaviour.files[path]
            if behaviour.corrupt.get(path, 0):
                behaviour.corrupt[path] -= 1
                body = body[:-1] + bytes([body[-1] ^ 1])
            self.answer(200, body, path)

    def answer(self, status: int, body: bytes, path: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.behaviour.cut.get(path, 0):
            self.server.behaviour.cut[path] -= 1
            body, self.close_connection = body[: len(body) // 2], True
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    behaviour: Behaviour
    url: str

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # A client that hangs up is part of these tests.


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("pooch.core.time.sleep", lambda _: None)
    with Server(("127.0.0.1", 0), Handler) as running:
        running.behaviour = Behaviour()
        running.url = f"http://127.0.0.1:{running.server_port}/data/"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def run(server: Server, dest: Path, **changes: object) -> int:
    arguments = {"base_url": server.url, "workers": 3, "timeout": 5} | changes
    return download("ptb-xl", dest, **arguments)  # type: ignore[arg-type]


def placed(dest: Path) -> dict[str, bytes]:
    return {p.relative_to(dest).as_posix(): p.read_bytes() for p in dest.rglob("*") if p.is_file()}


def expected(server: Server, *folders: str) -> dict[str, bytes]:
    selection = (*folders, "ptbxl_database.csv", "scp_statements.csv", "LICENSE.txt", SUMS)
    return {k: v for k, v in server.behaviour.files.items() if k.startswith(selection)}


@pytest.mark.parametrize(
    ("rate", "folders"),
    [
        ("100", ("records100",)),
        ("500", ("records500",)),
        ("both", ("records100", "records500")),
    ],
)
def test_files_of_a_rate_arrive_whole(
    server: Server, tmp_path: Path, rate: str, folders: tuple[str, ...]
) -> None:
    dest, calls = tmp_path / "new" / "ptbxl", list[tuple[int, int]]()
    transferred = run(server, dest, rate=rate, progress=lambda _, *counts: calls.append(counts))
    files = expected(server, *folders)
    assert placed(dest) == files
    assert transferred == len(files) - 1
    assert calls == [(done, transferred) for done in range(1, transferred + 1)]


def test_a_second_run_fetches_nothing_but_the_list(server: Server, tmp_path: Path) -> None:
    run(server, tmp_path)
    server.behaviour.requests.clear()
    assert run(server, tmp_path) == 0
    assert server.behaviour.requests == [SUMS]


@pytest.mark.parametrize(
    "failures",
    [{"cut": {BIG: 3}}, {"corrupt": {BIG: 1}}, {"status": {BIG: [503, 429]}}],
    ids=["cut", "corrupt", "busy"],
)
def test_passing_failures_are_retried(
    server: Server, tmp_path: Path, failures: dict[str, dict[str, int]]
) -> None:
    for name, value in failures.items():
        setattr(server.behaviour, name, value)
    run(server, tmp_path)
    assert placed(tmp_path) == expected(server, "records100")
    assert server.behaviour.requests.count(BIG) > 1


def test_permanent_corruption_is_reported_after_the_rest(server: Server, tmp_path: Path) -> None:
    server.behaviour.corrupt = {BIG: 10**6, "LICENSE.txt": 10**6}
    with pytest.raises(DownloadError) as caught:
        run(server, tmp_path)
    for word in (BIG, "LICENSE.txt", hashlib.sha256(server.behaviour.files[BIG]).hexdigest()):
        assert word in str(caught.value)
    rest = expected(server, "records100")
    assert placed(tmp_path) == {k: v for k, v in rest.items() if k not in server.behaviour.corrupt}


def test_a_damaged_file_is_replaced(server: Server, tmp_path: Path) -> None:
    run(server, tmp_path)
    (tmp_path / BIG).write_bytes(b"damaged")
    assert run(server, tmp_path) == 1
    assert placed(tmp_path) == expected(server, "records100")


def test_files_that_the_server_lacks_are_all_listed(server: Server, tmp_path: Path) -> None:
    missing = ["LICENSE.txt", "records100/00000/00003_lr.hea"]
    bodies = {path: server.behaviour.files.pop(path) for path in missing}
    with pytest.raises(DownloadError, match="404") as caught:
        run(server, tmp_path)
    assert all(path in str(caught.value) for path in missing)
    assert placed(tmp_path) == expected(server, "records100")
    server.behaviour.files |= bodies
    assert run(server, tmp_path) == 2


@pytest.mark.parametrize(
    "path",
    ["../evil", "records100/../../evil", "/etc/evil", "..\\evil", "C:evil", "a//b", "./.", "a\0b"],
)
def test_paths_that_leave_the_folder_are_refused(path: str) -> None:
    with pytest.raises(DownloadError, match="entry 1"):
        parse_sums(f"{'0' * 64}  {path}", "x")


@pytest.mark.parametrize(
    "text",
    [b"<html>log in</html>", b"\xff\xfe\x00", b"0123 file", b"", b"0" * 64 + b"  RECORDS"],
)
def test_malformed_lists_of_hashes_are_refused(server: Server, tmp_path: Path, text: bytes) -> None:
    server.behaviour.files[SUMS] = text
    with pytest.raises(DownloadError, match=SUMS) as caught:
        run(server, tmp_path)
    assert caught.value.remedy
    assert not list(tmp_path.glob("*.csv"))


def test_lists_in_the_formats_of_sha256sum_and_physionet() -> None:
    one, two, three = "a" * 64, "B" * 64, "c" * 64
    text = f"{one} a.csv\n{two} *b b.csv\r\n\n{three}  ./c.csv\n{one}  a.csv\n"
    assert parse_sums(text, "x") == {"a.csv": one, "b b.csv": "b" * 64, "c.csv": three}


def test_a_server_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1"):
        download("ptb-xl", tmp_path, base_url="http://127.0.0.1:9/", timeout=1)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"dataset": "mimic"}, "mimic"),
        ({"rate": "250"}, "250"),
        ({"base_url": "file:///data"}, "file:"),
        ({"base_url": "physionet.org/files"}, "physionet"),
    ],
)
def test_invalid_arguments(tmp_path: Path, changes: dict[str, str], word: str) -> None:
    arguments = {"dataset": "ptb-xl", "dest": tmp_path} | changes
    with pytest.raises(DownloadError, match=word):
        download(**arguments)  # type: ignore[arg-type]


def test_a_disk_that_fills_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pooch.core.shutil.move", full)
    with pytest.raises(DownloadError, match="No space"):
        run(server, tmp_path)
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "*")
    run(server, tmp_path)
    assert placed(tmp_path) == expected(server, "records100")


def test_an_interruption_leaves_complete_files_only(server: Server, tmp_path: Path) -> None:
    def interrupt(task: str, done: int, total: int, metrics: object = None) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(server, tmp_path, progress=interrupt, workers=1)
    files = expected(server, "records100")
    assert all(body == files[path] for path, body in placed(tmp_path).items())
    run(server, tmp_path)
    assert placed(tmp_path) == files
