"""Run the server until it is told to stop, and then finish what it has begun."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import uvicorn

from einthoven.serve.app import create_app
from einthoven.serve.limits import Limits
from einthoven.serve.models import Similar
from einthoven.serve.workers import one_thread

if TYPE_CHECKING:
    from einthoven.inference.runtimes import AnyModel

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(
    models: Mapping[str, AnyModel],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    token: str = "",
    device: str = "cpu",
    similar: Similar | None = None,
    started: Callable[[], None] = lambda: None,
) -> None:
    """Serve models until SIGINT or SIGTERM; requests that are open then are answered first.

    On Linux and the CPU, every worker computes in a process of its own. This process computes in
    one thread from then on, and so does each of them.

    Parameters
    ----------
    host, port
        Where to listen. The default is reached from this machine only.
    started : callable
        Called when the server listens.
    models, limits, token, device, similar
        As for `create_app`.

    Raises
    ------
    EvaluationError, ModelError
        As `create_app`.
    """
    limits = limits or Limits()
    one_thread()
    # Elsewhere, a forked process may not use the libraries of its parent.
    processes = device == "cpu" and sys.platform == "linux"
    app = create_app(
        models, limits=limits, token=token, device=device, processes=processes, similar=similar
    )
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(limits.seconds) + 1,
    )
    # Uvicorn stops at these signals, and raises them again when it has stopped.
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
    try:
        _Server(config, started).run()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._report = started

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started:
            self._report()
