"""Runs mypy on the package as users import it.

The repository root is the package, whatever its directory is called, so mypy is given a directory in which a link named
`gptoss_convert` points to it. Only the package's own folders are named: the link lies inside the root it points to.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("convert", "formats", "kernels", "model")


def main() -> int:
    directory = ROOT / "build" / "types"
    directory.mkdir(parents=True, exist_ok=True)
    link = directory / "gptoss_convert"
    if not link.is_symlink():
        link.symlink_to(ROOT, target_is_directory=True)
    packages = [argument for folder in FOLDERS for argument in ("-p", f"gptoss_convert.{folder}")]
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        str(ROOT / "pyproject.toml"),
        "-m",
        "gptoss_convert",
        *packages,
    ]
    return subprocess.run(command, cwd=directory, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
