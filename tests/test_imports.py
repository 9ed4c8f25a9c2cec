"""The house rules that a reader relies on: which way imports point, who may print, how long things are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("formats", "model", "kernels", "convert")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

COMMAND_LINE = [path for path in MODULES if path.parent == ROOT / "convert" / "cli"]

# folder -> the folders of the package that it may import
MAY_IMPORT = {
    "formats": {"formats"},
    "model": {"model", "formats"},
    "kernels": {"kernels", "formats"},
    "convert": {"convert", "model", "kernels", "formats"},
}
HEAVY = {"torch", "triton", "transformers", "numba"}
HEAVY_MODULES = {
    "convert/weights.py": {"torch"},
    "formats/codecs/numba_compile.py": {"numba"},
    "formats/codecs/numba_compare.py": {"numba"},
    "formats/codecs/numba_encode.py": {"numba"},
    "formats/codecs/numba_ggml.py": {"numba"},
    "formats/codecs/numba_kernels.py": {"numba"},
    "formats/codecs/numba_lanes.py": {"numba"},
    "formats/codecs/numba_mlx.py": {"numba"},
    "formats/codecs/numba_transpose.py": {"numba"},
    "model/forward.py": {"torch"},
    "model/rope.py": {"torch"},
}
HEAVY_FOLDERS = {"kernels/": HEAVY, "convert/validation/": {"torch"}, "convert/drift/": {"torch"}}
MAX_LINES, MAX_FUNCTION_LINES = 400, 60


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def every_module(path: Path) -> str:
    return name_of(path)


def imported(path: Path, nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Absolute dotted names of what is imported; the package's own begin with "gptoss_convert.", or are the package."""
    package = ["gptoss_convert", *path.relative_to(ROOT).parent.parts]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from .. import x` may name a module or a name in the package.
            yield from ([module] if node.module else (f"{module}.{alias.name}" for alias in node.names))


def at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes that run when the module is imported: not those inside functions, nor under TYPE_CHECKING."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def test_modules_are_found() -> None:
    assert len(MODULES) > 40
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(FOLDERS)


@pytest.mark.parametrize("path", MODULES, ids=every_module)
def test_imports_point_one_way(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    ours = {name.split(".")[1] for name in imported(path, ast.walk(parse(path))) if name.startswith("gptoss_convert.")}
    ours -= {"__version__"}
    assert ours <= MAY_IMPORT[folder]


@pytest.mark.parametrize("path", MODULES, ids=every_module)
def test_package_imports_itself_relatively(path: Path) -> None:
    assert not [
        node
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Import | ast.ImportFrom) and "gptoss_convert" in ast.unparse(node).split("import")[0]
    ]


@pytest.mark.parametrize("path", MODULES, ids=every_module)
def test_nothing_heavy_is_imported_with_a_module(path: Path) -> None:
    folder = next((heavy for heavy in HEAVY_FOLDERS if name_of(path).startswith(heavy)), "")
    allowed = HEAVY_FOLDERS.get(folder, set()) | HEAVY_MODULES.get(name_of(path), set())
    found = {name.partition(".")[0] for name in imported(path, at_import(parse(path)))} & HEAVY
    assert found <= allowed


def test_the_command_line_imports_nothing_of_ours_but_errors_when_it_is_imported() -> None:
    itself = "gptoss_convert.convert.cli"
    found = {name for path in COMMAND_LINE for name in imported(path, at_import(parse(path)))}
    ours = {name for name in found if name.startswith("gptoss_convert.") and not name.startswith(itself)}
    assert ours == {"gptoss_convert.__version__", "gptoss_convert.formats.errors"}


@pytest.mark.parametrize("path", MODULES, ids=every_module)
def test_only_the_command_line_prints_or_exits(path: Path) -> None:
    calls = {ast.unparse(node.func) for node in ast.walk(parse(path)) if isinstance(node, ast.Call)}
    loud = {"print", "exit", "quit", "sys.exit", "os._exit", "typer.echo", "typer.secho", "sys.stdout.write", "input"}
    assert path in COMMAND_LINE or calls.isdisjoint(loud)


@pytest.mark.parametrize("path", MODULES, ids=every_module)
def test_files_and_functions_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno + 1 <= MAX_FUNCTION_LINES, f"{name_of(path)}: {node.name}"


@pytest.mark.parametrize("path", MODULES, ids=every_module)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(parse(path))


def test_every_folder_of_modules_is_packaged() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for folder in {path.parent for path in MODULES}:
        parts = folder.relative_to(ROOT).parts
        assert f'"gptoss_convert.{".".join(parts)}" = "{"/".join(parts)}"' in text
        assert f'    "gptoss_convert.{".".join(parts)}",\n' in text
