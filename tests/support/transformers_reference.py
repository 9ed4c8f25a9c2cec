"""transformers' own GptOss, computed in float32: what a checkpoint means.

MXFP4 experts are decoded by transformers; decoding to BF16 is exact, and everything after it is float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import GptOssConfig, GptOssForCausalLM, Mxfp4Config

# What llama.cpp and mlx-lm must not compute of the `tiny` demo, whose window is 32 tokens: arguments of `Reference`.
OTHER_ARITHMETIC: dict[str, dict[str, Any]] = {
    "truncate is false": {"truncate": False},
    "window is one longer": {"truncate": True, "sliding_window": 33},
    "window is one shorter": {"truncate": True, "sliding_window": 31},
    "no clamp": {"truncate": True, "swiglu_limit": 1e9},
    "alpha is 1": {"truncate": True, "swiglu_alpha": 1.0},
    "three experts per token": {"truncate": True, "num_experts_per_tok": 3},
}


class Reference:
    """The model of the checkpoint at `checkpoint`.

    Args:
        checkpoint: a directory in Hugging Face's layout, its experts MXFP4 or BF16.
        truncate: how YaRN's correction range is rounded; as the config says if None. Official configs say False;
            llama.cpp and mlx-lm compute as if True.
        changes: other values for keys of the config, to see what they do.
    """

    def __init__(self, checkpoint: Path, *, truncate: bool | None = None, **changes: object) -> None:
        torch.set_num_threads(1)  # The models are too small to share between threads.
        config = GptOssConfig.from_pretrained(checkpoint)
        if truncate is not None:
            config.rope_parameters["truncate"] = truncate
        for key, value in changes.items():
            assert hasattr(config, key)
            setattr(config, key, value)
        self._model, loading = GptOssForCausalLM.from_pretrained(
            checkpoint,
            config=config,
            dtype=torch.bfloat16,
            quantization_config=Mxfp4Config(dequantize=True) if hasattr(config, "quantization_config") else None,
            attn_implementation="eager",
            output_loading_info=True,
        )
        # transformers fills what it does not find with random numbers, and goes on.
        assert not any(loading.values()), loading
        self._model.float().eval()

    def logits(self, prompt: Sequence[int]) -> NDArray[np.float32]:
        """Logits of every token after each token of the prompt: [len(prompt), vocabulary]."""
        return self._run(prompt).logits[0].numpy()

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
