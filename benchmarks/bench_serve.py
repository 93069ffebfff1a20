"""The server with 32 clients, against one client that sends its requests one after the other.

    python benchmarks/bench_serve.py

The included model answers the simulated ECG, as DICOM, in a process of its own, from clients in
threads of this one. Both sides of a row send the same number of requests to the same server.
Waiting requests are predicted together, and every core has a thread that predicts, so the ratio
depends on the number of cores, which the note states. Every answer has to have the same bytes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import numpy as np

from einthoven.cohorts.synthetic import sample_record
from einthoven.records.dicom_write import dicom_content
from einthoven.serve import Limits
from table import Row, Times, fastest, print_table, speed_row

PORT, CLIENTS, REQUESTS, ROUNDS = 8917, 32, 160, 3
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


def _processor_seconds(process: int) -> float:
    """Seconds that a process has used on Linux."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run() -> list[Row]:
    """Measure throughput, alternately with one and with many clients."""
    body, _ = dicom_content(sample_record())
    command = [sys.executable, "-m", "einthoven", "serve", "--port", str(PORT), "--timeout", "120"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        server.stdout.readline()
        _sent(body, 2, server.pid)
        one, many = [], []
        for _ in range(ROUNDS):
            one.append(_sent(body, 1, server.pid))
            many.append(_sent(body, CLIENTS, server.pid))
    finally:
        server.terminate()
        server.wait()
    answers = set().union(*(client.answers for _, all in one + many for client in all))
    assert len(answers) == 1, f"{len(answers)} different answers"
    alone = [seconds for _, all in one for client in all for seconds in client.seconds]
    cores = f"{Limits().workers} of {os.cpu_count()} cores"
    note = f"{cores}; one client: p95 {1000 * np.quantile(alone, 0.95):.0f} ms; equal bytes"
    ours, baseline = (fastest([times for times, _ in rounds]) for rounds in (many, one))
    title = f"a request, {CLIENTS} clients against one"
    return [speed_row(title, ours, baseline, per=REQUESTS, target=TARGET, note=note)]


def main() -> None:
    """Print the table."""
    print_table(run(), title="Server")


if __name__ == "__main__":
    main()
