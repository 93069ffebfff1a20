"""einthoven post-trains ECG foundation models."""

from einthoven.version import __version__

__all__ = ["__version__"]
