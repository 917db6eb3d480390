"""The rooms of the package, and which of them may know which: read from the imports themselves."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import luamigrate

PACKAGE = Path(luamigrate.__file__).parent
ROOMS = ("cli", "migration", "preflight", "scripts", "server", "model")
"""In one line: each may import from itself and from those behind it."""
FILES = sorted(file for room in ROOMS for file in (PACKAGE / room).glob("*.py"))


def imported(file: Path) -> Iterator[str]:
    """Yield the modules that a file imports from the package, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.ImportFrom(module=str() as module, names=names) if module.split(".")[0] == "luamigrate":
                yield from (f"{module}.{name.name}" for name in names)
            case ast.Import(names=names):
                yield from (name.name for name in names if name.name.split(".")[0] == "luamigrate")


def test_every_module_has_a_room() -> None:
    """Only how the package begins stands outside."""
    assert {file.name for file in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py", "start.py"}
    assert {folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists()} == set(ROOMS)
    assert len(FILES) > len(ROOMS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_imports_point_one_way(file: Path) -> None:
    """From the command line towards the model, and never back."""
    room = ROOMS.index(file.parent.name)
    for name in imported(file):
        other = name.split(".")[1]
        # The package itself offers the API, and its version; the rooms know where things are.
        assert other in (*ROOMS[room:], "__version__"), f"{file.name} imports {name}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Within a room neither."""
    known = {f"luamigrate.{file.parent.name}.{file.stem}": file for file in FILES}
    known["luamigrate.start"] = PACKAGE / "start.py"
    needs = {
        name: {module for one in imported(file) for module in known if one == module or one.startswith(f"{module}.")}
        for name, file in known.items()
    }
    while free := [name for name, needed in needs.items() if not needed & needs.keys() - {name}]:
        for name in free:
            del needs[name]
    assert needs == {}


def test_the_model_needs_the_standard_library_alone() -> None:
    """So that rules and status words can be tried without a server."""
    for file in (PACKAGE / "model").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [name.name for name in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert name.split(".")[0] in {*sys.stdlib_module_names, "luamigrate"}, f"{file.name} imports {name}"


KINDS = {"Standalone", "Cluster"}
"""What a deployment may be."""


def distinctions(tree: ast.AST) -> Iterator[str]:
    """Yield the places where code asks which kind of deployment it has."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, asked]):
                kinds = ast.walk(asked)
            case ast.MatchClass(cls=asked):
                kinds = ast.walk(asked)
            case ast.Compare(left=ast.Call(func=ast.Name(id="type"))):
                kinds = ast.walk(node)
            case _:
                continue
        names = {getattr(one, "id", getattr(one, "attr", "")) for one in kinds}
        if names & KINDS:
            yield ast.unparse(node)


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_only_the_router_knows_a_server_from_a_cluster(file: Path) -> None:
    """Everybody else asks the deployment what they want to know."""
    if file.parent.name != "server" and (file.parent.name, file.name) != ("migration", "routing.py"):
        assert list(distinctions(ast.parse(file.read_text(encoding="utf-8")))) == []


def test_asking_for_the_kind_is_seen() -> None:
    """However it is written."""
    for text in ("isinstance(one, Cluster)", "isinstance(one, (str, Standalone))", "isinstance(one, cluster.Cluster)"):
        assert list(distinctions(ast.parse(text))) == [text]
    assert list(distinctions(ast.parse("type(one) is Standalone"))) == ["type(one) is Standalone"]
    assert list(distinctions(ast.parse("match one:\n    case Cluster(): pass"))) == ["Cluster()"]
    assert list(distinctions(ast.parse("isinstance(one, str)"))) == []
