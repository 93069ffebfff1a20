"""Limits of the server, and its refusals: each has a status, a problem and a remedy."""

from __future__ import annotations

import os

from einthoven.errors import EinthovenError, EvaluationError, validated


@validated("Limits", EvaluationError)
class Limits:
    """What the server accepts.

    Attributes
    ----------
    body : int
        Largest body of a request, bytes; status 413.
    seconds : float
        Time of a request: an upload that is not complete by then has status 408, an answer that is
        not ready has 504.
    requests : int
        Requests with a body that are received, wait or are answered at the same time; further
        ones have status 503. The bodies are in memory, so `requests` times `body` bounds it.
    workers : int
        Threads that read, predict and explain; each uses one core.
    batch : int
        Largest number of waiting records in one pass of the network.
    """

    body: int = 20_000_000
    seconds: float = 30.0
    requests: int = 64
    workers: int = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    batch: int = 8

    def __post_init__(self) -> None:
        if min(self.body, self.requests, self.workers, self.batch) < 1 or self.seconds <= 0:
            raise EvaluationError(f"a limit of {self} is not positive", remedy="use 1 or more")


class RequestError(EinthovenError):
    """A request that is not answered.

    Parameters
    ----------
    status : int
        HTTP status.
    problem, remedy : str
        As for every EinthovenError.
    headers : dict of str to str, optional
        Further headers of the answer.
    """

    def __init__(
        self, status: int, problem: str, *, remedy: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(problem, remedy=remedy)
        self.status = status
        self.headers = headers or {}
