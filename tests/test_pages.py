"""What the pages tell a reader to type works: every command of docs/tasks, every example of docs/python.md."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from command_line import command
from pages import DOCS, code_blocks, commands
from safetensors.torch import load_file, save_file

from gptoss_convert.convert.checkpoint import open_checkpoint
from gptoss_convert.convert.plan import plan
from gptoss_convert.convert.run import run
from gptoss_convert.convert.targets.bf16 import Bf16Target

TASKS = sorted((DOCS / "tasks").glob("*.md"))
OURS = "gptoss-convert"


@pytest.fixture(scope="module")
def retrained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BF16 model as it comes from training: other values in the experts of one layer, and no digests beside it."""
    directory = tmp_path_factory.mktemp("retrained") / "model"
    run(plan(open_checkpoint(tiny), Bf16Target(directory)))
    (directory / "mxfp4_digests.json").unlink()
    for shard in directory.glob("*.safetensors"):
        tensors = load_file(shard)
        trained = {name for name in tensors if name.endswith("layers.2.mlp.experts.down_proj")}
        save_file({name: 1.01 * one if name in trained else one for name, one in tensors.items()}, shard)
    return directory


@pytest.fixture
def desk(tiny: Path, retrained: Path, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with everything the pages speak of, in which commands run. What is on the disk wins over the Hub."""
    shutil.copytree(tiny, tmp_path / "openai" / "gpt-oss-20b")
    shutil.copytree(retrained, tmp_path / "my-fine-tune")
    shutil.copy(tiny_gguf, tmp_path / "somebody.gguf")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_is_a_page_for_each_task() -> None:
    assert [page.stem for page in TASKS] == ["fine-tune", "mac-16gb", "rtx-3090", "somebodys-gguf"]


@pytest.mark.parametrize("page", TASKS, ids=lambda page: page.stem)
def test_every_command_of_a_page_works(page: Path, desk: Path) -> None:
    lines = commands(page)
    assert len(lines) >= 4
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == OURS, line
        outcome = command(*arguments)
        assert outcome.code == 0, f"{line}\n{outcome.out}\n{outcome.err}"
        assert outcome.out.strip(), line


def test_every_example_in_python_runs(desk: Path) -> None:
    examples = code_blocks(DOCS / "python.md", "python")
    assert len(examples) >= 5
    namespace: dict[str, object] = {}
    for example in examples:
        exec(compile(example, "docs/python.md", "exec"), namespace)
