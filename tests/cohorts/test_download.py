"""Downloads against a web server of this test's own, which fails in the ways that servers do."""

from __future__ import annotations

import base64
import errno
import hashlib
import re
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pytest

from einthoven.cohorts import transfer
from einthoven.cohorts.download import SUMS, DownloadReport, download, parse_sums
from einthoven.cohorts.transfer import Retry
from einthoven.errors import DownloadError

BIG = "records100/00000/00001_lr.dat"
QUICK = Retry(attempts=3, wait=0.001, timeout=5)


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
    """What the server serves, how it misbehaves, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=tree)
    cut: dict[str, int] = field(default_factory=dict)  # path -> connections still to cut
    corrupt: dict[str, int] = field(default_factory=dict)  # path -> answers still to corrupt
    status: dict[str, list[int]] = field(default_factory=dict)  # path -> answers before the file
    redirect: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    lengths: bool = True
    held_after: int | None = None  # so many requests are answered at once; others wait for release
    release: threading.Event = field(default_factory=threading.Event)
    waited_in_vain: list[str] = field(default_factory=list)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    proxied: list[tuple[str, str | None]] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        lines = [f"{hashlib.sha256(v).hexdigest()} {k}" for k, v in self.files.items()]
        self.files[SUMS] = "\n".join(lines).encode()

    def requests(self, path: str) -> int:
        return sum(1 for asked, _ in self.asked if asked == path)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        does, path = self.server.does, urlsplit(self.path).path.removeprefix("/data/")
        does.asked.append((path, self.headers.get("Range")))
        does.proxied.append((self.path, self.headers.get("Proxy-Authorization")))
        is_held = does.held_after is not None and len(does.asked) > does.held_after
        if is_held and not does.release.wait(20):
            does.waited_in_vain.append(path)
        if does.status.get(path):
            self.answer(does.status[path].pop(0), b"no")
        elif path in does.redirect:
            self.answer(302, b"", Location=does.redirect[path])
        elif path not in does.files:
            self.answer(404, b"no such file")
        else:
            self.serve(does, path)

    def serve(self, does: Behaviour, path: str) -> None:
        body = does.files[path]
        if does.corrupt.get(path, 0):
            does.corrupt[path] -= 1
            body = body[:-1] + bytes([body[-1] ^ 1])
        start = 0
        if does.ranges and (match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))):
            start = int(match[1])
        if start and start >= len(body):
            self.answer(416, b"")
            return
        extra = {"Content_Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
        self.answer(206 if start else 200, body[start:], path=path, **extra)

    def answer(self, status: int, body: bytes, *, path: str = "", **headers: str) -> None:
        does = self.server.does
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        if does.lengths:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.close_connection = True
        self.end_headers()
        if does.cut.get(path, 0):
            does.cut[path] -= 1
            body, self.close_connection = body[: len(body) // 2], True
        self.wfile.write(body)
        does.sent[path] += len(body)


class Server(ThreadingHTTPServer):
    does: Behaviour
    url: str

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # A client that hangs up is part of these tests.


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with Server(("127.0.0.1", 0), Handler) as running:
        running.does = Behaviour()
        running.url = f"http://127.0.0.1:{running.server_port}/data/"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def run(server: Server, dest: Path, **changes: object) -> DownloadReport:
    arguments = {"base_url": server.url, "workers": 3, "retry": QUICK} | changes
    return download("ptb-xl", dest, **arguments)  # type: ignore[arg-type]


def placed(dest: Path) -> dict[str, bytes]:
    return {p.relative_to(dest).as_posix(): p.read_bytes() for p in dest.rglob("*") if p.is_file()}


def expected(server: Server, *folders: str) -> dict[str, bytes]:
    wanted = (*folders, "ptbxl_database.csv", "scp_statements.csv", "LICENSE.txt", SUMS)
    return {k: v for k, v in server.does.files.items() if k.startswith(wanted)}


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
    report = run(server, tmp_path / "new" / "ptbxl", rate=rate)
    files = expected(server, *folders)
    assert placed(tmp_path / "new" / "ptbxl") == files
    assert report.files == report.downloaded == len(files) - 1
    assert report.received == sum(len(v) for k, v in files.items() if k != SUMS)
    assert report.skipped == 0


def test_a_second_run_fetches_nothing_but_the_list(server: Server, tmp_path: Path) -> None:
    run(server, tmp_path)
    server.does.asked.clear()
    report = run(server, tmp_path)
    assert [path for path, _ in server.does.asked] == [SUMS]
    assert (report.downloaded, report.received, report.skipped) == (0, 0, report.files)


def test_connections_are_kept_open(server: Server, tmp_path: Path) -> None:
    opened = Counter[int]()
    process = server.process_request

    def count(request: object, address: tuple[str, int]) -> None:
        opened[address[1]] += 1
        process(request, address)  # type: ignore[arg-type]

    server.process_request = count  # type: ignore[method-assign, assignment]
    run(server, tmp_path, workers=2)
    assert len(opened) <= 3


def test_cut_connections_resume_where_they_broke(server: Server, tmp_path: Path) -> None:
    server.does.cut = {BIG: 8}
    run(server, tmp_path)
    assert placed(tmp_path) == expected(server, "records100")
    assert server.does.requests(BIG) == 9
    assert server.does.sent[BIG] == len(server.does.files[BIG])


def test_a_part_file_of_an_earlier_run_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    part = tmp_path / f"{BIG}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(server.does.files[BIG][:390_000])
    report = run(server, tmp_path)
    assert server.does.sent[BIG] == 10_000
    assert (tmp_path / BIG).read_bytes() == server.does.files[BIG]
    assert report.downloaded == report.files
    assert not part.exists()


def test_a_whole_part_file_needs_no_request(server: Server, tmp_path: Path) -> None:
    part = tmp_path / f"{BIG}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(server.does.files[BIG])
    run(server, tmp_path)
    assert server.does.requests(BIG) == 0


@pytest.mark.parametrize("extra", [b"", b"more"])
def test_a_wrong_part_file_is_thrown_away(server: Server, tmp_path: Path, extra: bytes) -> None:
    part = tmp_path / f"{BIG}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(len(server.does.files[BIG])) + extra)
    run(server, tmp_path)
    assert placed(tmp_path) == expected(server, "records100")


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.does.ranges = False
    server.does.cut = {BIG: 2}
    run(server, tmp_path)
    assert placed(tmp_path) == expected(server, "records100")
    assert {asked for path, asked in server.does.asked if path == BIG} >= {None, "bytes=200000-"}


def test_a_server_without_lengths(server: Server, tmp_path: Path) -> None:
    server.does.lengths = False
    server.does.cut = {BIG: 1}
    run(server, tmp_path)
    assert placed(tmp_path) == expected(server, "records100")


def test_a_server_that_always_cuts_is_given_up(server: Server, tmp_path: Path) -> None:
    server.does.ranges = False
    server.does.cut = {BIG: 10**6}
    with pytest.raises(DownloadError, match="attempts") as caught:
        run(server, tmp_path)
    assert BIG in str(caught.value)
    assert "resumes" in caught.value.remedy
    assert not (tmp_path / BIG).exists()
    assert (tmp_path / f"{BIG}.part").stat().st_size == 200_000


def test_corruption_heals_from_the_first_byte(server: Server, tmp_path: Path) -> None:
    server.does.corrupt = {BIG: 1}
    run(server, tmp_path)
    assert placed(tmp_path) == expected(server, "records100")
    assert server.does.requests(BIG) == 2
    assert all(asked is None for _, asked in server.does.asked)


def test_corruption_that_stays_is_reported_with_both_hashes(server: Server, tmp_path: Path) -> None:
    server.does.corrupt = {BIG: 10**6, "LICENSE.txt": 10**6}
    with pytest.raises(DownloadError) as caught:
        run(server, tmp_path)
    body = server.does.files[BIG]
    wrong = hashlib.sha256(body[:-1] + bytes([body[-1] ^ 1])).hexdigest()
    for word in (BIG, "LICENSE.txt", hashlib.sha256(body).hexdigest(), wrong, "2 of 8"):
        assert word in str(caught.value)
    assert server.does.requests(BIG) == 2
    rest = {k: v for k, v in expected(server, "records100").items() if k not in server.does.corrupt}
    assert placed(tmp_path) == rest


def test_a_damaged_file_is_replaced(server: Server, tmp_path: Path) -> None:
    run(server, tmp_path)
    (tmp_path / BIG).write_bytes(b"damaged")
    report = run(server, tmp_path)
    assert report.downloaded == 1
    assert placed(tmp_path) == expected(server, "records100")


def test_files_that_the_server_lacks_are_all_listed(server: Server, tmp_path: Path) -> None:
    gone = ["LICENSE.txt", "records100/00000/00003_lr.hea"]
    kept = {path: server.does.files.pop(path) for path in gone}
    with pytest.raises(DownloadError, match="404") as caught:
        run(server, tmp_path)
    assert all(path in str(caught.value) for path in gone)
    assert placed(tmp_path) == expected(server, "records100")
    server.does.files |= kept
    assert run(server, tmp_path).downloaded == 2


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.does.status = {BIG: [503, 429], SUMS: [500]}
    run(server, tmp_path)
    assert placed(tmp_path) == expected(server, "records100")


def test_redirections_are_followed(server: Server, tmp_path: Path) -> None:
    server.does.files["elsewhere"] = server.does.files[BIG]
    server.does.redirect = {BIG: "/data/elsewhere"}
    run(server, tmp_path)
    assert (tmp_path / BIG).read_bytes() == server.does.files[BIG]


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/x", "file:///etc/passwd", f"/data/{BIG}"])
def test_redirections_that_are_not_followed(server: Server, tmp_path: Path, target: str) -> None:
    server.does.redirect = {BIG: target}
    with pytest.raises(DownloadError, match="redirect"):
        run(server, tmp_path)


@pytest.mark.parametrize(
    "path",
    ["../evil", "records100/../../evil", "/etc/evil", "..\\evil", "C:evil", "a//b", "./.", "a\0b"],
)
def test_paths_that_leave_the_folder_are_refused(server: Server, tmp_path: Path, path: str) -> None:
    server.does.files[SUMS] += f"\n{'0' * 64}  {path}".encode()
    with pytest.raises(DownloadError, match="does not stay inside"):
        run(server, tmp_path / "dest")
    assert set(placed(tmp_path)) == {f"dest/{SUMS}"}


@pytest.mark.parametrize(
    "text",
    [b"<html>log in</html>", b"\xff\xfe\x00", b"0123 file", b"", b"0" * 64 + b"  RECORDS"],
)
def test_a_list_that_is_none(server: Server, tmp_path: Path, text: bytes) -> None:
    server.does.files[SUMS] = text
    with pytest.raises(DownloadError) as caught:
        run(server, tmp_path)
    assert SUMS in str(caught.value)
    assert "address" in caught.value.remedy


def test_sums_as_sha256sum_and_physionet_write_them() -> None:
    one, two, three = "a" * 64, "B" * 64, "c" * 64
    text = f"{one} a.csv\n{two} *b b.csv\r\n\n{three}  ./c.csv\n{one}  a.csv\n"
    assert parse_sums(text, "x") == {"a.csv": one, "b b.csv": "b" * 64, "c.csv": three}
    with pytest.raises(DownloadError, match="second hash"):
        parse_sums(text + f"{three} a.csv", "x")


def test_the_proxy_of_the_environment_is_used(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", server.url.replace("//", "//me:a%20b@").removesuffix("/data/"))
    run(server, tmp_path, base_url="http://mirror.invalid/data")
    assert placed(tmp_path) == expected(server, "records100")
    word = "Basic " + base64.b64encode(b"me:a b").decode()
    assert (f"http://mirror.invalid/data/{BIG}", word) in server.does.proxied


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="attempts at http"):
        download("ptb-xl", tmp_path, base_url="http://127.0.0.1:9/", retry=QUICK)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"dataset": "mimic"}, "ptb-xl"),
        ({"rate": "250"}, "both"),
        ({"workers": 0}, "workers"),
        ({"base_url": "file:///data"}, "https://"),
        ({"base_url": "physionet.org/files"}, "https://"),
    ],
)
def test_arguments_that_are_refused(tmp_path: Path, changes: dict[str, str], word: str) -> None:
    arguments = {"dataset": "ptb-xl", "dest": tmp_path} | changes
    with pytest.raises(DownloadError, match=word):
        download(**arguments)  # type: ignore[arg-type]


def test_a_destination_that_is_a_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="cannot be made"):
        run(server, tmp_path / "file")


def test_a_disk_that_is_too_small_is_known_beforehand(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000))
    with pytest.raises(DownloadError, match="free"):
        run(server, tmp_path)
    assert {path for path, _ in server.does.asked} == {SUMS}


def test_a_full_disk_keeps_the_part_files(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = transfer._write_all
    written = Counter[str]()

    def full(handle: object, chunk: bytes) -> None:
        written[Path(handle.name).name] += len(chunk)  # type: ignore[attr-defined]
        if written["00001_lr.dat.part"] > 200_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle, chunk)  # type: ignore[arg-type]

    monkeypatch.setattr(transfer, "_write_all", full)
    with pytest.raises(DownloadError, match="No space left") as caught:
        run(server, tmp_path)
    assert "free space" in caught.value.remedy
    kept = (tmp_path / f"{BIG}.part").stat().st_size
    assert kept > 0
    monkeypatch.undo()
    server.does.sent.clear()
    run(server, tmp_path)
    assert server.does.sent[BIG] == 400_000 - kept
    assert placed(tmp_path) == expected(server, "records100")


def test_an_interrupt_leaves_whole_files_and_part_files(server: Server, tmp_path: Path) -> None:
    def interrupt(done: int, total: int, size: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    server.does.held_after = 3  # the list and two files
    patient = replace(QUICK, timeout=60)
    with pytest.raises(KeyboardInterrupt):
        run(server, tmp_path, progress=interrupt, workers=1, retry=patient)
    assert not server.does.waited_in_vain  # nobody waited until the server gave up
    server.does.release.set()
    files = expected(server, "records100")
    for path, body in placed(tmp_path).items():
        assert path.endswith(".part") or body == files[path]
    run(server, tmp_path)
    assert placed(tmp_path) == files


def test_progress_counts_files_and_bytes(server: Server, tmp_path: Path) -> None:
    calls: list[tuple[int, int, int]] = []
    run(server, tmp_path, progress=lambda *call: calls.append(call))
    sizes = [len(v) for k, v in expected(server, "records100").items() if k != SUMS]
    assert [done for done, _, _ in calls] == list(range(1, len(sizes) + 1))
    assert calls[-1] == (len(sizes), len(sizes), sum(sizes))
    assert threading.active_count() < 20
