"""What consumers themselves make of a cache of keys and values: the bytes that they allocate."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

# A token is asked for, since the wheel's server may wait for ever when it is ended before it has begun.
_LOAD = """
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel = sys.argv[1], int(sys.argv[2]), 1
params.cache_type_k = params.cache_type_v = getattr(xllamacpp.ggml_type, sys.argv[3])
params.warmup, params.verbosity, params.cpuparams.n_threads = False, 5, 1
server = xllamacpp.Server(params)
server.handle_completions({"prompt": [1], "n_predict": 1})
del server
"""
_CELLS = re.compile(r"creating\s+(non-SWA|SWA) KV cache, size = (\d+) cells")
_BYTES = re.compile(r"KV buffer size =\s+([\d.]+) MiB")


def llama_cpp_cells(gguf: Path, context: int) -> tuple[int, int]:
    """Cells of layers that see everything and of layers with a window, as llama.cpp says while it loads the file."""
    found = dict(_CELLS.findall(_llama_cpp_log(gguf, context, "GGML_TYPE_F16")))
    return int(found["non-SWA"]), int(found["SWA"])


def llama_cpp_mib(gguf: Path, context: int, kv_type: str) -> float:
    """MiB of both its buffers, rounded to hundredths by llama.cpp; those of the last context, which is the real one."""
    return sum(map(float, _BYTES.findall(_llama_cpp_log(gguf, context, kv_type))[-2:]))


def _llama_cpp_log(gguf: Path, context: int, kv_type: str) -> str:
    command = [sys.executable, "-c", _LOAD, str(gguf), str(context), kv_type]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True, timeout=60)
    return done.stdout + done.stderr


def transformers_bytes(checkpoint: Path, n_tokens: int) -> int:
    """Bytes of bfloat16 in the cache that generation uses, after a prompt of `n_tokens` - 1 and one more token."""
    import torch
    from transformers import AutoConfig, DynamicCache

    config = AutoConfig.from_pretrained(checkpoint)
    cache = DynamicCache(config=config)
    for new in (n_tokens - 1, 1):
        states = torch.zeros(1, config.num_key_value_heads, new, config.head_dim, dtype=torch.bfloat16)
        for layer in range(config.num_hidden_layers):
            cache.update(states, states, layer)
    return sum(part.numel() * part.element_size() for layer in cache.layers for part in (layer.keys, layer.values))


def mlx_bytes(config: dict[str, Any], pieces: list[int]) -> int:
    """The most bytes of bfloat16 that mlx-lm's cache holds while the prompt comes in pieces of so many tokens."""
    import mlx.core as mx
    from mlx_lm.models import gpt_oss

    model = gpt_oss.Model(gpt_oss.ModelArgs.from_dict(config))
    caches, most = model.make_cache(), 0
    for new in pieces:
        states = mx.zeros((1, config["num_key_value_heads"], new, config["head_dim"]), mx.bfloat16)
        for cache in caches:
            cache.update_and_fetch(states, states)
        most = max(most, sum(part.nbytes for cache in caches for part in (cache.keys, cache.values)))
    return most
