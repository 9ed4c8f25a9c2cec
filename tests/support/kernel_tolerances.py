"""Every tolerance on what the kernels compute, and the reason for it. Decoding has none: it is exact.

"Measured" is the worst of all checks in the interpreter on x86-64. tests/kernels/test_moe.py shows that the faults
listed there exceed F32 at least a thousand times.
"""

from __future__ import annotations

F32 = 1e-5
"""Float32 products: the largest difference from float64 in units of the root mean square, of any stage.

Sums of up to 2,880 products, in another order on every device. Measured: 2.9e-6.
"""

BF16 = 1e-2
"""Products of bfloat16: the norm of the difference over the norm.

SwiGLU's result is rounded to 8 bits before it meets down; so are weights that need more. Measured: 3.5e-3.
"""

F16 = 1e-3
"""Products of float16: as BF16. SwiGLU's result is rounded to 11 bits, and weights that need more.

Measured: 5.2e-4.
"""

SHARES = 1e-6
"""Weights of the chosen experts, each relative to itself: one float32 exponential and one division."""
