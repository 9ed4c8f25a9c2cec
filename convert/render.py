"""Reports as tables and lines for a terminal. Makes text; prints nothing."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from .manifest import Manifest


def size(n_bytes: float) -> str:
    """Bytes for people, in decimal units as disks and model hubs count: 13.76 GB."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.2f} {unit}"
    return f"{n_bytes:.0f} bytes"


def count(number: float) -> str:
    """A number of parameters for people: 20.91 B."""
    for unit, factor in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= factor:
            return f"{number / factor:.2f} {unit}"
    return str(round(number))


def checkpoint_lines(report: dict[str, Any]) -> list[str]:
    """The head of `inspect`."""
    config, yarn = report["config"], report["config"]["yarn"]
    heads = f"{config['num_attention_heads']} heads, {config['num_key_value_heads']} for keys and values"
    truncate = f"truncate {str(yarn['truncate']).lower()}"
    if report["layout"] in ("gguf", "ollama-legacy"):
        truncate += "; llama.cpp computes as if it were true"
    return [
        f"{report['path']}: gpt-oss, {report['layout']} layout",
        f"  parameters   {report['parameters']:,} ({count(report['active_parameters'])} active for each token)",
        f"  tensor data  {report['tensor_bytes']:,} bytes ({size(report['tensor_bytes'])}), "
        f"{report['bits_per_weight']:.2f} bits per weight, {report['tensor_count']} tensors, {_files(report)}",
        f"  layers       {config['num_hidden_layers']}, hidden {config['hidden_size']}, intermediate "
        f"{config['intermediate_size']}, {heads}, head_dim {config['head_dim']}",
        f"  experts      {config['num_local_experts']}, {config['num_experts_per_tok']} active, "
        f"SwiGLU limit {config['swiglu_limit']:g}",
        f"  positions    {config['max_position_embeddings']:,}; YaRN × {yarn['factor']:g} from "
        f"{yarn['original_max_position_embeddings']:,} ({truncate}); every other layer sees the last "
        f"{config['sliding_window']}",
        f"  vocabulary   {config['vocab_size']:,} rows",
        *_tokenizer_lines(report["tokenizer"]),
        *(f"  note         {note}" for note in report["notes"]),
    ]


def _files(report: dict[str, Any]) -> str:
    n_files = len(report["files"])
    return f"{n_files} file" if n_files == 1 else f"{n_files} files"


def _tokenizer_lines(facts: dict[str, Any] | None) -> list[str]:
    if facts is None:
        return ["  tokenizer    none"]
    roles = [f"{role} {_token(facts[role])}" for role in ("bos", "eos", "pad")]
    stops = f"; stops at {', '.join(map(str, facts['stop_ids']))}" if facts["stop_ids"] else ""
    lines = [f"  tokens       {', '.join(roles)}{stops}"]
    if facts["n_text_tokens"] is not None:
        lines.append(
            f"  tokenizer    {facts['n_text_tokens']:,} text tokens, {facts['n_special_tokens']} special, "
            f"{facts['n_merges']:,} merges"
        )
    template = facts["template"]
    if template is None:
        lines.append("  template     none: chat front ends will not know how to talk to the model")
    else:
        kind = "the official one" if template["official"] else "not the official one"
        lines.append(
            f"  template     {kind}, {template['n_chars']:,} characters from {template['source']}, "
            f"sha256 {template['sha256'][:16]}…"
        )
    return lines + [f"  warning      {warning}" for warning in facts["warnings"]]


def _token(token: dict[str, Any]) -> str:
    text = token["text"] or "?"
    return text if token["id"] is None else f"{text} ({token['id']})"


def role_table(rows: list[dict[str, Any]]) -> Table:
    """Tensors by role with their true encodings."""
    table = plain_table("role", "encoding", "tensors", "parameters", "bytes", "bits/weight", "share")
    total = sum(row["bytes"] for row in rows)
    for row in rows:
        table.add_row(
            row["role"],
            row["encoding"],
            str(row["tensors"]),
            f"{row['parameters']:,}",
            f"{row['bytes']:,}",
            f"{row['bits_per_weight']:.2f}",
            f"{100 * row['bytes'] / total:.1f} %",
        )
    return table


def tensor_table(rows: list[dict[str, Any]]) -> Table:
    """Every stored array."""
    table = plain_table(
        "tensor", "dtype", "shape", "bytes", "offset", "file", left=("tensor", "dtype", "shape", "file")
    )
    for row in rows:
        shape = " × ".join(map(str, row["shape"]))
        # Text, not str: names may hold what Rich takes for markup.
        table.add_row(
            Text(row["name"]), row["dtype"], shape, f"{row['bytes']:,}", f"{row['offset']:,}", Text(row["file"])
        )
    return table


def plain_table(*columns: str, left: tuple[str, ...] = ("role", "encoding")) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(Text(column), justify="left" if column in left else "right", no_wrap=True)
    return table


def plan_lines(report: dict[str, Any]) -> list[str]:
    """What a run writes: files with their sizes, then notes."""
    lines = [
        f"{report['source']['path']} ({report['source']['layout']}) → {report['layout']}: "
        f"{report['parameters']:,} parameters, {report['bits_per_weight']:.2f} bits per weight"
    ]
    lines += [f"  {file['path']}  {file['bytes']:,} bytes" for file in report["files"]]
    return lines + [f"note: {note}" for note in report["notes"]]


def done_line(manifest: Manifest, seconds: float) -> str:
    """One line that says what was written."""
    plan = manifest.plan
    place = plan.layout.atomic_directory or plan.paths[0]
    files = f" and {len(plan.paths) - 1} more" if len(plan.paths) > 1 and plan.layout.atomic_directory is None else ""
    rate = f" ({size(plan.n_bytes / seconds)}/s)" if seconds > 0.1 else ""
    return f"wrote {place}{files}: {plan.n_bytes:,} bytes in {seconds:.1f} s{rate}"


def verdict_line(manifest: Manifest) -> str:
    """One line that says what was proven."""
    if manifest.verdict is None:
        return "not verified (--no-verify)"
    details = "; ".join(check.detail for check in manifest.verdict.checks[1:2] + manifest.verdict.checks[-1:])
    return f"verified: {details}"
