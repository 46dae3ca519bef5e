"""The model that stages have saved, read by whoever makes a report of it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stalegrid.errors import DataError
from stalegrid.report.models import norm_of, read_model


def saved(folder: Path, names: dict[str, str]) -> None:
    save_file({"a": torch.tensor([3.0])}, folder / "one.safetensors")
    save_file({"b": torch.tensor([[4.0]]), "n": torch.tensor([7])}, folder / "two.safetensors")
    index = {"metadata": {"version": "1"}, "weight_map": {name: f"{file}.safetensors" for name, file in names.items()}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_the_norm_of_parts_is_that_of_all(tmp_path: Path) -> None:
    saved(tmp_path, {"n": "two", "a": "one", "b": "two"})
    assert norm_of(tmp_path) == 5.0
    assert read_model(tmp_path) == ({"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]]), "n": torch.tensor([7])}, {})


@pytest.mark.parametrize("read", [norm_of, read_model])
@pytest.mark.parametrize(("names", "file"), [({"b": "one"}, "one"), ({"a": "three"}, "three")])
def test_a_part_that_lacks_what_the_index_names_is_named(
    read: Callable[[Path], object], names: dict[str, str], file: str, tmp_path: Path
) -> None:
    saved(tmp_path, names)
    with pytest.raises(DataError, match=rf"does not hold the tensors that it should \(file: .*/{file}.safetensors\)"):
        read(tmp_path)
