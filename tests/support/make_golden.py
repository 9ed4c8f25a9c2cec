"""`make golden`: what ggml itself reads from the GGUF headers planned for the true 20b and 120b shapes.

One tensor or key per line, so that a change shows as what it is; the layers' tensors are written once, with `{layer}`.
The vocabulary is the demo's, as long as the true one but with fewer merges.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from ggml_gguf import ggml_read, library

from gptoss_convert.convert.demo import PRESETS, synthetic_checkpoint
from gptoss_convert.convert.plan import Layout
from gptoss_convert.convert.targets.gguf import GgufTarget
from gptoss_convert.convert.tokenizers import DirectoryTokenizer
from gptoss_convert.model.config import parse_config
from gptoss_convert.model.demo_tokenizer import demo_tokenizer_files

GOLDEN = Path(__file__).parents[1] / "golden"
MODELS = ("20b", "120b")

# ggml's numbers for types of values; 9 is an array.
_TYPES = ("u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "str", "arr", "u64", "i64", "f64")


def golden_path(model: str) -> Path:
    return GOLDEN / f"gguf_{model}.json"


def true_layout(model: str, directory: Path) -> Layout:
    """The GGUF layout of a preset's true shapes; its tokenizer's files are written to `directory`."""
    preset = PRESETS[model]
    config = parse_config(preset.config)
    for name, content in demo_tokenizer_files(preset.n_text, config.vocab_size).items():
        (directory / name).write_bytes(content)
    checkpoint = replace(synthetic_checkpoint(config, 0), tokenizer=DirectoryTokenizer(directory))
    return GgufTarget(directory / "model.gguf").lay_out(checkpoint)


def read_header(header: bytes, directory: Path) -> dict[str, Any]:
    """What ggml makes of a header alone: {key: [type, value]} and tensors [name, type, ne, bytes], in file order."""
    path = directory / "header.gguf"
    path.write_bytes(header)
    found = ggml_read(path)
    assert found is not None, "ggml refuses the header"
    kv = {key: _value(value_type, element_type, value) for key, value_type, element_type, value in found["kv"]}
    return {"kv": kv, "tensors": [_tensor(*tensor) for tensor in found["tensors"]]}


def _value(value_type: int, element_type: int | None, value: Any) -> list[Any]:
    """The type's name, and the value; of arrays their length, of long texts nothing."""
    if element_type is not None:
        return [f"{_TYPES[value_type]}[{_TYPES[element_type]}]", len(value)]
    return [_TYPES[value_type], value if len(str(value)) < 100 else "…"]


def _tensor(name: str, kind: int, ne: list[int], _offset: int, n_bytes: int) -> list[Any]:
    """name, type, ne without trailing ones, bytes."""
    n_dims = max((i for i, n in enumerate(ne, 1) if n > 1), default=1)
    return [name, library().ggml_type_name(kind).decode(), ne[:n_dims], n_bytes]


def folded(tensors: list[list[Any]], n_layers: int) -> dict[str, list[Any]]:
    """The tensors before, of and after the layers; those of a layer once, with `{layer}` in their names."""
    first = next(i for i, tensor in enumerate(tensors) if tensor[0].startswith("blk."))
    n_each = (len(tensors) - 3) // n_layers
    layer = [[name.replace("blk.0.", "blk.{layer}."), *rest] for name, *rest in tensors[first : first + n_each]]
    return {"before": tensors[:first], "layer": layer, "after": tensors[first + n_layers * n_each :]}


def unfolded(golden: dict[str, list[Any]], n_layers: int) -> list[list[Any]]:
    """The tensors that were folded, in file order."""
    layers = [[name.format(layer=n), *rest] for n in range(n_layers) for name, *rest in golden["layer"]]
    return [*golden["before"], *layers, *golden["after"]]


def text(model: str, read: dict[str, Any], n_layers: int) -> str:
    """The golden file."""
    folded_tensors = folded(read["tensors"], n_layers)
    assert unfolded(folded_tensors, n_layers) == read["tensors"], "the layers differ"
    sections = [f'"model": {json.dumps(model)}', f'"layers": {n_layers}', f'"kv": {_lines(read["kv"])}']
    sections += [f'"{name}": {_lines(tensors)}' for name, tensors in folded_tensors.items()]
    return "{\n" + ",\n".join(sections) + "\n}\n"


def _lines(value: dict[str, Any] | list[Any]) -> str:
    """JSON with one item per line."""
    if isinstance(value, dict):
        return "{\n" + ",\n".join(f"  {_json(key)}: {_json(item)}" for key, item in value.items()) + "\n}"
    return "[\n" + ",\n".join(f"  {_json(item)}" for item in value) + "\n]"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def main() -> None:
    for model in MODELS:
        with tempfile.TemporaryDirectory() as directory:
            layout = true_layout(model, Path(directory))
            read = read_header(layout.files[0].header, Path(directory))
        golden_path(model).write_text(text(model, read, n_layers=(len(read["tensors"]) - 3) // 19), encoding="utf-8")


if __name__ == "__main__":
    main()
