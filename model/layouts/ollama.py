"""Ollama's legacy GGUF layout, architecture `gptoss`: what Ollama's converter made before it took llama.cpp's names.

| Ollama            | q, k, v | gate, up     | experts' type           | experts' biases |                             |
|-------------------|---------|--------------|-------------------------|-----------------|-----------------------------|
| 0.11.0 … 0.11.4   | one     | rows in turn | 4, interleaved nibbles  | BF16            | published in August 2025    |
| 0.11.5 … 0.11.7   | one     | rows in turn | 4, interleaved nibbles  | F32             | q, k, v apart in 0.11.7 [1] |
| 0.11.8 … 0.12.5   | apart   | rows in turn | 39, ggml's own          | F32             |                             |
| 0.12.6 … 0.24     | apart   | apart        | 39, ggml's own          | F32             | published in October 2025   |
| from 0.30 on      |         |              |                         |                 | llama.cpp's layout          |

[1] always one if made from OpenAI's `original/`.

Norms, sinks, the router and the other biases are F32, matrices BF16. The table is the first line's, for it is what
every Ollama from 0.11.0 to 0.24 loads; files may have any of the others (`VARIANTS`). From 0.30 on Ollama loads only
files of the last legacy line: it renames, but neither splits nor reorders.

The published 20b files have 315 tensors and 13,780,154,624 bytes (August), 459 and 13,793,422,144 (October): with these
types, and no others, both leave as much for the metadata (13.8 MB).

Source: Ollama `convert/convert_gptoss.go`, `convert/reader.go` at fa7776fd, 1a19df1f, 4ae4f47b, 59412fbb, 93085127;
`model/models/gptoss/model.go` at f1373193; `llama/compat/llama-ollama-compat.cpp` at fb307609 (handle_gptoss).
Files: ggml-org/llama.cpp#15597, ollama/ollama#16480, #18373.
"""

from __future__ import annotations

from .gguf import FUSED_QKV
from .table import Rows, Table, Variants

NAME = "ollama-legacy"

_LAYER = "blk.{layer}"

TABLE: Table = {
    "embedding.weight": Rows("token_embd.weight"),
    "layers.{layer}.attention.norm.weight": Rows(f"{_LAYER}.attn_norm.weight"),
    **FUSED_QKV,
    "layers.{layer}.attention.o.weight": Rows(f"{_LAYER}.attn_out.weight"),
    "layers.{layer}.attention.o.bias": Rows(f"{_LAYER}.attn_out.bias"),
    "layers.{layer}.attention.sinks": Rows(f"{_LAYER}.attn_sinks"),
    "layers.{layer}.moe.norm.weight": Rows(f"{_LAYER}.ffn_norm.weight"),
    "layers.{layer}.moe.router.weight": Rows(f"{_LAYER}.ffn_gate_inp.weight"),
    "layers.{layer}.moe.router.bias": Rows(f"{_LAYER}.ffn_gate_inp.bias"),
    "layers.{layer}.moe.gate.weight": Rows(f"{_LAYER}.ffn_gate_up_exps.weight", first=0, step=2),
    "layers.{layer}.moe.gate.bias": Rows(f"{_LAYER}.ffn_gate_up_exps.bias", first=0, step=2),
    "layers.{layer}.moe.up.weight": Rows(f"{_LAYER}.ffn_gate_up_exps.weight", first=1, step=2),
    "layers.{layer}.moe.up.bias": Rows(f"{_LAYER}.ffn_gate_up_exps.bias", first=1, step=2),
    "layers.{layer}.moe.down.weight": Rows(f"{_LAYER}.ffn_down_exps.weight"),
    "layers.{layer}.moe.down.bias": Rows(f"{_LAYER}.ffn_down_exps.bias"),
    "norm.weight": Rows("output_norm.weight"),
    "unembedding.weight": Rows("output.weight"),
}

# The last three are llama.cpp's names, which Ollama has taken under its own architecture since 0.11.5.
VARIANTS: Variants = {
    "layers.{layer}.attention.q.weight": (Rows(f"{_LAYER}.attn_q.weight"),),
    "layers.{layer}.attention.q.bias": (Rows(f"{_LAYER}.attn_q.bias"),),
    "layers.{layer}.attention.k.weight": (Rows(f"{_LAYER}.attn_k.weight"),),
    "layers.{layer}.attention.k.bias": (Rows(f"{_LAYER}.attn_k.bias"),),
    "layers.{layer}.attention.v.weight": (Rows(f"{_LAYER}.attn_v.weight"),),
    "layers.{layer}.attention.v.bias": (Rows(f"{_LAYER}.attn_v.bias"),),
    "layers.{layer}.moe.gate.weight": (Rows(f"{_LAYER}.ffn_gate_exps.weight"),),
    "layers.{layer}.moe.gate.bias": (Rows(f"{_LAYER}.ffn_gate_exps.bias"),),
    "layers.{layer}.moe.up.weight": (Rows(f"{_LAYER}.ffn_up_exps.weight"),),
    "layers.{layer}.moe.up.bias": (Rows(f"{_LAYER}.ffn_up_exps.bias"),),
    "layers.{layer}.attention.o.weight": (Rows(f"{_LAYER}.attn_output.weight"),),
    "layers.{layer}.attention.o.bias": (Rows(f"{_LAYER}.attn_output.bias"),),
    "layers.{layer}.attention.sinks": (Rows(f"{_LAYER}.attn_sinks.weight"),),
    "layers.{layer}.moe.norm.weight": (Rows(f"{_LAYER}.post_attention_norm.weight"),),
}

# The experts' biases too: Ollama's first files have them in BF16, but ggml's add_id, used since 0.11.5, takes F32.
F32_ROLES = frozenset({"norm", "sinks", "router", "router bias", "attention bias", "expert bias"})
