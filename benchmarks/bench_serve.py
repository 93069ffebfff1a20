"""The server with 32 clients, against one client that sends its requests one after the other.

    python benchmarks/bench_serve.py

The included model answers the simulated ECG, as DICOM, in a process of its own, from clients in
threads of this one: once in PyTorch, once exported to ONNX. Both sides of a row send the same
number of requests. Every core has a process that predicts, so the ratio depends on the number of
cores, which the note states. Every answer has to have the same bytes.

The last row is one client and a server that has one core, in ONNX against PyTorch; its note has the
95th percentile of the time of a request, which is to be at most 60 ms, and the CPU time of the
parts of a request.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import torch

from einthoven.cohorts.synthetic import sample_record
from einthoven.inference import Predictor
from einthoven.inference.records import _Prepared
from einthoven.inference.runtimes import AnyModel
from einthoven.models import SHIPPED, export_onnx, load_model, load_onnx
from einthoven.records import read_record
from einthoven.records.dicom_write import dicom_content
from einthoven.records.quality import findings
from einthoven.serve import Limits
from table import Row, Times, fastest, print_table, speed_row

PORT, CLIENTS, REQUESTS, ROUNDS = 8917, 32, 96, 3
TARGET = 3.0


class _Client:
    """A connection, which sends one request after the other."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.answers: set[bytes] = set()

    def send(self, body: bytes, count: int) -> None:
        connection = HTTPConnection("127.0.0.1", PORT, timeout=120)
        for _ in range(count):
            start = time.perf_counter()
            connection.request("POST", "/predict", body)
            self.answers.add(connection.getresponse().read())
            self.seconds.append(time.perf_counter() - start)
        connection.close()


def _sent(body: bytes, clients: int, server: int) -> tuple[Times, list[_Client]]:
    """Seconds until all requests are answered, and the clients; processor time is the server's."""
    all_clients = [_Client() for _ in range(clients)]
    start, used = time.perf_counter(), _processor_seconds(server)
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(lambda client: client.send(body, REQUESTS // clients), all_clients))
    return Times(time.perf_counter() - start, _processor_seconds(server) - used), all_clients


def _processor_seconds(server: int) -> float:
    """Seconds that a process and its own processes have used on Linux."""
    total = 0
    for process in (server, *_children(server)):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def _children(server: int) -> list[int]:
    return [
        int(child)
        for thread in Path(f"/proc/{server}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]


@contextmanager
def _server(model: str, *options: str, cores: set[int] | None = None) -> Iterator[int]:
    """A server on some of the cores, by its process id."""
    command = [sys.executable, "-m", "einthoven", "serve", model, "--port", str(PORT)]
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or before)  # inherited
    server = subprocess.Popen(
        [*command, "--timeout", "120", *options], stdout=subprocess.PIPE, text=True
    )
    os.sched_setaffinity(0, before)
    assert server.stdout is not None
    try:
        server.stdout.readline()
        yield server.pid
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


def _throughput(name: str, model: str, body: bytes) -> Row:
    """Throughput of many clients and of one, alternately."""
    one, many = [], []
    with _server(model) as server:
        _sent(body, 2, server)
        for _ in range(ROUNDS):
            one.append(_sent(body, 1, server))
            many.append(_sent(body, CLIENTS, server))
    answers = set().union(*(client.answers for _, all in one + many for client in all))
    assert len(answers) == 1, f"{len(answers)} different answers"
    ours, baseline = (fastest([times for times, _ in rounds]) for rounds in (many, one))
    cpu = " and ".join(f"{1000 * times.cpu / REQUESTS:.0f}" for times in (ours, baseline))
    note = f"{Limits().workers} of {os.cpu_count()} cores, {cpu} ms of them; equal bytes"
    title = f"a request, {name}, {CLIENTS} clients against one"
    return speed_row(title, ours, baseline, per=REQUESTS, target=TARGET, note=note)


def _alone(model: str, body: bytes) -> tuple[Times, float]:
    """Times of the requests of one client to a server on one core, and their 95th percentile."""
    core = min(os.sched_getaffinity(0))
    with _server(model, "--workers", "1", cores={core}) as server:
        _sent(body, 1, server)
        rounds = [_sent(body, 1, server) for _ in range(ROUNDS)]
    seconds = [np.quantile(client.seconds, 0.95) for _, all in rounds for client in all]
    return fastest([times for times, _ in rounds]), float(np.median(seconds))


def _parts(body: bytes, models: dict[str, AnyModel]) -> str:
    """CPU time of the parts of a prediction, in words."""
    record = read_record(body)
    parts = {"read": lambda: read_record(body), "findings": lambda: findings(record)}
    words = [f"{name} {_cpu(part):.1f}" for name, part in parts.items()]
    for name, model in models.items():
        predictor = Predictor(model)
        prepared = predictor._prepared(lambda: record)
        assert isinstance(prepared, _Prepared)
        run = partial(predictor._runtime.outputs, prepared.route.network)
        for count in (1, 8):
            milliseconds = _cpu(partial(run, [prepared.signal] * count)) / count
            words.append(f"{name} {milliseconds:.1f}{' in a batch of 8' * (count > 1)}")
    return f"CPU ms: {', '.join(words)}"


def _cpu(call: Callable[[], object]) -> float:
    """The least CPU time of a call, ms."""
    times = []
    for _ in range(20):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def run() -> list[Row]:
    """Measure throughput and latency in both runtimes."""
    torch.set_num_threads(1)
    body, _ = dicom_content(sample_record())
    with tempfile.TemporaryDirectory() as folder:
        exported = export_onnx(SHIPPED, out=Path(folder, "model.onnx"))
        models = {"PyTorch": str(SHIPPED), "ONNX": str(exported)}
        rows = [_throughput(name, model, body) for name, model in models.items()]
        alone = {name: _alone(model, body) for name, model in models.items()}
        loaded: dict[str, AnyModel] = {
            "PyTorch": load_model(SHIPPED),
            "ONNX": load_onnx(exported, threads=1),
        }
        percentiles = ", ".join(f"{name} {1000 * p95:.0f} ms" for name, (_, p95) in alone.items())
        note = f"p95: {percentiles} (at most 60); {_parts(body, loaded)}"
    ours, baseline = alone["ONNX"][0], alone["PyTorch"][0]
    title = "a request of one client on one core, ONNX against PyTorch"
    return [*rows, speed_row(title, ours, baseline, per=REQUESTS, note=note)]


def main() -> None:
    """Print the table."""
    print_table(run(), title="Server")


if __name__ == "__main__":
    main()
