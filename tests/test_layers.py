"""Imports point down only: a file may import files of its own layer or of a lower one."""

import ast
from pathlib import Path

import pytest

import stalegrid

ROOT = Path(stalegrid.__file__).parent

# From the bottom up; a name ending in a dot is a whole folder.
LAYERS = (
    ("version", "errors", "numbers"),
    (
        "grid",
        "seeds",
        "files",
        "leaves",
        "losses",
        "spectral",
        "held",
        "reaching",
        "functions",
        "copies",
        "renewing",
        "aliases",
        "labels",
    ),
    ("program", "data.", "modes"),
    ("messages", "methods"),
    ("weights", "consensus.", "softsync", "serving", "live"),
    ("site", "partition.", "observe.", "deliveries"),
    ("views.", "corrections.", "ledger"),
    ("stage",),
    ("recomputing",),
    ("task", "config", "models.", "unequal"),
    ("timing.", "lateral"),
    ("devices", "sharding"),
    ("agents.observer", "agents.pipeline", "agents.learner", "agents.server", "agents.keyed", "agents"),
    ("sorting",),
    ("probe", "planning"),
    ("material",),
    ("plan", "show"),
    ("served",),
    ("agents.build_served", "recipe"),
    ("agents.build",),
    ("engines.", "reference.", "results", "comparison"),
    ("profile",),
    ("train", "loops"),
    ("verify", "compare", "rehearsal", "replay"),
    ("bench.",),
    ("commands.",),
    ("cli", "__init__"),
    ("__main__",),
)
MODULES = sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def layer_of(name: str) -> int:
    for i, layer in enumerate(LAYERS):
        if name in layer or any(entry.endswith(".") and f"{name}.".startswith(entry) for entry in layer):
            return i
    raise AssertionError(f"{name} has no layer")


def imports_of(path: Path) -> set[str]:
    """Return the dotted names that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return found


def own_imports(path: Path) -> set[str]:
    modules = {name_of(m) for m in MODULES}
    names = {name.removeprefix("stalegrid.") for name in imports_of(path) if name.startswith("stalegrid.")}
    found = names & modules
    # "from stalegrid.data import Batches" names the folder and, beside it, no module: both mean the folder.
    return found - {name_of(path)}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    mine = layer_of(name_of(path))
    above = {name for name in own_imports(path) if layer_of(name) > mine}
    assert not above, f"{name_of(path)} imports {above}, which lie above it"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_distributed_engine_and_peers_import_torch_distributed(path: Path) -> None:
    uses = any(name.startswith("torch.distributed") for name in imports_of(path))
    assert not uses or name_of(path).startswith(("engines.distributed", "bench.peers"))


@pytest.mark.parametrize("name", ["grid", "program", "methods", "config", "consensus.graphs", "consensus.rounds"])
def test_what_is_pure_imports_no_torch(name: str) -> None:
    path = ROOT / (name.replace(".", "/") + ".py")
    assert not any(i.split(".")[0] == "torch" for i in imports_of(path))


def test_references_are_imported_by_one_file() -> None:
    users = {name_of(p) for p in MODULES if any(n.startswith("reference") for n in own_imports(p))}
    assert {u for u in users if not u.startswith("reference")} == {"loops"}
