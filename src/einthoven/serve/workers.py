"""Threads for the work of requests, which take waiting records of one kind together.

Python runs one thread at a time, and reading a file, findings and the network's calls are half of
a prediction's time in Python: threads alone use little more than one core. `Fork` is a process
behind a thread, which computes in its place.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, NoReturn, Protocol

Work = Callable[[Sequence[Any]], Sequence[Any]]
"""Results of several items, in their order; an exception in place of a result is raised."""


class _Job(NamedTuple):
    work: Work
    item: Any
    most: int  # items that may be taken together
    result: Future[Any]


class Runner(Protocol):
    """What computes the jobs of one thread."""

    def __call__(self, work: Work, items: Sequence[Any]) -> Sequence[Any]:
        """The results of `work`."""

    def close(self) -> None:
        """Give up what it holds."""


class Here:
    """The thread itself."""

    def __call__(self, work: Work, items: Sequence[Any]) -> Sequence[Any]:
        """The results of `work`."""
        return work(items)

    def close(self) -> None:
        """Nothing is held."""


class Workers:
    """Threads for the jobs of requests.

    A free thread takes the job that has waited longest, and with it those of the same work, up to
    their limit. Nothing waits for company: a batch is what arrived while all threads were busy.

    Parameters
    ----------
    count : int
        Number of threads.
    observe : callable
        Called with the number of items of every batch.
    runner : callable
        Makes what computes the jobs of a thread: `Here`, or a `Fork`.
    """

    def __init__(
        self,
        count: int,
        observe: Callable[[int], None] = lambda size: None,
        runner: Callable[[], Runner] = Here,
    ) -> None:
        self._observe = observe
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        runners = [runner() for _ in range(count)]  # processes are forked before there are threads
        self._threads = [
            threading.Thread(target=self._run, args=(each,), daemon=True) for each in runners
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Work, item: Any, *, most: int = 1) -> Future[Any]:
        """The future result of an item; `most` items of equal `work` are taken together."""
        job = _Job(work, item, most, Future())
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()
        return job.result

    def close(self) -> None:
        """Finish the jobs that wait, and end the threads."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self, runner: Runner) -> None:
        one_thread()
        while jobs := self._next():
            jobs = [job for job in jobs if job.result.set_running_or_notify_cancel()]
            if not jobs:
                continue
            self._observe(len(jobs))
            try:
                results = runner(jobs[0].work, [job.item for job in jobs])
            except Exception as error:
                results = [error] * len(jobs)
            for job, result in zip(jobs, results, strict=True):
                if isinstance(result, Exception):
                    job.result.set_exception(result)
                else:
                    job.result.set_result(result)
            del jobs, results  # the last batch is not kept until the next one
        runner.close()

    def _next(self) -> list[_Job]:
        """The next batch; empty at the end."""
        with self._changed:
            while not self._jobs and not self._is_closed:
                self._changed.wait()
            if not self._jobs:
                return []
            first = self._jobs.popleft()
            batch = [first]
            if first.most > 1:
                others: deque[_Job] = deque()
                while self._jobs:
                    job = self._jobs.popleft()
                    fits = len(batch) < first.most and job.work == first.work
                    (batch if fits else others).append(job)
                self._jobs = others
            return batch


class Fork:
    """A process that computes jobs, forked from this one, which shares its models' memory.

    It is replaced when it ends, as by a file that makes a library crash, and when a job takes
    longer than `seconds`: the request has been answered by then, and nothing else ends the work.

    Parameters
    ----------
    works : sequence of callable
        All works that it will be given.
    seconds : float
        Longest time of a job.
    """

    def __init__(self, works: Sequence[Work], seconds: float) -> None:
        self._works, self._seconds = list(works), seconds
        self._start()

    def __call__(self, work: Work, items: Sequence[Any]) -> Sequence[Any]:
        """The results of `work`.

        Raises
        ------
        RuntimeError
            If the process ended without them.
        """
        try:
            self._pipe.send((self._works.index(work), items))
            if self._pipe.poll(self._seconds):
                results: Sequence[Any] = self._pipe.recv()
                return results
        except (EOFError, OSError):
            pass
        self.close()
        self._start()
        raise RuntimeError("the process of a worker ended without a result, or took too long")

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)

    def _start(self) -> None:
        self._pipe, end = Pipe()
        parent, self._process = os.getpid(), os.fork()
        if self._process == 0:
            _compute(self._works, end, parent)
        end.close()


def _compute(works: Sequence[Work], pipe: Connection, parent: int) -> NoReturn:
    """Compute jobs from a pipe until the parent process ends."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # the parent answers what is open, then ends this
        # Open connections of clients would stay open with a copy of them.
        os.closerange(3, pipe.fileno())
        os.closerange(pipe.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        one_thread()
        while os.getppid() == parent:
            if not pipe.poll(1.0):
                continue
            place, items = pipe.recv()
            try:
                pipe.send(works[place](items))
            except Exception:  # of a work, or a result that cannot be sent
                pipe.send([RuntimeError(traceback.format_exc())] * len(items))
    except (EOFError, OSError):
        pass
    finally:
        os._exit(0)


def one_thread() -> None:
    """Let PyTorch compute in this thread alone, where it is used."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
