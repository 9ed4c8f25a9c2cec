"""What transformers' own `save_pretrained` makes of a checkpoint, in each spelling that is met.

All but one store experts dense, `gate_up_proj` [E, hidden, 2 * intermediate] and `down_proj` [E, intermediate, hidden],
gate and up in turn along the last axis. The tokenizer is not saved.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from checkpoints import edit_json
from transformers import GptOssConfig, GptOssForCausalLM, Mxfp4Config


def save_dense(checkpoint: Path, out: Path, *, dtype: torch.dtype = torch.bfloat16, shard: str = "1GB") -> Path:
    """A model of its own, without a quantization config, that holds the decoded weights: what training saves."""
    config = GptOssConfig.from_pretrained(checkpoint)
    del config.quantization_config
    model = GptOssForCausalLM(config).to(dtype)
    model.load_state_dict(_decoded(checkpoint).state_dict())
    model.save_pretrained(out, max_shard_size=shard)
    return out


def save_decoded(checkpoint: Path, out: Path) -> Path:
    """The model that was decoded when it was loaded.

    transformers 5 names the dense experts `gate_up_proj_blocks` and `down_proj_blocks`, BF16 with three axes, and has
    no `*_scales`. It cannot load them itself: it takes random experts instead, and goes on.
    """
    _decoded(checkpoint).save_pretrained(out)
    return out


def in_spelling_of_transformers_4(directory: Path) -> Path:
    """The config as transformers 4.57 would have saved it."""
    edit_json(directory / "config.json", _older)
    return directory


def _older(config: dict[str, Any]) -> None:
    scaling = config.pop("rope_parameters")
    config["rope_theta"] = scaling.pop("rope_theta")
    config["rope_scaling"] = scaling
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.57.6"
    del config["bos_token_id"], config["swiglu_alpha"]


def _decoded(checkpoint: Path) -> GptOssForCausalLM:
    model = GptOssForCausalLM.from_pretrained(
        checkpoint, dtype=torch.bfloat16, quantization_config=Mxfp4Config(dequantize=True)
    )
    assert isinstance(model, GptOssForCausalLM)
    return model
