"""A model in files that its stages write: which, when the index names them, what is left of earlier ones."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stalegrid.errors import OutputError
from stalegrid.observe.parts import INDEX, LEAST, UNSAVED_INDEX, Item, Saved, forget_parts, indices, save_part
from tests.disks import full_disk

VALUES = {"a": torch.arange(3.0), "b": torch.ones(2), "c": torch.zeros(1, dtype=torch.int64)}
FIRST = Saved((Item("a", "a", 12), Item("tied", "a", 12)), (Item("c", "c", 8),))
SECOND = Saved((Item("b", "b", 8),))


def write(folder: Path, version: int, *, index: bool = True) -> None:
    for stage, saved in enumerate((FIRST, SECOND)):
        save_part(folder, version, stage, saved, VALUES)
    if index:
        for name, text in indices(version, (FIRST, SECOND)).items():
            (folder / name).write_text(text)
        forget_parts(folder, version)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_an_index_says_which_file_has_what_and_files_of_earlier_versions_go(tmp_path: Path) -> None:
    for version in (9, 10):
        write(tmp_path, version)
    where = json.loads((tmp_path / INDEX).read_text())
    first, second = "model-10-stage-0-0.safetensors", "model-10-stage-1-0.safetensors"
    assert where["weight_map"] == {"a": first, "tied": first, "b": second}
    assert where["metadata"] == {"total_size": 32, "version": "10"}
    rest = json.loads((tmp_path / UNSAVED_INDEX).read_text())["weight_map"]
    assert rest == {"c": "unsaved-10-stage-0-0.safetensors"}
    assert names(tmp_path) == {INDEX, UNSAVED_INDEX, first, second, *rest.values()}
    found = load_file(tmp_path / first)
    assert torch.equal(found["tied"], VALUES["a"])
    assert torch.equal(found["a"], VALUES["a"])


def test_until_all_files_of_a_version_are_there_the_index_names_the_one_before(tmp_path: Path) -> None:
    write(tmp_path, 1)
    before = json.loads((tmp_path / INDEX).read_text())
    save_part(tmp_path, 2, 1, SECOND, VALUES)
    assert json.loads((tmp_path / INDEX).read_text()) == before
    assert set(before["weight_map"].values()) <= names(tmp_path)


def test_no_file_is_larger_than_its_share_unless_a_tensor_is() -> None:
    sizes = [LEAST // 2, LEAST // 2, 1, 3 * LEAST, 5]
    saved = Saved(tuple(Item(str(n), str(n), size) for n, size in enumerate(sizes)))
    files = [[item.key for item in items] for _, items in saved.files(0, 0)]
    assert files == [["0", "1"], ["2"], ["3"], ["4"]]


def test_all_or_those_of_a_stage_are_forgotten(tmp_path: Path) -> None:
    write(tmp_path, 3)
    (tmp_path / "model-mine-stage-0-0.safetensors").write_text("")
    forget_parts(tmp_path, 4, 1)
    assert "model-3-stage-1-0.safetensors" not in names(tmp_path)
    assert "model-3-stage-0-0.safetensors" in names(tmp_path)
    forget_parts(tmp_path)
    assert names(tmp_path) == {INDEX, UNSAVED_INDEX, "model-mine-stage-0-0.safetensors"}


def test_a_full_disk_is_told_and_the_version_before_stays(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with full_disk(), pytest.raises(OutputError, match="model-2-stage-0-0"):
        save_part(tmp_path, 2, 0, FIRST, VALUES)
    assert json.loads((tmp_path / INDEX).read_text())["metadata"]["version"] == "1"
