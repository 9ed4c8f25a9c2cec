"""How far weights are apart, as data: of each tensor, of roles and layers together, and of all."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .slabs import RowChanges


class Verdict(enum.StrEnum):
    """How two tensors compare: the strongest that holds.

    `BYTES`: their canonical encodings are the same, and so is every canonical byte. `VALUES`: every element is the same
    number (0 and -0 are). `DIFFERS`: some element is another number.
    """

    BYTES = "identical bytes"
    VALUES = "identical values"
    DIFFERS = "differs"


@dataclass(frozen=True)
class Sums:
    """Of tensors that differ: how many elements, and the sums of a², b², ab and (b - a)² over them."""

    elements: int = 0
    energy_a: float = 0.0
    energy_b: float = 0.0
    product: float = 0.0
    error: float = 0.0

    @property
    def rms_error(self) -> float:
        """√(Σ(b - a)² / n)."""
        return math.sqrt(self.error / self.elements) if self.elements else 0.0

    @property
    def relative_error(self) -> float:
        """‖b - a‖ / ‖a‖: 0 if nothing differs, infinite if a is zero and b is not."""
        if not self.error:
            return 0.0
        return math.sqrt(self.error / self.energy_a) if self.energy_a else math.inf

    @property
    def sqnr_db(self) -> float:
        """10 log10(Σa² / Σ(b - a)²) in decibels: infinite if nothing differs."""
        relative = self.relative_error
        return math.inf if relative == 0 else -math.inf if math.isinf(relative) else -20 * math.log10(relative)

    @property
    def cosine(self) -> float:
        """Σab / √(Σa² Σb²): 1 if nothing differs, 0 if one side is zero."""
        size = math.sqrt(self.energy_a) * math.sqrt(self.energy_b)
        return 1.0 if not self.error else self.product / size if size else 0.0


@dataclass(frozen=True)
class Spot:
    """The element that is farthest off.

    Attributes:
        stored, file: where B stores it.
        expert: which matrix of a stack; None where there is no stack.
        row, column: which element of the matrix; the column is None in a vector.
        block: which block of 32 of the row; None where elements are not in blocks.
        value_a, value_b: what both sides hold there.
    """

    stored: str
    file: str
    expert: int | None
    row: int
    column: int | None
    block: int | None
    value_a: float
    value_b: float


@dataclass(frozen=True)
class PackedDrift:
    """Of two packed tensors, the blocks whose bytes differ.

    Attributes:
        changed: how many.
        scale_only: how many of them in their scale byte alone.
        signed_zeros: how many codes are 0 on one side and -0 on the other.
        shifts: scale byte of B less that of A -> how many of them have it.
    """

    changed: int
    scale_only: int
    signed_zeros: int
    shifts: Mapping[int, int]


@dataclass(frozen=True)
class TensorDrift:
    """One canonical tensor on both sides.

    Attributes:
        name, role: of the inventory.
        layer: None for what belongs to none.
        verdict: how it compares.
        encodings: as stored in A and in B.
        stored: the names of the arrays that hold it in A and in B (its first part).
        elements: how many were compared.
        unit: "block" of 32 elements where either side is MXFP4, else "element".
        units, changed: how many there are, and how many of them hold another value.
        sums: all zero unless it differs.
        max_error: max |b - a|.
        worst: where that is; None unless it differs.
        packed: where both sides are packed and a byte differs.
        rows: of an embedding that differs.
        rows_left_out: how many rows one side has after those that were compared.
    """

    name: str
    role: str
    layer: int | None
    verdict: Verdict
    encodings: tuple[str, str]
    stored: tuple[str, str]
    elements: int
    unit: str
    units: int
    changed: int = 0
    sums: Sums = Sums()
    max_error: float = 0.0
    worst: Spot | None = None
    packed: PackedDrift | None = None
    rows: RowChanges | None = None
    rows_left_out: int = 0

    @property
    def share_changed(self) -> float:
        """Units that hold another value, of all."""
        return self.changed / self.units if self.units else 0.0


@dataclass(frozen=True)
class Totals:
    """Several tensors together. The figures are over those of them that differ.

    Attributes:
        tensors: how many there are of each verdict.
        elements, changed: of all of them: elements, and those in blocks that hold another value (where elements are in
            no blocks, those that hold another value).
        sums, worst_relative, lowest_sqnr_db, max_error: of those that differ.
    """

    tensors: Mapping[Verdict, int]
    elements: int
    changed: int
    sums: Sums
    worst_relative: float
    lowest_sqnr_db: float
    max_error: float

    @property
    def count(self) -> int:
        return sum(self.tensors.values())

    @property
    def share_changed(self) -> float:
        """Elements that changed, or whose block did, of all."""
        return self.changed / self.elements if self.elements else 0.0


@dataclass(frozen=True)
class TensorComparison:
    """Every tensor, by canonical name, in the order of their names."""

    tensors: Mapping[str, TensorDrift]

    @property
    def differing(self) -> list[TensorDrift]:
        """Those that differ, the largest relative error first."""
        found = [one for one in self.tensors.values() if one.verdict is Verdict.DIFFERS]
        return sorted(found, key=lambda one: (-one.sums.relative_error, one.name))

    @property
    def totals(self) -> Totals:
        return total(self.tensors.values())

    def by_role(self) -> dict[str, Totals]:
        """The totals of each role, the largest first."""
        roles: dict[str, list[TensorDrift]] = {}
        for one in self.tensors.values():
            roles.setdefault(one.role, []).append(one)
        found = {role: total(members) for role, members in roles.items()}
        return dict(sorted(found.items(), key=lambda item: -item[1].elements))

    def by_layer_and_role(self) -> dict[tuple[int | None, str], Totals]:
        """The totals of each role of each layer."""
        cells: dict[tuple[int | None, str], list[TensorDrift]] = {}
        for one in self.tensors.values():
            cells.setdefault((one.layer, one.role), []).append(one)
        return {cell: total(members) for cell, members in cells.items()}

    def shifts(self) -> dict[int, int]:
        """Scale byte of B less that of A -> packed blocks with other bytes that have it, of all tensors."""
        counts: dict[int, int] = {}
        for one in self.tensors.values():
            for shift, count in one.packed.shifts.items() if one.packed else ():
                counts[shift] = counts.get(shift, 0) + count
        return dict(sorted(counts.items()))


def total(tensors: Iterable[TensorDrift]) -> Totals:
    """What several tensors come to together."""
    members = list(tensors)
    verdicts = {verdict: sum(one.verdict is verdict for one in members) for verdict in Verdict}
    return Totals(
        tensors=verdicts,
        elements=sum(one.elements for one in members),
        changed=sum(one.changed * (one.elements // one.units) for one in members),
        sums=added(one.sums for one in members),
        worst_relative=max((one.sums.relative_error for one in members), default=0.0),
        lowest_sqnr_db=min((one.sums.sqnr_db for one in members), default=math.inf),
        max_error=max((one.max_error for one in members), default=0.0),
    )


def added(sums: Iterable[Sums]) -> Sums:
    """The sums over all of them, rounded once, so that their order does not matter."""
    columns = list(zip(*((one.elements, *_floats(one)) for one in sums), strict=True))
    if not columns:
        return Sums()
    return Sums(sum(columns[0]), *map(math.fsum, columns[1:]))


def _floats(sums: Sums) -> tuple[float, float, float, float]:
    return sums.energy_a, sums.energy_b, sums.product, sums.error
