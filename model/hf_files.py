"""The JSON files of an official gpt-oss directory, built from data; the small ones byte for byte.

transformers 4.55 wrote the official ones: two spaces, sorted keys, text as UTF-8, a final newline.
The same functions write a tiny model's or a fine-tune's files in that spelling.

Source: openai/gpt-oss-20b and -120b; each file's published SHA-256 is pinned in tests/model/test_hf_files.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ..formats.errors import ConfigError
from .config_checks import layer_types
from .harmony import (
    BOS_TOKEN,
    CALL_TOKEN,
    EOS_TOKEN,
    O200K_PATTERN,
    OFFICIAL_FIRST_SPECIAL,
    PAD_TOKEN,
    special_tokens,
)

# `int(1e30)`: transformers' way to say that a tokenizer has no length limit.
_NO_LENGTH_LIMIT = 1_000_000_000_000_000_019_884_624_838_656

_TRANSFORMERS_VERSION = "4.55.0.dev0"


GPT_OSS_20B: dict[str, object] = {
    "architectures": ["GptOssForCausalLM"],
    "attention_bias": True,
    "attention_dropout": 0.0,
    "eos_token_id": 200_002,
    "experts_per_token": 4,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2880,
    "initial_context_length": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 2880,
    "layer_types": layer_types(24),
    "max_position_embeddings": 131_072,
    "model_type": "gpt_oss",
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "output_router_logits": False,
    "pad_token_id": 199_999,
    "quantization_config": {
        "modules_to_not_convert": [
            "model.layers.*.self_attn",
            "model.layers.*.mlp.router",
            "model.embed_tokens",
            "lm_head",
        ],
        "quant_method": "mxfp4",
    },
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "rope_type": "yarn",
        "truncate": False,
    },
    "rope_theta": 150_000,
    "router_aux_loss_coef": 0.9,
    "sliding_window": 128,
    "swiglu_limit": 7.0,
    "tie_word_embeddings": False,
    "transformers_version": _TRANSFORMERS_VERSION,
    "use_cache": True,
    "vocab_size": 201_088,
}

GPT_OSS_120B: dict[str, object] = GPT_OSS_20B | {
    "layer_types": layer_types(36),
    "num_hidden_layers": 36,
    "num_local_experts": 128,
}


def official_json(values: Mapping[str, object]) -> bytes:
    """The bytes of a JSON file as transformers 4 writes it: indent 2, sorted keys, UTF-8, a final newline."""
    text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def official_config(values: Mapping[str, object]) -> bytes:
    """The bytes of config.json in the official spelling; keys that are not official are carried along.

    transformers 5 writes `rope_parameters` and `dtype` where the official files have `rope_scaling` with
    `rope_theta`, and `torch_dtype`. The older names are written: mlx-lm reads no other and drops YaRN silently.

    Args:
        values: config values in either spelling; not changed.

    Raises:
        ConfigError: both spellings are there and say different things.
    """
    config = dict(values)
    rope = config.pop("rope_parameters", None)
    if isinstance(rope, Mapping):
        scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
        _set_older_name(config, "rope_scaling", scaling, "rope_parameters")
        if "rope_theta" in rope:
            _set_older_name(config, "rope_theta", rope["rope_theta"], "rope_parameters")
    if "dtype" in config:
        _set_older_name(config, "torch_dtype", config.pop("dtype"), "dtype")
    return official_json(config)


def _set_older_name(config: dict[str, object], older: str, value: object, newer: str) -> None:
    if config.setdefault(older, value) != value:
        raise ConfigError(
            f"contradicts {newer!r}",
            file="config.json",
            key=older,
            expected=value,
            found=config[older],
            remedy="Remove the key that is wrong.",
        )


def generation_config(first_special: int = OFFICIAL_FIRST_SPECIAL) -> bytes:
    """The bytes of generation_config.json; generation stops at return, endoftext and call.

    Args:
        first_special: id of the first of the 21 special tokens.
    """
    ids = {token: token_id for token_id, token in special_tokens(first_special).items()}
    return official_json(
        {
            "bos_token_id": ids[BOS_TOKEN],
            "do_sample": True,
            "eos_token_id": [ids[EOS_TOKEN], ids[PAD_TOKEN], ids[CALL_TOKEN]],
            "pad_token_id": ids[PAD_TOKEN],
            "transformers_version": _TRANSFORMERS_VERSION,
        }
    )


def tokenizer_config(first_special: int = OFFICIAL_FIRST_SPECIAL) -> bytes:
    """The bytes of tokenizer_config.json, which names the 21 special tokens by id.

    Args:
        first_special: id of the first of the 21 special tokens.
    """
    return official_json(
        {
            # Integer keys, so that sorting is by id and not by the id's digits.
            "added_tokens_decoder": {
                token_id: _special_token(token) for token_id, token in special_tokens(first_special).items()
            },
            "bos_token": BOS_TOKEN,
            "clean_up_tokenization_spaces": False,
            "eos_token": EOS_TOKEN,
            "extra_special_tokens": {},
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": _NO_LENGTH_LIMIT,
            "pad_token": PAD_TOKEN,
            "tokenizer_class": "PreTrainedTokenizerFast",
        }
    )


def special_tokens_map() -> bytes:
    """The bytes of special_tokens_map.json: the texts of the first, the last and the padding token."""
    return official_json({"bos_token": BOS_TOKEN, "eos_token": EOS_TOKEN, "pad_token": PAD_TOKEN})


def tokenizer_json(tokens: Sequence[str], merges: Sequence[tuple[str, str]], specials: Mapping[int, str]) -> bytes:
    """The bytes of a tokenizer.json: byte-level BPE behind the o200k split, special tokens matched before it.

    Args:
        tokens: text tokens in the byte-level alphabet; a token's id is its place.
        merges: pairs of tokens, the first to apply first.
        specials: special tokens by id.

    Source: Hugging Face tokenizers 0.23 `Tokenizer.to_str`; parts as transformers' TikTokenConverter sets them.
    """
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    split = {"type": "Split", "pattern": {"Regex": O200K_PATTERN}, "behavior": "Isolated", "invert": False}
    to_bytes = byte_level | {"add_prefix_space": False, "use_regex": False}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(token_id, token) for token_id, token in specials.items()],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, to_bytes]},
        "post_processor": byte_level | {"trim_offsets": False},
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {token: token_id for token_id, token in enumerate(tokens)},
            "merges": merges,
        },
    }
    return json.dumps(document, indent=2, ensure_ascii=False).encode()


def _added_token(token_id: int, content: str) -> dict[str, object]:
    """An entry of tokenizer.json, its keys in the order the tokenizers library writes them."""
    entry = {"id": token_id} | _special_token(content)
    return {key: entry[key] for key in ("id", "content", "single_word", "lstrip", "rstrip", "normalized", "special")}


def _special_token(content: str) -> dict[str, object]:
    return {
        "content": content,
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
        "special": True,
    }
