"""Which experts a token goes to, which pairs an expert gets, and the weighted sum at the end. No atomics.

A *pair* is a token and one of its experts: pair token · top_k + slot. All results are the same in every run.
"""

from __future__ import annotations

import triton
import triton.language as tl

_LOWEST = tl.constexpr(-(2**31))


@triton.jit
def in_order(bits):
    """Bits of a float32, as an int32 of the same order as the floats; and back again."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def route_kernel(
    logits_ptr,  # float32 [n_tokens, E]
    experts_ptr,  # int32 [n_tokens, TOP_K]
    weights_ptr,  # float32 [n_tokens, TOP_K]
    n_tokens,
    E,
    TOP_K: tl.constexpr,
    SLOTS: tl.constexpr,  # TOP_K or more, and BE E or more; powers of two
    BT: tl.constexpr,
    BE: tl.constexpr,
):
    """Grid: (ceil(n_tokens / BT),). The largest logits in order, of equal ones the lower expert; NaN is the largest."""
    token, expert, slot = tl.program_id(0) * BT + tl.arange(0, BT), tl.arange(0, BE), tl.arange(0, SLOTS)[None, :]
    inside = (token < n_tokens)[:, None] & (expert < E)[None, :]
    logits = tl.load(logits_ptr + token.to(tl.int64)[:, None] * E + expert[None, :], mask=inside, other=0)
    order = in_order(tl.where(logits == 0, 0.0, logits).to(tl.int32, bitcast=True))
    order = tl.where(expert[None, :] < E, tl.where(logits != logits, 0x7FFFFFFF, order), _LOWEST)
    # One number says both: the logit above, the expert below, lower experts first.
    keys = (order.to(tl.int64) << 32) | (BE - 1 - expert).to(tl.int64)[None, :]
    chosen = tl.full([BT, SLOTS], float("-inf"), tl.float32)
    experts = tl.zeros([BT, SLOTS], tl.int32)
    for i in tl.static_range(TOP_K):
        best = tl.max(keys, axis=1)[:, None]
        logit = in_order((best >> 32).to(tl.int32)).to(tl.float32, bitcast=True)
        chosen = tl.where(slot == i, logit, chosen)
        experts = tl.where(slot == i, BE - 1 - (best & (BE - 1)).to(tl.int32), experts)
        if i == 0:
            largest = logit
        keys = tl.where(keys == best, (_LOWEST + tl.zeros([1, 1], tl.int64)) << 32, keys)
    shares = tl.where(slot < TOP_K, tl.exp(chosen - largest), 0.0)
    shares = shares / tl.sum(shares, axis=1)[:, None]
    at = token.to(tl.int64)[:, None] * TOP_K + slot
    inside = (token < n_tokens)[:, None] & (slot < TOP_K)
    tl.store(experts_ptr + at, experts, mask=inside)
    tl.store(weights_ptr + at, shares, mask=inside)


@triton.jit
def count_kernel(experts_ptr, counts_ptr, n_pairs, CHUNK: tl.constexpr):
    """Grid: (E,). How many of the pairs' experts int32 [n_pairs] are this one, to int32 [E]."""
    expert = tl.program_id(0)
    found = tl.zeros([CHUNK], tl.int32)
    for start in range(0, n_pairs, CHUNK):
        pair = start + tl.arange(0, CHUNK)
        found += (tl.load(experts_ptr + pair, mask=pair < n_pairs, other=-1) == expert).to(tl.int32)
    tl.store(counts_ptr + expert, tl.sum(found, axis=0))


@triton.jit
def group_kernel(
    experts_ptr,  # int32 [n_pairs]
    counts_ptr,  # int32 [E], from count_kernel
    pairs_ptr,  # int32 [tiles, BM], filled with n_pairs
    tile_experts_ptr,  # int32 [tiles], filled with -1
    n_pairs,
    E,
    BM: tl.constexpr,
    BE: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Grid: (E,). Writes the expert's pairs, in order, into tiles of its own, and its number beside them."""
    expert, other = tl.program_id(0), tl.arange(0, BE)
    tiles = tl.cdiv(tl.load(counts_ptr + other, mask=other < E, other=0), BM)
    first = tl.sum(tl.where(other < expert, tiles, 0), axis=0)
    n_tiles = tl.sum(tl.where(other == expert, tiles, 0), axis=0)
    for start in range(0, n_tiles, CHUNK):
        tile = start + tl.arange(0, CHUNK)
        tl.store(tile_experts_ptr + first + tile, expert, mask=tile < n_tiles)
    place = first * BM - 1
    for start in range(0, n_pairs, CHUNK):
        pair = start + tl.arange(0, CHUNK)
        mine = (tl.load(experts_ptr + pair, mask=pair < n_pairs, other=-1) == expert).to(tl.int32)
        tl.store(pairs_ptr + place + tl.cumsum(mine, axis=0), pair, mask=mine != 0)
        place += tl.sum(mine, axis=0)


@triton.jit
def combine_kernel(
    down_ptr,  # float32 [n_tokens, TOP_K, H]
    weights_ptr,  # float32 [n_tokens, TOP_K]
    out_ptr,  # float32 [n_tokens, H]
    H,
    TOP_K: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Grid: (n_tokens · ceil(H / BLOCK),). Each token's results times their weights, summed in the slots' order."""
    n_blocks = tl.cdiv(H, BLOCK)
    token = (tl.program_id(0) // n_blocks).to(tl.int64)
    h = tl.program_id(0) % n_blocks * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for slot in tl.static_range(TOP_K):
        pair = token * TOP_K + slot
        total += tl.load(weights_ptr + pair) * tl.load(down_ptr + pair * H + h, mask=h < H, other=0)
    tl.store(out_ptr + token * H + h, total, mask=h < H)
