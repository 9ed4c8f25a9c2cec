"""What a run did and what its proof found."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..formats.codecs.mxfp4_encode import EncodeStats
from .plan import Plan


@dataclass(frozen=True)
class Check:
    """One claim about the written files and whether it holds. `detail` says how it was seen, or what is wrong."""

    claim: str
    holds: bool
    detail: str


@dataclass(frozen=True)
class Verdict:
    """The proof of a conversion: it stands if every check holds."""

    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """True if every check holds."""
        return all(check.holds for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that do not hold."""
        return tuple(check for check in self.checks if not check.holds)


@dataclass(frozen=True)
class Manifest:
    """What a run did.

    `files` are where the outputs are, in the order of the plan's paths; the last are the small `texts`. The others are
    by canonical name:

    digests: the sources' canonical digests (empty without verification).
    rounded: how many values the target's encoding could not hold; rounded_digests: of those tensors as written.
    quantized: what turning floats into MXFP4 did; packed_digests: of the MXFP4 they became.
    differs: whether a tensor is other than the base's (empty without a base).
    """

    plan: Plan
    files: tuple[Path, ...]
    texts: tuple[tuple[Path, bytes], ...] = ()
    digests: dict[str, str] = field(default_factory=dict)
    rounded: dict[str, int] = field(default_factory=dict)
    rounded_digests: dict[str, str] = field(default_factory=dict)
    quantized: dict[str, EncodeStats] = field(default_factory=dict)
    packed_digests: dict[str, str] = field(default_factory=dict)
    differs: dict[str, bool] = field(default_factory=dict)
    verdict: Verdict | None = None
