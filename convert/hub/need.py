"""What a job does with a source."""

from __future__ import annotations

from enum import Enum


class Need(Enum):
    """How much of a source a job reads."""

    HEADERS = "headers"
    """What it is; no weight."""
    PLAN = "plan"
    """Enough to plan a conversion to the byte; no weight."""
    WEIGHTS = "weights"
    """Everything."""
    TOKENIZER = "tokenizer"
    """The tokenizer alone."""
