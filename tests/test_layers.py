"""The house: wings in layers.  A file imports files of its own wing and of wings in lower layers, and nothing else."""

import ast
from pathlib import Path

import pytest

import stalegrid

ROOT = Path(stalegrid.__file__).parent

# From the bottom up: wings, and files of the root by their names.  Wings of one layer do not know each other.
LAYERS = (
    ("errors", "loading", "seeds", "version"),
    ("written", "objects"),
    ("programs", "data", "models", "sources", "stability"),
    ("observe",),
    ("stages", "checkpoints", "codecs"),
    ("partition", "consensus"),
    ("timing", "methods"),
    ("plans",),
    ("agents", "limits"),
    ("engines", "report", "transfer", "diagnosis"),
    ("config",),
    ("runs", "planner", "recipes", "doctor"),
    ("train", "studies"),
    ("commands",),
    ("cli", "__init__", "__main__"),
)
ROOMS = {"errors", "loading", "seeds", "version", "config", "train", "cli", "__init__", "__main__"}
"""Files of the root: the door, and what everybody sees."""

MODULES = sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def wing_of(name: str) -> str:
    return name.partition(".")[0]


def layer_of(wing: str) -> int:
    for i, layer in enumerate(LAYERS):
        if wing in layer:
            return i
    raise AssertionError(f"{wing} has no layer")


def imports_of(path: Path) -> set[str]:
    """Return the dotted names that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return found


def froms_of(path: Path) -> set[str]:
    """Return the modules that names are imported from."""
    return {
        node.module
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module
    }


def own_imports(path: Path) -> set[str]:
    modules = {name_of(m) for m in MODULES}
    names = {name.removeprefix("stalegrid.") for name in imports_of(path) if name.startswith("stalegrid.")}
    found = names & modules
    # "from stalegrid.data import Batches" names the folder and, beside it, no module: both mean the folder.
    return found - {name_of(path)}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_file_knows_its_own_wing_and_lower_ones(path: Path) -> None:
    mine = wing_of(name_of(path))
    wings = {wing_of(name) for name in own_imports(path)} - {mine}
    top = {"cli", "__init__", "__main__"}
    others = {wing for wing in wings if layer_of(wing) >= layer_of(mine) and not {wing, mine} <= top}
    assert not others, f"{name_of(path)} imports {others}, which do not lie below {mine}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_wing_is_entered_by_its_door(path: Path) -> None:
    mine = wing_of(name_of(path))
    inner = {name for name in own_imports(path) if "." in name and wing_of(name) != mine}
    around = {name for name in inner if f"stalegrid.{name}" in froms_of(path)}
    assert not around, f"{name_of(path)} imports from {around}, past their doors"


def test_the_house_has_no_more_rooms_in_its_root_and_layers_than_it_may() -> None:
    assert {name_of(path) for path in ROOT.glob("*.py")} == ROOMS
    assert len(LAYERS) <= 15


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_distributed_engine_imports_torch_distributed(path: Path) -> None:
    uses = any(name.startswith("torch.distributed") for name in imports_of(path))
    assert not uses or name_of(path).startswith("engines.distributed")


@pytest.mark.parametrize("wing", ["written", "programs", "stability"])
def test_what_is_pure_imports_no_torch(wing: str) -> None:
    for path in (ROOT / wing).rglob("*.py"):
        if path.stem not in ("messages",):
            assert not any(i.split(".")[0] == "torch" for i in imports_of(path)), path


def test_references_are_imported_by_one_file() -> None:
    users = {name_of(p) for p in MODULES if any(n.startswith("studies.reference") for n in own_imports(p))}
    assert {u for u in users if not u.startswith("studies.reference")} == {"studies.loops"}
