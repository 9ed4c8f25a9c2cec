"""mlx-lm's own gpt-oss, computed on the CPU in float32: what a directory means to MLX.

MXFP4 experts stay packed, as mlx-lm runs them; everything else is float32. mlx-lm rounds YaRN's correction range
whatever `truncate` says, and a clamp of 7 and an alpha of 1.702 are written in its code. It knows `rope_scaling` and
`rope_theta` only; where a config has `rope_parameters` instead, it computes without YaRN and says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from numpy.typing import NDArray

# Importing it would lower the whole process's limit of open files.
with mock.patch("resource.setrlimit"):
    from mlx_lm.utils import load_model, load_tokenizer


class MlxReference:
    """The model in `directory`: in the official layout, or in MLX's own.

    `parameters` maps the names of mlx-lm's parameters to (dtype, shape, bytes), as loaded.
    """

    def __init__(self, directory: Path) -> None:
        mx.set_default_device(mx.cpu)
        self._model, config = load_model(directory)
        self._tokenizer = load_tokenizer(directory, eos_token_ids=config["eos_token_id"])
        self.parameters = {
            name: (str(array.dtype), array.shape, bytes(memoryview(array.view(mx.uint8))))
            for name, array in tree_flatten(self._model.parameters())
        }
        self._model.set_dtype(mx.float32)

    def log_probs(self, prompt: Sequence[int]) -> NDArray[np.float64]:
        """Log-probabilities of every token after each token of the prompt: [len(prompt), vocabulary]."""
        logits = np.array(self._model(mx.array([list(prompt)]))[0], np.float64)
        return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)

    def tokens(self, text: str) -> list[int]:
        """The ids of a text."""
        return list(self._tokenizer.encode(text))

    @property
    def eos_token_ids(self) -> set[int]:
        """Where generation stops."""
        return set(self._tokenizer.eos_token_ids)
