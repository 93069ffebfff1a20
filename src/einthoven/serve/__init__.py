"""Models over HTTP: predictions, explanations and embeddings of uploaded ECGs, and a web page."""

from einthoven.serve.app import create_app
from einthoven.serve.limits import Limits
from einthoven.serve.run import serve

__all__ = ["Limits", "create_app", "serve"]


def __dir__() -> list[str]:
    return sorted(__all__)
