"""Where a token stands: rotary positions (RoPE), stretched by YaRN.

Element i of a head and element i + D/2 are a pair, turned by `position · frequency[i]`. Pairs that turn often within
the original context keep their frequency, pairs that turn less than once have it divided by `factor`, a ramp lies in
between. It runs over pairs `low … high`: as computed, or rounded outwards where the config says `truncate`.

Source: YaRN (arXiv 2309.00071), section 3; openai/gpt-oss `gpt_oss/torch/model.py`; transformers
`modeling_rope_utils.py`, which alone knows `truncate`.
"""

from __future__ import annotations

import math

import torch

from .config import GptOssConfig


def correction_range(config: GptOssConfig) -> tuple[float, float]:
    """The pairs that YaRN's ramp begins and ends at: 8.09 and 17.40 in the official models, 8 and 18 if truncated."""
    yarn = config.yarn
    low, high = (_pair_that_turns(turns, config) for turns in (yarn.beta_fast, yarn.beta_slow))
    if yarn.truncate:
        low, high = math.floor(low), math.ceil(high)
    return max(low, 0), min(high, config.head_dim - 1)


def _pair_that_turns(turns: float, config: GptOssConfig) -> float:
    """Which pair turns so many times within the original context; a fraction."""
    per_turn = config.yarn.original_max_position_embeddings / (2 * math.pi * turns)
    return config.head_dim / 2 * math.log(per_turn) / math.log(config.rope_theta)


def frequencies(config: GptOssConfig, *, yarn: bool = True) -> torch.Tensor:
    """Radians per position of each pair: float32 [D/2]. Without `yarn` those of plain RoPE."""
    pairs = torch.arange(config.head_dim // 2, dtype=torch.float32)
    plain = 1.0 / config.rope_theta ** (2 * pairs / config.head_dim)
    if not yarn:
        return plain
    low, high = correction_range(config)
    # transformers gives a ramp without length this one.
    ramp = ((pairs - low) / (high - low or 0.001)).clamp(0, 1)
    return plain / config.yarn.factor * ramp + plain * (1 - ramp)


def concentration(config: GptOssConfig) -> float:
    """What YaRN multiplies queries and keys by: 1.3466 in the official models."""
    return 0.1 * math.log(config.yarn.factor) + 1 if config.yarn.factor > 1 else 1.0


def rotate(heads: torch.Tensor, config: GptOssConfig, *, yarn: bool = True) -> torch.Tensor:
    """Queries or keys [heads, T, D], turned by their positions 0 … T - 1; same shape and dtype.

    Angles are products of float32 whatever the dtype, as everybody computes them: far from the start, rounding them
    otherwise would give other numbers.
    """
    positions = torch.arange(heads.shape[1], dtype=torch.float32)
    angles = (positions[:, None] * frequencies(config, yarn=yarn)).to(heads)
    scale = concentration(config) if yarn else 1.0
    cos, sin = angles.cos() * scale, angles.sin() * scale
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
