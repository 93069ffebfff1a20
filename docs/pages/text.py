"""Paragraphs of the generated pages."""

from __future__ import annotations

import textwrap


def paragraph(*parts: str) -> str:
    """Sentences, in lines of at most 100 characters."""
    text = " ".join(" ".join(parts).split()).replace(" %", "\0%")  # never a line of its own
    filled = textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)
    return filled.replace("\0", " ")
