"""Threads that do the work of requests, and take waiting records of one kind together."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import torch

Work = Callable[[Sequence[Any]], Sequence[Any]]
"""Results of several items, in their order; an exception in place of a result is raised."""


class _Job(NamedTuple):
    work: Work
    item: Any
    most: int  # items that may be taken together
    result: Future[Any]


class Workers:
    """Threads for the jobs of requests, each with one thread of PyTorch.

    A free thread takes the job that has waited longest, and with it those of the same work, up to
    their limit. Nothing waits for company: a batch is what arrived while all threads were busy.

    Parameters
    ----------
    count : int
        Number of threads.
    observe : callable
        Called with the number of items of every batch.
    """

    def __init__(self, count: int, observe: Callable[[int], None] = lambda size: None) -> None:
        self._observe = observe
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]
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

    def _run(self) -> None:
        torch.set_num_threads(1)
        while jobs := self._next():
            jobs = [job for job in jobs if job.result.set_running_or_notify_cancel()]
            if not jobs:
                continue
            self._observe(len(jobs))
            try:
                results = jobs[0].work([job.item for job in jobs])
            except Exception as error:
                results = [error] * len(jobs)
            for job, result in zip(jobs, results, strict=True):
                if isinstance(result, Exception):
                    job.result.set_exception(result)
                else:
                    job.result.set_result(result)
            del jobs, results  # the last batch is not kept until the next one

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
