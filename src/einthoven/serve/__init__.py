"""Models over HTTP: predictions, explanations and embeddings of uploaded ECGs, and a web page.

The page also exists as static files (`site`), with the model in the visitor's browser; that needs
neither the server nor its packages.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from einthoven.serve.app import create_app
    from einthoven.serve.limits import Limits
    from einthoven.serve.models import Similar
    from einthoven.serve.run import serve
    from einthoven.serve.site import write_site

__all__ = ["Limits", "Similar", "create_app", "serve", "write_site"]

# Imported when they are first used: the server and the static page need different extras.
_HOMES = {
    "Limits": "limits",
    "Similar": "models",
    "create_app": "app",
    "serve": "run",
    "write_site": "site",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
