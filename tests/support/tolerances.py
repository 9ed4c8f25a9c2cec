"""Every tolerance on what consumers compute from our files, and the reason for it.

Files are compared exactly. Tolerances exist only where another program computes with the weights; each is shown to
reject faults at least 50 times (tests/convert/test_consumers.py and test_mlx_consumer.py). Numbers are in nats.
"Measured" is the worst of the `tiny` demo's seeds 0 to 7 on x86-64: 39 positions each with xllamacpp 2026.10, 320 with
mlx-lm 0.32.2.
"""

from __future__ import annotations

from dataclasses import dataclass

from drift import Drift


@dataclass(frozen=True)
class Tolerance:
    """The most of each number of a `Drift`. `lead` bounds `disputed`: what leads by more must stay the likeliest."""

    mean_kl: float
    largest: float
    lead: float

    def excess(self, drift: Drift) -> float:
        """How many times the tolerance the drift is; within it up to 1."""
        return max(drift.mean_kl / self.mean_kl, drift.largest / self.largest, drift.disputed / self.lead)


F32 = Tolerance(mean_kl=1e-3, largest=1e-3, lead=2e-3)
"""Both sides compute in float32, in another order of sums. `largest` decides: it implies the other two.

Measured: largest 8e-5 with llama.cpp, 4e-5 with mlx-lm. The room is for other processors, whose kernels sum in other
orders.
"""

F16 = Tolerance(mean_kl=5e-5, largest=0.2, lead=0.05)
"""llama.cpp rounds activations to F16 (11 bits) before it multiplies them with F16 weights.

Measured: mean KL 5e-6, largest 0.094, no dispute. In seven seeds of eight largest is 0.02: rarely, rounding decides
which expert comes fourth.
"""

BF16 = Tolerance(mean_kl=5e-4, largest=0.6, lead=0.1)
"""llama.cpp rounds activations to BF16 (8 bits) before it multiplies them with BF16 weights.

Measured: mean KL 1.4e-4, largest 0.23, disputed 0.02.
"""

MXFP4 = Tolerance(mean_kl=2e-3, largest=1.0, lead=0.3)
"""llama.cpp quantizes activations to Q8_0 before it multiplies them with MXFP4 weights: 8 bits, one scale for 32.

Measured: mean KL 5e-4, largest 0.35, disputed 0.09; the same whether the other matrices are BF16, F16 or F32.
"""
