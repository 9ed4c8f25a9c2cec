"""Runs the decode kernels on one device and compares with float64 arithmetic. Exits with 1 on any difference."""

from __future__ import annotations

import sys

import numpy as np
import torch

from gptoss_convert.kernels.decode import decode_ggml, decode_planes

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def every_code_and_scale() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes [256, 3, 32], scales [256, 3]: each of the 16 codes under each scale byte, in rows of three blocks."""
    scales = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    codes = np.stack([np.arange(32) % 16, np.arange(31, -1, -1) % 16, np.arange(32) * 7 % 16]).astype(np.uint8)
    codes = np.broadcast_to(codes, (256, 3, 32))
    with np.errstate(over="ignore"):
        values = (E2M1[codes] * np.exp2(scales.astype(np.float64) - 127)[:, :, None]).astype(np.float32)
    values[255] = np.nan
    return codes, scales, values.reshape(256, 96)


def check(name: str, found: torch.Tensor, expected: np.ndarray) -> None:
    actual = found.cpu().numpy()
    if not np.array_equal(actual.view(np.uint32)[:255], expected.view(np.uint32)[:255]):
        sys.exit(f"{name}: values differ")
    if not np.isnan(actual[255]).all():
        sys.exit(f"{name}: scale byte 255 is not NaN")


def main(device: str) -> None:
    codes, scales, expected = every_code_and_scale()
    blocks = codes[:, :, 0::2] | codes[:, :, 1::2] << 4
    ggml = np.concatenate([scales[:, :, None], codes[:, :, :16] | codes[:, :, 16:] << 4], axis=2)
    put = lambda array: torch.from_numpy(np.ascontiguousarray(array)).to(device)  # noqa: E731
    check("planes", decode_planes(put(blocks), put(scales)), expected)
    check("ggml blocks", decode_ggml(put(ggml)), expected)
    print("value-identical: 4096 codes and scales, 2 stored forms")


if __name__ == "__main__":
    main(sys.argv[1])
