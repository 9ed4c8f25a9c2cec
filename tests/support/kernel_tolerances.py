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

MXFP8 = 7e-2
"""Products of MXFP8 activations: the norm of the whole block's difference over the norm.

Rounding to e4m3 costs a normal vector 2.7e-2, before gate and up and again before down. Measured: 5.5e-2.
tests/kernels/test_native.py shows that every fault listed there is ten times more.
"""

MXFP4 = 3e-1
"""Products of MXFP4 activations: as MXFP8. Rounding to e2m1 costs 0.11 each time. Measured: 0.23; faults: 0.8 and up.
"""

SHARES = 1e-6
"""Weights of the chosen experts, each relative to itself: one float32 exponential and one division."""
