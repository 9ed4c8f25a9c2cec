"""Attention on anybody's projections, and the MoE block stage by stage in torch: what kernels are compared with.

x [T, H] ── router ── experts, shares [T, k]
   └─ gate, up [T, k, I] ── activated [T, k, I] ── down [T, k, H] ── times shares, summed ── out [T, H]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from ...model.config import GptOssConfig
from ...model.forward import GPT_OSS, Arithmetic, Weights, attend, route, swiglu
from ...model.rope import rotate

PROJECTIONS = ("gate", "up", "down")
ATTENTION = ("q", "k", "v", "o")


@dataclass(frozen=True)
class MoeStages:
    """What a layer's experts computed.

    Attributes:
        experts: int64 [T, k], the experts of each token, largest share first.
        shares: [T, k], what their outputs are multiplied by.
        gate, up, activated: [T, k, I].
        down: [T, k, H], with its bias.
        out: [T, H].
    """

    experts: Tensor
    shares: Tensor
    gate: Tensor
    up: Tensor
    activated: Tensor
    down: Tensor
    out: Tensor


def attention_by(
    project: Callable[[str, Tensor], Tensor],
    config: GptOssConfig,
    layer: int,
    normalized: Tensor,
    sinks: Tensor,
    arithmetic: Arithmetic = GPT_OSS,
) -> Tensor:
    """What attention adds to the residual stream, [T, H].

    Args:
        project: "q", "k", "v" or "o" and inputs [T, …] to what that projection makes of them, bias in.
        config: the sizes and numbers.
        layer: which.
        normalized: [T, H].
        sinks: of each head.
        arithmetic: what is computed if not gpt-oss.
    """
    q, k, v = (project(name, normalized).view(len(normalized), -1, config.head_dim).transpose(0, 1) for name in "qkv")
    q, k = (rotate(heads, config, yarn=arithmetic.has_yarn) for heads in (q, k))
    window = config.sliding_window if arithmetic.slides(layer) else None
    return project("o", attend(q, k, v, sinks if arithmetic.has_sinks else None, window))


def every_expert(logits: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Rows such that each expert has one: which tokens they are, int64 [R], and their logits [R, E].

    They are the tokens themselves, and then tokens once more whose logits are raised for experts that no token chose.
    """
    n_tokens, n_experts = logits.shape
    chosen = torch.zeros(n_experts, dtype=torch.bool)
    chosen[logits.topk(top_k).indices.flatten()] = True
    rows, more = list(range(n_tokens)), []
    for number, group in enumerate(torch.split((~chosen).nonzero()[:, 0], top_k)):
        if len(group):
            rows.append(number % n_tokens)
            raised = logits[rows[-1]].clone()
            raised[group] = raised.max() + torch.arange(1, len(group) + 1).to(raised)
            more.append(raised)
    return torch.tensor(rows), torch.cat([logits, *(row[None] for row in more)])


def moe_stages(
    config: GptOssConfig,
    weights: Weights,
    layer: int,
    hidden: Tensor,
    logits: Tensor,
    arithmetic: Arithmetic = GPT_OSS,
) -> MoeStages:
    """The stages in the dtype of `hidden` (float32 or float64), one expert in memory at a time.

    Args:
        config: the sizes and numbers.
        weights: where weights come from.
        layer: which.
        hidden: normalized, [T, H].
        logits: the router's, [T, E].
        arithmetic: what is computed if not gpt-oss.
    """
    experts, shares = route(config, logits.to(hidden), arithmetic)
    n_tokens, chosen = experts.shape
    made = {name: hidden.new_empty(n_tokens, chosen, config.intermediate_size) for name in ("gate", "up", "activated")}
    down = hidden.new_empty(n_tokens, chosen, config.hidden_size)
    names = {name: f"layers.{layer}.moe.{name}" for name in PROJECTIONS}
    biases = {name: weights.dense(f"{stem}.bias").to(hidden, copy=True) for name, stem in names.items()}

    def project(inputs: Tensor, name: str, expert: int) -> Tensor:
        return linear(inputs, weights.expert(f"{names[name]}.weight", expert).to(hidden), biases[name][expert])

    for expert in torch.unique(experts).tolist():
        at = (experts == expert).nonzero(as_tuple=True)
        inputs = hidden[at[0]]
        # Weights are valid until the next are asked for: gate is multiplied before up is read.
        gate = project(inputs, "gate", expert)
        up = project(inputs, "up", expert)
        activated = swiglu(config, gate, up, arithmetic)
        down[at] = project(activated, "down", expert)
        made["gate"][at], made["up"][at], made["activated"][at] = gate, up, activated
    return MoeStages(experts, shares, **made, down=down, out=(down * shares[..., None]).sum(1))
