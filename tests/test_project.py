"""What the files around the package say of it, and of each other."""

import ast
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

import stalegrid
from stalegrid.version import __version__

ROOT = Path(__file__).parents[1]
PACKAGE = Path(stalegrid.__file__).parent
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = SETUP["project"]


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def pins() -> dict[str, str]:
    return dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE))


def versions(found: list[str]) -> list[tuple[int, ...]]:
    return [tuple(map(int, version.split("."))) for version in found]


def test_the_citation_is_of_this_version() -> None:
    citation = read("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == __version__
    assert (citation["title"], citation["license"]) == (PROJECT["name"], PROJECT["license"])
    assert citation["authors"] == [{"name": "stalegrid developers"}]
    assert {"message", "type", "abstract"} <= citation.keys()


def test_ruff_is_one_version_before_a_commit_and_in_the_checks() -> None:
    (ruff,) = (repo for repo in read(".pre-commit-config.yaml")["repos"] if "ruff" in repo["repo"])
    assert ruff["rev"] == f"v{pins()['ruff']}"


def test_what_is_supported_is_what_is_tested_in_public() -> None:
    matrix = read(".github/workflows/ci.yml")["jobs"]["tests"]["strategy"]["matrix"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert matrix["python"] == named
    assert PROJECT["requires-python"] == f">={named[0]}"
    assert SETUP["tool"]["ruff"]["target-version"] == f"py{named[0].replace('.', '')}"
    (oldest,) = (need.partition(">=")[2] for need in PROJECT["dependencies"] if need.startswith("torch>="))
    assert versions(matrix["torch"]) == versions([f"{oldest}.0", pins()["torch"]])


def test_what_is_public_runs_the_commands_of_make_in_bounded_time() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for job in read(".github/workflows/ci.yml")["jobs"].values():
        assert job["timeout-minutes"] <= 60
        made = {step["run"].removeprefix("make ") for step in job["steps"] if step.get("run", "").startswith("make ")}
        assert made
        assert made <= targets


def test_whatever_lies_in_the_package_is_in_the_wheel() -> None:
    globs = SETUP["tool"]["setuptools"]["package-data"]["stalegrid"]
    others = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    ]
    assert others
    assert all(any(fnmatch(path, glob) for glob in globs) for path in others), others


def test_every_wing_says_its_question_and_what_it_does_not_know() -> None:
    wings = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    for wing in wings:
        said = ast.get_docstring(ast.parse((PACKAGE / wing / "__init__.py").read_text()))
        assert said is not None, wing
        assert "Does not know: " in said, wing
    table = re.findall(r"^\| `(\w+)` \|", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE)
    assert sorted(table) == wings
