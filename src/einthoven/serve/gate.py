"""What every request passes: token, limits, time, headers, metrics; no traceback leaves."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from einthoven.files import Json
from einthoven.serve.limits import Limits, RequestError

OPEN_PATHS = ("/", "/docs", "/healthz", "/openapi.json")
"""Paths that need no token, and all below `/assets/`: they hold nothing of a model or an ECG."""
_SHORT = 10.0  # s, to send a refusal after the time of a request
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_LOG = logging.getLogger("uvicorn.error")


class Metrics:
    """Counters of one server, in Prometheus' form."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        names: dict[str, Any] = {"namespace": "einthoven", "registry": self.registry}
        self.requests = Counter("requests", "Requests.", ["path", "status"], **names)
        self.seconds = Histogram("request_seconds", "Time of a request.", ["path"], **names)
        self.open = Gauge("open_requests", "Requests received, waiting or answered.", **names)
        sizes = (1, 2, 4, 8, 16, 32, 64)
        self.batch = Histogram("batch_records", "Records in a pass.", buckets=sizes, **names)


class Gate:
    """ASGI middleware in front of the application.

    Parameters
    ----------
    app : ASGI application
    limits : Limits
    metrics : Metrics
    token : str
        Bearer token; empty without one.
    paths : sequence of str
        Known paths, the only ones that metrics name.
    """

    def __init__(
        self, app: ASGIApp, *, limits: Limits, metrics: Metrics, token: str, paths: tuple[str, ...]
    ) -> None:
        self.app, self.limits, self.metrics, self.paths = app, limits, metrics, paths
        self._token = token.encode()
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        path = scope["path"] if scope["path"] in self.paths else "other"
        answer = _Answer(send)
        try:
            await self._answered(scope, receive, answer)
        except RequestError as refusal:
            await answer.refuse(refusal)
        except (ClientDisconnect, ConnectionError):
            answer.status = answer.status or 499  # as nginx counts a client that left
        except Exception:
            _LOG.exception("defect in the answer to %s", path)
            await answer.refuse(
                RequestError(
                    500, "internal error", remedy="see the server's log, and report the defect"
                )
            )
        finally:
            self.metrics.requests.labels(path, str(answer.status or 499)).inc()
            self.metrics.seconds.labels(path).observe(time.perf_counter() - start)

    async def _answered(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        self._check_token(scope)
        if scope["method"] != "POST":
            await self.app(scope, receive, answer.send)
            return
        if self._open >= self.limits.requests:
            raise RequestError(
                503,
                f"{self._open} requests are open",
                remedy="repeat the request later",
                headers={"Retry-After": "1"},
            )
        upload = _Upload(receive)
        self._open += 1
        self.metrics.open.inc()
        try:
            async with asyncio.timeout(self.limits.seconds):
                await self.app(scope, upload.receive, answer.send)
        except TimeoutError:
            seconds = f"{self.limits.seconds:g} s"
            raise (
                RequestError(504, f"no answer within {seconds}", remedy="repeat it later")
                if upload.is_complete
                else RequestError(
                    408, f"the body was not complete within {seconds}", remedy="send it faster"
                )
            ) from None
        finally:
            self._open -= 1
            self.metrics.open.dec()

    def _check_token(self, scope: Scope) -> None:
        path = scope["path"]
        if not self._token or path in OPEN_PATHS or path.startswith("/assets/"):
            return
        header = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, sent = header.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(sent.strip(), self._token):
            raise RequestError(
                401,
                "the bearer token is missing or wrong",
                remedy="send the header Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": "Bearer"},
            )


class _Upload:
    """The receiving side of a request, which notices its end."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.is_complete = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            self.is_complete = True
        return message


class _Answer:
    """The sending side of a request: adds headers, notes the status, sends refusals."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            present = {name.lower() for name, _ in message["headers"]}
            further = [
                (name.lower().encode(), value.encode())
                for name, value in _HEADERS.items()
                if name.lower().encode() not in present
            ]
            message["headers"] = [*message["headers"], *further]
        await self._send(message)

    async def refuse(self, refusal: RequestError) -> None:
        if self.status:  # the answer has begun
            return
        body = json.dumps(refusal_json(refusal.problem, refusal.remedy)).encode()
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",  # the rest of the body is not received
            **refusal.headers,
        }
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        async with asyncio.timeout(_SHORT):
            await self.send(
                {"type": "http.response.start", "status": refusal.status, "headers": pairs}
            )
            await self.send({"type": "http.response.body", "body": body})


def refusal_json(problem: str, remedy: str) -> Json:
    """The body of every refusal."""
    return {"problem": problem, "remedy": remedy}
