"""gpt-oss's forward pass in torch, layer by layer: what the weights of any layout compute.

    hidden ─┬─ norm ─ q, k, v ─ positions ─ attention with sinks ─ o ─┬─┬─ norm ─ router ─ top k ─ experts ─┬─ hidden
            └──────────────────────── + ──────────────────────────────┘ └─────────────── + ─────────────────┘

Weights are asked for one tensor at a time, and of the experts only those that tokens are sent to. Activations have the
dtype that the weights come in; norms, attention scores, router and logits are computed in float32, in float64 if
activations are. Below, T is the number of tokens, H the hidden size, E the experts, D the size of a head, V the
vocabulary.

Source: openai/gpt-oss `gpt_oss/torch/model.py`; transformers `models/gpt_oss/modeling_gpt_oss.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn.functional import linear

from .config import GptOssConfig
from .rope import rotate

# Attention scores held at once, over all heads: 16 MB in float32.
_SCORES = 1 << 22

# Rows of the unembedding decoded at once: 47 MB of float32 in the official models.
_UNEMBEDDING_ROWS = 4096


class Weights(Protocol):
    """A model's weights by canonical name ("layers.3.attention.q.weight"), all in the dtype of the activations.

    A tensor may lie in a buffer: it is valid until the same tensor of another layer, another expert of it, or other
    rows of it are asked for.
    """

    def dense(self, name: str) -> Tensor:
        """The whole tensor, in the shape that `inventory` says."""

    def rows(self, name: str, ids: Tensor) -> Tensor:
        """Rows `ids` (int64 [n]) of a matrix, in their order: [n, columns]."""

    def expert(self, name: str, expert: int) -> Tensor:
        """One expert's matrix of "layers.N.moe.gate.weight", "….up.weight" or "….down.weight": [outputs, inputs]."""


Moe = Callable[[int, Tensor, Tensor], Tensor]
"""Layer, normalized hidden states [T, H] and router logits [T, E] to the experts' output [T, H]."""


@dataclass(frozen=True)
class Arithmetic:
    """What gpt-oss computes and its config does not say. The defaults are gpt-oss; all else is a fault to be shown.

    What the config does say (window, clamp, experts per token, YaRN) is changed by giving another config.

    Attributes:
        swiglu_alpha: what a gate is multiplied by inside the sigmoid.
        up_offset: what is added to `up`.
        has_sinks: whether each head has a sink that takes a share of its attention.
        sliding_layers: which layers see the window only.
        has_yarn: whether positions are stretched; else they are plain RoPE.
        softmax_over: whether the chosen experts share 1 among them, or what is left of a softmax over all experts.
        has_router_bias: whether the router's bias is added.
    """

    swiglu_alpha: float = 1.702
    up_offset: float = 1.0
    has_sinks: bool = True
    sliding_layers: Literal["even", "odd", "all", "none"] = "even"
    has_yarn: bool = True
    softmax_over: Literal["chosen", "all"] = "chosen"
    has_router_bias: bool = True

    def slides(self, layer: int) -> bool:
        """True if `layer` sees the window only."""
        return {"even": layer % 2 == 0, "odd": layer % 2 == 1, "all": True, "none": False}[self.sliding_layers]


GPT_OSS = Arithmetic()


@dataclass
class LayerTrace:
    """What a layer computed, stage by stage; filled by `run_layer`. All [T, H] but `router_logits`, which is [T, E]."""

    attention_input: Tensor = field(init=False, repr=False)
    attention_output: Tensor = field(init=False, repr=False)
    hidden_before_moe: Tensor = field(init=False, repr=False)
    moe_input: Tensor = field(init=False, repr=False)
    router_logits: Tensor = field(init=False, repr=False)
    moe_output: Tensor = field(init=False, repr=False)
    hidden: Tensor = field(init=False, repr=False)


def forward(
    config: GptOssConfig,
    weights: Weights,
    tokens: Tensor,
    moe: Moe | None = None,
    *,
    arithmetic: Arithmetic = GPT_OSS,
    residual: torch.dtype | None = None,
    on_layer: Callable[[int, LayerTrace], None] | None = None,
    last_only: bool = False,
) -> Tensor:
    """The logits after each token: [T, V], float32, or float64 if activations are.

    Args:
        config: the model's sizes and numbers.
        weights: where weights come from; their dtype is that of the activations.
        tokens: int64 [T], at positions 0 … T - 1.
        moe: the experts; `reference_moe` if None.
        arithmetic: what is computed if not gpt-oss.
        residual: dtype of the residual stream, if not that of the activations.
        on_layer: called after each layer with its number and what it computed.
        last_only: only the logits after the last token, [1, V].
    """
    moe = moe or reference_moe(config, weights, arithmetic)
    embedded = weights.rows("embedding.weight", tokens)
    hidden = embedded.to(residual or embedded.dtype)
    for layer in range(config.num_hidden_layers):
        trace = LayerTrace()
        hidden = run_layer(config, layer, weights, hidden, moe, trace, arithmetic)
        if on_layer is not None:
            on_layer(layer, trace)
    return unembed(config, weights, hidden[-1:] if last_only else hidden)


def unembed(config: GptOssConfig, weights: Weights, hidden: Tensor) -> Tensor:
    """The logits [T, V] of the last layer's output [T, H]. The unembedding is decoded some rows at a time."""
    normalized = rms_norm(config, hidden, weights.dense("norm.weight"))
    normalized = normalized.to(_wide(normalized))
    logits = normalized.new_empty(len(hidden), config.vocab_size)
    for begin in range(0, config.vocab_size, _UNEMBEDDING_ROWS):
        end = min(begin + _UNEMBEDDING_ROWS, config.vocab_size)
        rows = weights.rows("unembedding.weight", torch.arange(begin, end))
        logits[:, begin:end] = linear(normalized, rows.to(normalized.dtype))
    return logits


def run_layer(
    config: GptOssConfig,
    layer: int,
    weights: Weights,
    hidden: Tensor,
    moe: Moe,
    trace: LayerTrace | None = None,
    arithmetic: Arithmetic = GPT_OSS,
) -> Tensor:
    """The residual stream after `layer`, given that before it; [T, H], its dtype kept. Fills `trace`."""
    trace = trace or LayerTrace()
    name = f"layers.{layer}"
    trace.attention_input = rms_norm(config, hidden, weights.dense(f"{name}.attention.norm.weight"))
    trace.attention_output = attention(config, layer, weights, trace.attention_input, arithmetic)
    trace.hidden_before_moe = (hidden + trace.attention_output).to(hidden.dtype)
    trace.moe_input = rms_norm(config, trace.hidden_before_moe, weights.dense(f"{name}.moe.norm.weight"))
    trace.router_logits = router_logits(layer, weights, trace.moe_input, arithmetic)
    trace.moe_output = moe(layer, trace.moe_input, trace.router_logits)
    trace.hidden = (trace.hidden_before_moe + trace.moe_output).to(hidden.dtype)
    return trace.hidden


def rms_norm(config: GptOssConfig, hidden: Tensor, weight: Tensor) -> Tensor:
    """`hidden` [T, H] with a root mean square of 1, times `weight` [H], in the dtype of `weight`; rounded once."""
    wide = hidden.to(_wide(hidden))
    normalized = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + config.rms_norm_eps)
    return (weight.to(wide.dtype) * normalized).to(weight.dtype)


def attention(
    config: GptOssConfig, layer: int, weights: Weights, normalized: Tensor, arithmetic: Arithmetic = GPT_OSS
) -> Tensor:
    """What attention adds to the residual stream: [T, H]. `normalized`: [T, H]."""

    def project(inputs: Tensor, name: str) -> Tensor:
        weight, bias = (weights.dense(f"layers.{layer}.attention.{name}.{part}") for part in ("weight", "bias"))
        return linear(inputs, weight, bias)

    def heads(name: str) -> Tensor:
        projected = project(normalized, name)
        return projected.to(_wide(projected)).view(len(normalized), -1, config.head_dim).transpose(0, 1)

    q, k = (rotate(heads(name), config, yarn=arithmetic.has_yarn) for name in "qk")
    v = heads("v")
    sinks = weights.dense(f"layers.{layer}.attention.sinks").to(q) if arithmetic.has_sinks else None
    mixed = attend(q, k, v, sinks, config.sliding_window if arithmetic.slides(layer) else None)
    return project(mixed.to(normalized.dtype), "o")


def attend(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, window: int | None) -> Tensor:
    """Every query's mix of the values up to its own position: [T, heads · D].

    A sink is one more score in the softmax that no value belongs to. Queries are taken a few at a time, so that never
    all T × T scores exist.

    Args:
        q: [heads, T, D]; as many heads in a row share each key as there are heads per key.
        k, v: [heads of keys, T, D].
        sinks: [heads], or None.
        window: how many positions a query sees, its own included; None for all up to its own.
    """
    (n_heads, n_tokens, head_dim), n_keys = q.shape, len(k)
    q = q.reshape(n_keys, n_heads // n_keys, n_tokens, head_dim) / head_dim**0.5
    mixed = q.new_empty(n_tokens, n_heads, head_dim)
    window = n_tokens if window is None else window
    step = max(1, _SCORES // (n_heads * min(n_tokens, 2 * window)))
    for begin in range(0, n_tokens, step):
        end = min(begin + step, n_tokens)
        first = max(0, begin - window + 1)
        distance = torch.arange(begin, end)[:, None] - torch.arange(first, end)
        unseen = (distance < 0) | (distance >= window)
        scores = q[:, :, begin:end].flatten(1, 2) @ k[:, first:end].mT
        scores = scores.view(n_keys, n_heads // n_keys, end - begin, end - first)
        scores.masked_fill_(unseen.to(scores.device), -torch.inf)
        total = scores.logsumexp(-1, keepdim=True)
        if sinks is not None:
            total = torch.logaddexp(total, sinks.view(n_keys, -1, 1, 1))
        shares = (scores - total).exp_().flatten(1, 2)
        mixed[begin:end] = (shares @ v[:, first:end]).view(n_heads, end - begin, head_dim).transpose(0, 1)
    return mixed.flatten(1)


def router_logits(layer: int, weights: Weights, normalized: Tensor, arithmetic: Arithmetic = GPT_OSS) -> Tensor:
    """How much each token is drawn to each expert: [T, E], float32, or float64 if `normalized` [T, H] is."""
    weight, bias = (weights.dense(f"layers.{layer}.moe.router.{part}") for part in ("weight", "bias"))
    wide = _wide(normalized)
    return linear(normalized.to(wide), weight.to(wide), bias.to(wide) if arithmetic.has_router_bias else None)


def route(config: GptOssConfig, logits: Tensor, arithmetic: Arithmetic = GPT_OSS) -> tuple[Tensor, Tensor]:
    """The experts of each token, largest share first, and their shares: int64 and the dtype of `logits`, [T, k].

    The shares of a token add up to 1. `logits`: [T, E].
    """
    chosen, experts = logits.topk(config.num_experts_per_tok, dim=-1)
    if arithmetic.softmax_over == "all":
        return experts, logits.softmax(-1).gather(-1, experts)
    return experts, chosen.softmax(-1)


def swiglu(config: GptOssConfig, gate: Tensor, up: Tensor, arithmetic: Arithmetic = GPT_OSS) -> Tensor:
    """`(up + 1) · gate · sigmoid(1.702 gate)`, `up` clamped on both sides, `gate` above only; all [T, intermediate]."""
    gate = gate.clamp(max=config.swiglu_limit)
    up = up.clamp(-config.swiglu_limit, config.swiglu_limit)
    return (up + arithmetic.up_offset) * gate * torch.sigmoid(arithmetic.swiglu_alpha * gate)


def reference_moe(config: GptOssConfig, weights: Weights, arithmetic: Arithmetic = GPT_OSS) -> Moe:
    """The experts by torch's matmuls, in float32, or in float64 if hidden states are.

    Only experts that a token is sent to are asked for, one matrix at a time.
    """

    def moe(layer: int, hidden: Tensor, logits: Tensor) -> Tensor:
        experts, shares = route(config, logits, arithmetic)
        wide = hidden.to(_wide(hidden))
        biases = {name: weights.dense(f"layers.{layer}.moe.{name}.bias").to(wide) for name in ("gate", "up", "down")}

        def project(inputs: Tensor, name: str, expert: int) -> Tensor:
            weight = weights.expert(f"layers.{layer}.moe.{name}.weight", expert)
            return linear(inputs, weight.to(wide.dtype), biases[name][expert])

        out = torch.zeros_like(wide)
        for expert in sorted(set(experts.flatten().tolist())):
            tokens, places = (experts == expert).nonzero(as_tuple=True)
            inputs = wide[tokens]
            gate, up = (project(inputs, name, expert) for name in ("gate", "up"))
            down = project(swiglu(config, gate, up, arithmetic), "down", expert)
            out.index_add_(0, tokens, down * shares[tokens, places, None].to(wide.dtype))
        return out.to(hidden.dtype)

    return moe


def _wide(activations: Tensor) -> torch.dtype:
    """What sums are taken in."""
    return torch.promote_types(activations.dtype, torch.float32)
