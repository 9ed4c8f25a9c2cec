"""MXFP4 as Ollama 0.11.0 to 0.11.7 stored it: blocks and scales joined, the nibbles left where they were.

    byte     0        1           2         ...       16
          | scale |  1    0  |   3    2   |       |  31    30  |    element: high nibble, low nibble

A block of ggml's own MXFP4 is as long and has the scale in the same place, but the nibbles in the split_half order.
Ollama 0.11.5 to 0.24 bring these blocks into ggml's order when they load them.

Source: Ollama `convert/convert_gptoss.go` at fa7776fd (`mxfp4.WriteTo`), `ml/backend/ggml/ggml.go` at 1a19df1f (Load).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .mxfp4 import Mxfp4, require_rows

BLOCK_BYTES = 17

# Sixteen bytes moved as one thing are seven times as fast as sixteen elements of one byte.
_CODES = np.dtype("V16")
_BLOCK = np.dtype([("scale", np.uint8), ("codes", _CODES)])


def join(mx: Mxfp4, out: NDArray[np.uint8]) -> None:
    """Writes `out` uint8 [N, G * 17] from blocks and their scales. Rows of `out` may lie any distance apart.

    Raises:
        CodecError: `out` has another dtype or shape.
    """
    n_rows, groups = mx.scales.shape
    require_rows("out", out, np.uint8, (n_rows, groups * BLOCK_BYTES))
    joined = out.view(_BLOCK)
    joined["codes"] = mx.blocks.view(_CODES)[..., 0]
    joined["scale"] = mx.scales


def part(data: NDArray[np.uint8], blocks_out: NDArray[np.uint8], scales_out: NDArray[np.uint8]) -> None:
    """Writes `blocks_out` uint8 [N, G, 16], interleaved, and `scales_out` uint8 [N, G]: the inverse of `join`.

    Args:
        data: uint8 [N, G * 17]. Rows of all three may lie any distance apart.
        blocks_out: written.
        scales_out: written.

    Raises:
        CodecError: an array has another dtype or shape.
    """
    n_rows, groups = scales_out.shape
    require_rows("data", data, np.uint8, (n_rows, groups * BLOCK_BYTES))
    require_rows("blocks_out", blocks_out, np.uint8, (n_rows, groups, 16))
    require_rows("scales_out", scales_out, np.uint8, (n_rows, groups))
    joined = data.view(_BLOCK)
    blocks_out.view(_CODES)[..., 0] = joined["codes"]
    scales_out[...] = joined["scale"]
