"""Threads that take waiting jobs together."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence

import pytest

pytest.importorskip("fastapi")

from einthoven.errors import RecordError
from einthoven.serve.workers import Fork, Workers


def test_waiting_jobs_are_taken_together_up_to_their_limit() -> None:
    sizes: list[int] = []
    gate, begun = threading.Event(), threading.Event()

    def hold(items: Sequence[int]) -> list[int]:
        begun.set()
        gate.wait(10)
        return list(items)

    def double(items: Sequence[int]) -> list[int]:
        return [2 * item for item in items]

    def negate(items: Sequence[int]) -> list[int]:
        return [-item for item in items]

    workers = Workers(1, sizes.append)
    first = workers.submit(hold, 0)
    begun.wait(10)
    doubled = [workers.submit(double, item, most=3) for item in range(4)]
    negated = [workers.submit(negate, item) for item in range(2)]
    gate.set()
    assert first.result(10) == 0
    assert [job.result(10) for job in doubled] == [0, 2, 4, 6]
    assert [job.result(10) for job in negated] == [0, -1]
    workers.close()
    assert sizes == [1, 3, 1, 1, 1]


def test_an_error_belongs_to_its_item_or_to_the_batch() -> None:
    def refuse_odd(items: Sequence[int]) -> list[object]:
        if 99 in items:
            raise RuntimeError
        return [ValueError(item) if item % 2 else item for item in items]

    workers = Workers(1)
    jobs = [workers.submit(refuse_odd, item) for item in (2, 3, 99, 4)]
    assert jobs[0].result(10) == 2
    with pytest.raises(ValueError, match="3"):
        jobs[1].result(10)
    with pytest.raises(RuntimeError):
        jobs[2].result(10)
    assert jobs[3].result(10) == 4
    workers.close()


def test_cancelled_jobs_are_left_out_and_others_finished_at_the_end() -> None:
    gate, begun = threading.Event(), threading.Event()
    done: list[int] = []

    def work(items: Sequence[int]) -> list[int]:
        begun.set()
        gate.wait(10)
        done.extend(items)
        return list(items)

    workers = Workers(1)
    jobs = [workers.submit(work, item) for item in range(3)]
    begun.wait(10)
    assert jobs[1].cancel()
    gate.set()
    workers.close()
    assert done == [0, 2]


def identify(items: Sequence[int]) -> list[int]:
    return [os.getpid()] * len(items)


def end(items: Sequence[int]) -> list[int]:
    os._exit(3)


def sleep(items: Sequence[int]) -> list[int]:
    time.sleep(30)
    return list(items)


def refuse(items: Sequence[int]) -> list[object]:
    if 99 in items:
        raise RecordError("ecg", "gain", 0, "must not be 0", remedy="correct it")
    return [RecordError("ecg", "gain", item, "is wrong", remedy="correct it") for item in items]


def lock(items: Sequence[int]) -> list[object]:
    return [threading.Lock() for _ in items]  # cannot be sent


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
def test_a_process_is_replaced_when_it_ends_or_takes_too_long() -> None:
    works = (identify, end, sleep, refuse, lock)
    workers = Workers(1, runner=lambda: Fork(works, 0.3))
    first = workers.submit(identify, 0).result(10)
    assert first != os.getpid()
    (refusal,) = (workers.submit(refuse, 7).exception(10),)
    assert isinstance(refusal, RecordError)
    assert refusal.value == 7
    for work in (lock, refuse):
        assert isinstance(workers.submit(work, 99).exception(10), RuntimeError)
    assert workers.submit(identify, 0).result(10) == first
    processes = [first]
    for work in (end, sleep):
        assert isinstance(workers.submit(work, 0).exception(10), RuntimeError)
        processes.append(workers.submit(identify, 0).result(10))
    workers.close()
    assert len(set(processes)) == 3
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
