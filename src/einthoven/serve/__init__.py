"""Models over HTTP: predictions, explanations and embeddings of uploaded ECGs, and a web page.

The page also exists as static files (`site`), with the model in the visitor's browser; that needs
neither the server nor its packages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from einthoven.lazy import lazy_names

if TYPE_CHECKING:
    from einthoven.serve.app import create_app
    from einthoven.serve.limits import Limits
    from einthoven.serve.models import Similar
    from einthoven.serve.run import serve
    from einthoven.serve.site import write_site

__all__ = ["Limits", "Similar", "create_app", "serve", "write_site"]

# Imported when they are first used: the server and the static page need different extras.
__getattr__ = lazy_names(
    __name__,
    {
        "Limits": "serve.limits",
        "Similar": "serve.models",
        "create_app": "serve.app",
        "serve": "serve.run",
        "write_site": "serve.site",
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
