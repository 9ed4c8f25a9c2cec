"""Runs groups of checks of the kernels on one device and prints their figures as JSON.

A process of its own, because Triton's interpreter must be chosen before Triton is imported. Whatever a kernel leaves
unwritten is NaN, or a number no index may have: `torch.empty` is poisoned.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from typing import Any

import torch


def poison() -> None:
    empty = torch.empty

    def poisoned(*args: Any, **kwargs: Any) -> torch.Tensor:
        made = empty(*args, **kwargs)
        return made.fill_(float("nan") if made.is_floating_point() else torch.iinfo(made.dtype).max)

    torch.empty = poisoned


def main(device: str, groups: list[str]) -> None:
    torch.set_num_threads(1)
    poison()
    if os.environ.get("TRITON_INTERPRET") == "1":
        import interpreter

        interpreter.quicken()
        interpreter.lend_dot_scaled()
    found: dict[str, Any] = {}
    for group in groups:
        try:
            for name, figure in importlib.import_module(f"kernel_{group}_checks").figures(device):
                assert f"{group}: {name}" not in found
                found[f"{group}: {name}"] = figure
        except Exception:
            found[f"{group} broke"] = traceback.format_exc()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
