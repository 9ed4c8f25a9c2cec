"""What a run did and what its proof found."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

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

    `files` are where the outputs are, in the order of the plan's paths. `digests` are the sources' canonical digests by
    canonical name (empty without verification). `rounded` counts, by canonical name, the values that the target's
    encoding could not hold; `rounded_digests` are digests of those tensors as they were written.
    """

    plan: Plan
    files: tuple[Path, ...]
    digests: dict[str, str] = field(default_factory=dict)
    rounded: dict[str, int] = field(default_factory=dict)
    rounded_digests: dict[str, str] = field(default_factory=dict)
    verdict: Verdict | None = None
