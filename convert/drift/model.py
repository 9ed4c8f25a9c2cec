"""Two models, and one of them in bf16, run side by side through one layer: every weight of it is read once.

    stream ── norm ─ attention ── + ── norm ─ router ─ experts ── + ── stream        for each model on its own stream

Sequences lie one after the other in a stream: attention is computed of each alone, everything else of all together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import linear

from ...formats.codecs.encoding import BF16, MXFP4, canonical
from ...model.config import GptOssConfig
from ...model.forward import Arithmetic, LayerTrace, Weights, attention, rms_norm, route, router_logits, swiglu
from ..checkpoint import Checkpoint

Spans = Sequence[tuple[int, int]]
"""Where each sequence begins and ends in a stream."""


class LayerWeights:
    """Weights of which the dense tensors of one layer are read once, however often they are asked for."""

    def __init__(self, base: Weights) -> None:
        self._base = base
        self._dense: dict[str, Tensor] = {}

    def dense(self, name: str) -> Tensor:
        if name not in self._dense:
            self._dense[name] = self._base.dense(name)
        return self._dense[name]

    def rows(self, name: str, ids: Tensor) -> Tensor:
        return self._base.rows(name, ids)

    def expert(self, name: str, expert: int) -> Tensor:
        return self._base.expert(name, expert)

    def forget(self) -> None:
        """Before another layer: the tensors lie in buffers that it will fill."""
        self._dense.clear()


class RoundedWeights:
    """The weights of `base` in bf16, rounded to nearest even."""

    def __init__(self, base: Weights) -> None:
        self._base = base

    def dense(self, name: str) -> Tensor:
        return self._base.dense(name).bfloat16()

    def rows(self, name: str, ids: Tensor) -> Tensor:
        return self._base.rows(name, ids).bfloat16()

    def expert(self, name: str, expert: int) -> Tensor:
        return self._base.expert(name, expert).bfloat16()


@dataclass
class Stream:
    """A model on its way through the layers.

    Attributes:
        name: "A", "B" or "A in bf16".
        checkpoint: where its weights are stored.
        weights: in float32.
        computed: the weights in the dtype of its activations: `weights`, or the same in bf16.
        rounds: whether it computes in bf16.
        hidden: the residual stream [T, H].
    """

    name: str
    checkpoint: Checkpoint
    config: GptOssConfig
    arithmetic: Arithmetic
    weights: LayerWeights
    computed: LayerWeights
    rounds: bool
    hidden: Tensor = field(init=False, repr=False)

    def forget(self) -> None:
        """Before another layer."""
        self.weights.forget()
        self.computed.forget()


def embed(stream: Stream, tokens: Tensor) -> Tensor:
    """The residual stream before the first layer: [T, H]. The row of each token is read once."""
    ids, places = torch.unique(tokens, return_inverse=True)
    return stream.computed.rows("embedding.weight", ids)[places]


def attend(stream: Stream, layer: int, hidden: Tensor, spans: Spans) -> LayerTrace:
    """Attention on the residual stream `hidden` [T, H]: the first two parts of a trace."""
    trace, weights, name = LayerTrace(), stream.computed, f"layers.{layer}"
    trace.attention_input = rms_norm(stream.config, hidden, weights.dense(f"{name}.attention.norm.weight"))
    of_each = [
        attention(stream.config, layer, weights, trace.attention_input[begin:end], stream.arithmetic)
        for begin, end in spans
    ]
    trace.attention_output = torch.cat(of_each)
    return trace


def prepare_experts(stream: Stream, layer: int, trace: LayerTrace, hidden_before_moe: Tensor) -> None:
    """What lies between attention and the experts, on the residual stream `hidden_before_moe` [T, H]."""
    trace.hidden_before_moe = hidden_before_moe
    norm = stream.computed.dense(f"layers.{layer}.moe.norm.weight")
    trace.moe_input = rms_norm(stream.config, hidden_before_moe, norm)
    trace.router_logits = router_logits(layer, stream.computed, trace.moe_input, stream.arithmetic)


class _Matrix:
    """One expert's matrix in float32, as stored and as bf16 holds it."""

    def __init__(self, stream: Stream, layer: int, role: str, expert: int) -> None:
        name = f"layers.{layer}.moe.{role}.weight"
        self.role = role
        self.values = stream.weights.expert(name, expert)
        self._is_bf16 = canonical(stream.checkpoint.tensors[name].encoding) in (BF16, MXFP4)

    @property
    def rounded(self) -> Tensor:
        return self.values if self._is_bf16 else self.values.bfloat16().float()


class _Experts:
    """The experts of one layer for one stream: fed one expert after the other."""

    def __init__(self, stream: Stream, layer: int, trace: LayerTrace) -> None:
        self._stream, self._trace = stream, trace
        self._experts, self._shares = route(stream.config, trace.router_logits, stream.arithmetic)
        self._inputs = trace.moe_input.float()
        self._out = torch.zeros_like(self._inputs)
        self._biases = {
            name: stream.computed.dense(f"layers.{layer}.moe.{name}.bias").float() for name in ("gate", "up", "down")
        }
        self.chosen = set(self._experts.flatten().tolist())

    def activate(self, expert: int, gate: _Matrix, up: _Matrix) -> Tensor:
        """The activations of the tokens that are sent to `expert`, given its matrices."""
        inputs = self._inputs[(self._experts == expert).any(-1)]
        of_gate, of_up = (self._project(inputs, matrix, expert) for matrix in (gate, up))
        return swiglu(self._stream.config, of_gate, of_up, self._stream.arithmetic)

    def add(self, expert: int, activated: Tensor, down: _Matrix) -> None:
        """What `expert` adds to the output."""
        tokens, places = (self._experts == expert).nonzero(as_tuple=True)
        added = self._project(activated, down, expert)
        self._out.index_add_(0, tokens, added * self._shares[tokens, places, None])

    def _project(self, inputs: Tensor, matrix: _Matrix, expert: int) -> Tensor:
        values = matrix.rounded if self._stream.rounds else matrix.values
        return linear(inputs, values, self._biases[matrix.role][expert])

    def finish(self) -> None:
        """The trace gets its last parts."""
        trace = self._trace
        trace.moe_output = self._out.to(trace.moe_input.dtype)
        trace.hidden = (trace.hidden_before_moe + trace.moe_output).to(trace.hidden_before_moe.dtype)


def run_experts(
    layer: int, pairs: Sequence[tuple[Stream, LayerTrace]], on_expert: Callable[[], None] = lambda: None
) -> None:
    """The second half of a layer for streams that share their weights; fills each trace.

    Of the experts that any token of any stream is sent to, each matrix is read once.
    """
    experts = [_Experts(stream, layer, trace) for stream, trace in pairs]
    first = pairs[0][0]
    for expert in range(first.config.num_local_experts):
        using = [one for one in experts if expert in one.chosen]
        if using:
            gate, up = (_Matrix(first, layer, role, expert) for role in ("gate", "up"))
            activated = [one.activate(expert, gate, up) for one in using]
            down = _Matrix(first, layer, "down", expert)
            for one, values in zip(using, activated, strict=True):
                one.add(expert, values, down)
        on_expert()
    for one in experts:
        one.finish()
