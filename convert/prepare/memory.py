"""How much memory a model takes in each consumer: its cache of keys and values, and what a forward pass needs.

    keys and values   2 · heads · head_dim · bytes of one element, for each layer and each cell
    cells             one per token of the context in layers that see everything; in layers with a sliding window
                      about as many as the window, which each consumer rounds in its own way

Every consumer's own way is a function of its own below, taken from its source. Sizes of caches are exact. What a
forward pass needs and what a runtime takes for itself are estimates, explained in docs/prepare.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...model.config import GptOssConfig
from ...model.config_checks import layer_types
from .machines import GIB

LLAMA_CPP, OLLAMA, LM_STUDIO, VLLM = "llama.cpp", "ollama", "lm-studio", "vllm"
TRANSFORMERS, MLX, METAL = "transformers", "mlx", "metal"
# Those that run llama.cpp.
RUN_LLAMA_CPP = (LLAMA_CPP, OLLAMA, LM_STUDIO)

# Bytes of 32 elements of the cache.
KV_TYPES = {"f16": 64, "q8_0": 34, "f32": 128}

# llama.cpp: tokens that are computed at once, and the step that caches are rounded up to.
UBATCH, CELL_STEP = 512, 256
# vLLM: tokens in a block of the cache, tokens and sequences in one step of its scheduler as we start it.
BLOCK, BATCHED, SEQUENCES = 16, 2048, 256
# mlx-lm: the step that a cache grows by, and the tokens of a prompt that are computed at once.
MLX_STEP, MLX_PREFILL = 256, 2048
# transformers computes a prompt in one piece: this is the longest that we count with.
PROMPT = 2048
# OpenAI's Metal program: tokens computed at once.
METAL_BATCH = 128


@dataclass(frozen=True)
class Cells:
    """Tokens that the cache has room for in one layer: that sees everything, and that has a window."""

    full: int
    sliding: int


def n_layers(config: GptOssConfig) -> Cells:
    """How many layers there are of each kind."""
    kinds = layer_types(config.num_hidden_layers)
    return Cells(kinds.count("full_attention"), kinds.count("sliding_attention"))


def llama_cpp_cells(config: GptOssConfig, context: int) -> Cells:
    """Source: llama.cpp, llama-context.cpp (context rounded up) and llama-kv-cache-iswa.cpp (window and batch)."""
    full = _round_up(context, CELL_STEP)
    return Cells(full, _round_up(min(full, config.sliding_window + UBATCH), CELL_STEP))


def vllm_cells(config: GptOssConfig, context: int) -> Cells:
    """Source: vLLM, v1/kv_cache_interface.py: blocks of 16; for windows one more, since they begin inside a block."""
    window = min(config.sliding_window - 1 + BATCHED, context)
    return Cells(_round_up(context, BLOCK), _round_up(window, BLOCK) + BLOCK)


def transformers_cells(config: GptOssConfig, context: int) -> Cells:
    """Source: transformers 5, cache_utils.py: the window without the token being computed."""
    return Cells(context, min(context, config.sliding_window - 1))


def mlx_cells(config: GptOssConfig, context: int) -> Cells:
    """Source: mlx-lm, models/cache.py: a step of 256; a window and a piece of the prompt together at its largest."""
    return Cells(_round_up(context, MLX_STEP), min(context, config.sliding_window + MLX_PREFILL - 1))


def metal_cells(config: GptOssConfig, context: int) -> Cells:  # noqa: ARG001 - as the others
    """Source: gpt-oss, metal/source/context.c: all layers alike."""
    return Cells(context, context)


_CELLS: dict[str, Callable[[GptOssConfig, int], Cells]] = {
    LLAMA_CPP: llama_cpp_cells,
    OLLAMA: llama_cpp_cells,
    LM_STUDIO: llama_cpp_cells,
    VLLM: vllm_cells,
    TRANSFORMERS: transformers_cells,
    MLX: mlx_cells,
    METAL: metal_cells,
}


def cells_of(consumer: str, config: GptOssConfig, context: int) -> Cells:
    """The cells of one layer of each kind."""
    return _CELLS[consumer](config, context)


def kv_bytes(consumer: str, config: GptOssConfig, context: int, kv_type: str = "f16") -> int:
    """Bytes of the whole cache for one sequence of `context` tokens."""
    cells, layers = cells_of(consumer, config, context), n_layers(config)
    kv_type = "f32" if consumer == METAL else kv_type
    elements = 2 * config.num_key_value_heads * config.head_dim
    return (layers.full * cells.full + layers.sliding * cells.sliding) * elements * KV_TYPES[kv_type] // 32


def activation_bytes(consumer: str, config: GptOssConfig, context: int) -> int:
    """What a forward pass takes at its largest step. An estimate."""
    if consumer in RUN_LLAMA_CPP:
        return _llama_cpp_activations(config, context)
    if consumer == TRANSFORMERS:
        return _transformers_activations(config, context)
    if consumer == VLLM:
        return BATCHED * _moe_width(config) * 2 + SEQUENCES * config.vocab_size * 4
    tokens, element = (MLX_PREFILL, 2) if consumer == MLX else (METAL_BATCH, 4)
    logits = 2 * METAL_BATCH * config.vocab_size * 4 if consumer == METAL else config.vocab_size * 4
    return min(tokens, context) * _moe_width(config) * element + logits


def _moe_width(config: GptOssConfig) -> int:
    """Elements per token inside a layer: the residual twice, the attention's, gate, up and down of every expert."""
    attention = (config.num_attention_heads * 2 + config.num_key_value_heads * 2) * config.head_dim
    experts = config.num_experts_per_tok * (2 * config.intermediate_size + config.hidden_size)
    return 2 * config.hidden_size + attention + experts


def _llama_cpp_activations(config: GptOssConfig, context: int) -> int:
    """Its compute buffer: gate, up, their product and down of each pair in float32, the residual, masks in float16."""
    cells = llama_cpp_cells(config, context)
    width = max(config.intermediate_size, config.hidden_size)
    per_token = 4 * (4 * config.num_experts_per_tok * width + config.hidden_size) + 2 * (cells.full + cells.sliding)
    return UBATCH * per_token


def _transformers_activations(config: GptOssConfig, context: int) -> int:
    """Eager attention keeps four copies of a layer's scores; growing the cache makes a second copy of one layer's."""
    prompt = min(context, PROMPT)
    scores = 4 * config.num_attention_heads * prompt * (prompt + 1) * 2
    copy = config.num_key_value_heads * config.head_dim * 2 * context
    return scores + copy + prompt * _moe_width(config) * 2 + config.vocab_size * 4


# What is taken beside all that: the driver's context, kernels, graphs, the allocator's buffers. Allowances, no figures:
# llama.cpp keeps 1 GiB free itself (`--fit-target`); vLLM captures graphs; PyTorch's allocator rounds.
_RUNTIME = {LLAMA_CPP: GIB, OLLAMA: GIB, LM_STUDIO: GIB, VLLM: 2 * GIB, TRANSFORMERS: 3 * GIB // 2}
_RUNTIME_WITHOUT_CARD = GIB // 2


def runtime_bytes(consumer: str, *, on_card: bool) -> int:
    """What a consumer takes beside weights, cache and activations. An allowance."""
    return _RUNTIME.get(consumer, _RUNTIME_WITHOUT_CARD) if on_card else _RUNTIME_WITHOUT_CARD


def wired_limit(memory_bytes: int) -> int:
    """What macOS lets the GPU of a machine with so much memory have, unless it was told otherwise.

    Two thirds below 36 GiB and three quarters from there on; newer versions of macOS give some machines more.
    Source: recommendedMaxWorkingSetSize as llama.cpp logs it: 10,922 MiB of 16 GiB, 21,845 of 32 (ggml-org/llama.cpp
    #2011), 27,648 of 36, 49,152 of 64 (#1870).
    """
    return memory_bytes * 2 // 3 if memory_bytes < 36 * GIB else memory_bytes * 3 // 4


def system_reserve(memory_bytes: int) -> int:
    """What is left to the system and other programs: a tenth, and at least 2 GiB. A choice of ours."""
    return max(2 * GIB, memory_bytes // 10)


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step
