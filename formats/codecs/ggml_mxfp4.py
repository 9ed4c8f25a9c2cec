"""MXFP4 as ggml stores it: 17-byte blocks, the scale first, in the split_half nibble order.

    byte     0        1           2         ...       16
          | scale | 16    0  |  17    1  |       |  31    15  |    element: high nibble, low nibble

The interleaved order of `mxfp4` has 16 bytes per block, scales in an array of their own:

    byte      0             1           ...        15
          | 1    0    |  3     2    |        |  31    30   |

No code is decoded: the same 32 nibbles and the same scale byte change places, so the repacks are each other's inverse
for all bytes, NaN scales included. ggml itself decodes two things in its own way: code 8 (-0) as +0, and scale 255
(NaN) as 2^128.

Source: ggml `block_mxfp4` in ggml-common.h, `dequantize_row_mxfp4` in ggml-quants.c.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .accelerate import kernels
from .mxfp4 import Mxfp4, require_rows

BLOCK_BYTES = 17


def repack_to_ggml(mx: Mxfp4, out: NDArray[np.uint8]) -> None:
    """Writes `out` uint8 [N, G, 17], split_half, from interleaved blocks and their scales.

    Rows of `out` may lie any distance apart.

    Raises:
        CodecError: `out` has another dtype or shape.
    """
    require_rows("out", out, np.uint8, (*mx.scales.shape, BLOCK_BYTES))
    if mx.scales.size:
        kernels().repack_to_ggml(mx.blocks, mx.scales, out)


def repack_from_ggml(data: NDArray[np.uint8], blocks_out: NDArray[np.uint8], scales_out: NDArray[np.uint8]) -> None:
    """Writes `blocks_out` uint8 [N, G, 16], interleaved, and `scales_out` uint8 [N, G].

    Args:
        data: uint8 [N, G, 17], split_half. Rows of all three may lie any distance apart.
        blocks_out: written; for instance `gate_up[0::2]`.
        scales_out: written.

    Raises:
        CodecError: an array has another dtype or shape.
    """
    n_rows, groups = scales_out.shape
    require_rows("data", data, np.uint8, (n_rows, groups, BLOCK_BYTES))
    require_rows("blocks_out", blocks_out, np.uint8, (n_rows, groups, 16))
    require_rows("scales_out", scales_out, np.uint8, (n_rows, groups))
    if scales_out.size:
        kernels().repack_from_ggml(data, blocks_out, scales_out)
