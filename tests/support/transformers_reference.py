"""transformers' own GptOss, computed in float32: what a checkpoint means.

The MXFP4 experts are decoded by transformers; decoding to BF16 is exact, and everything after it is float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import GptOssConfig, GptOssForCausalLM, Mxfp4Config


class Reference:
    """The model of the official checkpoint at `checkpoint`.

    Args:
        checkpoint: a directory in the official layout.
        truncate: how YaRN's correction range is rounded. Official configs say False; llama.cpp computes as if True.
        changes: other values for keys of the config, to see what they do.
    """

    def __init__(self, checkpoint: Path, *, truncate: bool, **changes: object) -> None:
        torch.set_num_threads(1)  # The models are too small to share between threads.
        config = GptOssConfig.from_pretrained(checkpoint)
        config.rope_parameters["truncate"] = truncate
        for key, value in changes.items():
            assert hasattr(config, key)
            setattr(config, key, value)
        self._model = GptOssForCausalLM.from_pretrained(
            checkpoint,
            config=config,
            dtype=torch.bfloat16,
            quantization_config=Mxfp4Config(dequantize=True),
            attn_implementation="eager",
        )
        self._model.float().eval()

    def log_probs(self, prompt: Sequence[int]) -> NDArray[np.float64]:
        """Log-probabilities of every token after each token of the prompt: [len(prompt), vocabulary]."""
        return torch.log_softmax(self._run(prompt).logits[0].double(), dim=-1).numpy()

    def residual_rms(self, prompt: Sequence[int]) -> list[float]:
        """Root mean square of the residual stream before the first layer and after each, over all tokens."""
        streams: list[torch.Tensor] = []
        layers = self._model.model.layers
        hooks = [layers[0].register_forward_pre_hook(lambda _, inputs: streams.append(inputs[0]))]
        hooks += [layer.register_forward_hook(lambda _, __, output: streams.append(output)) for layer in layers]
        self._run(prompt)
        for hook in hooks:
            hook.remove()
        return [stream.square().mean().sqrt().item() for stream in streams]

    @torch.no_grad()
    def _run(self, prompt: Sequence[int]) -> Any:
        return self._model(torch.tensor([list(prompt)]))
