"""Values from files of safetensors."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from stalegrid.errors import ConfigError, DataError
from stalegrid.objects import tensors_of
from stalegrid.sources import Built, built, filled


class Net(nn.Module):
    """Tied weights, a buffer that is saved and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(7, 4)
        self.layer = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.tokens.weight
        self.register_buffer("positions", torch.arange(5), persistent=False)


def saved(folder: Path, files: int = 1, leave_out: tuple[str, ...] = ("head.weight",)) -> nn.Module:
    """Write a model as Hugging Face lays it out, in one file or in several, and return it."""
    torch.manual_seed(4)
    model = Net()
    model.norm.running_mean.normal_()  # type: ignore[union-attr,operator]
    state = {name: t.contiguous().clone() for name, t in model.state_dict().items() if name not in leave_out}
    folder.mkdir()
    if files == 1:
        save_file(state, folder / "model.safetensors")
        return model
    where = {name: f"model-{i % files + 1:05}-of-{files:05}.safetensors" for i, name in enumerate(state)}
    for file in set(where.values()):
        save_file({n: t for n, t in state.items() if where[n] == file}, folder / file)
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return model


def in_memory(made: Built) -> nn.Module:
    return filled(made.model, made.model, made.source)


@pytest.mark.parametrize("files", [1, 3])
@pytest.mark.parametrize("leave_out", ["head.weight", "tokens.weight"])
def test_a_model_from_files_is_the_one_that_was_saved_to_the_bit(tmp_path: Path, files: int, leave_out: str) -> None:
    expected = saved(tmp_path / "model", files, (leave_out,))
    found = in_memory(built(Net, 0, tmp_path / "model"))
    assert found.head.weight is found.tokens.weight  # type: ignore[union-attr]
    pairs = zip(tensors_of(found).items(), tensors_of(expected).values(), strict=True)
    for (name, tensor), value in pairs:
        assert torch.equal(tensor, value), name


def test_one_file_can_be_named(tmp_path: Path) -> None:
    expected = saved(tmp_path / "model")
    found = in_memory(built(Net, 0, tmp_path / "model" / "model.safetensors"))
    assert torch.equal(found.layer.weight, expected.layer.weight)  # type: ignore[union-attr,arg-type]


def test_values_are_cast_to_the_type_of_the_model(tmp_path: Path) -> None:
    expected = saved(tmp_path / "model")
    found = in_memory(built(lambda: Net().to(torch.bfloat16), 0, tmp_path / "model"))
    weight = expected.layer.weight  # type: ignore[union-attr]
    assert torch.equal(found.layer.weight, weight.to(torch.bfloat16))  # type: ignore[union-attr,arg-type,operator]


def test_only_the_file_of_a_tensor_is_opened_for_it(tmp_path: Path) -> None:
    expected = saved(tmp_path / "model", 8)
    made = built(Net, 0, tmp_path / "model")
    where = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())["weight_map"]
    for file in set(where.values()) - {where["layer.weight"], where["layer.bias"]}:
        (tmp_path / "model" / file).unlink()
    layer = filled(made.model.layer, made.model, made.source)  # type: ignore[arg-type]
    assert torch.equal(layer.weight, expected.layer.weight)  # type: ignore[union-attr,arg-type]


def test_what_is_filled_by_nothing_but_files_is_no_problem(tmp_path: Path) -> None:
    class Bare(Net):
        def __init__(self) -> None:
            super().__init__()
            self.layer.weight = nn.Parameter(torch.empty(4, 4))

    expected = saved(tmp_path / "model")
    found = in_memory(built(Bare, 0, tmp_path / "model"))
    assert torch.equal(found.layer.weight, expected.layer.weight)  # type: ignore[union-attr,arg-type]


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    saved(tmp_path / "model", leave_out=("head.weight", "layer.bias"))
    with pytest.raises(ConfigError, match=r"lack a tensor of the model \(name: layer.bias, weights: .*model"):
        built(Net, 0, tmp_path / "model")


def test_another_shape_is_named(tmp_path: Path) -> None:
    class Wider(Net):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 6)

    saved(tmp_path / "model")
    told = r"another shape .*\(name: layer.weight, file: .*model.safetensors, shape: \(4, 4\), in the model: \(6, 4\)\)"
    with pytest.raises(ConfigError, match=told):
        built(Wider, 0, tmp_path / "model")


def test_a_tensor_too_many_is_named(tmp_path: Path) -> None:
    class Less(Net):
        def __init__(self) -> None:
            super().__init__()
            del self.norm

    saved(tmp_path / "model")
    with pytest.raises(ConfigError, match=r"a tensor that the model has not \(name: norm.bias, and 4 more"):
        built(Less, 0, tmp_path / "model")


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    saved(tmp_path / "model", 3)
    file = tmp_path / "model" / "model-00002-of-00003.safetensors"
    content = file.read_bytes()
    for broken in (content[:-3], content[:5], b"", b"x" * 100):
        file.write_bytes(broken)
        with pytest.raises(DataError, match=r"missing or broken \(file: .*model-00002-of-00003.safetensors\)"):
            built(Net, 0, tmp_path / "model")
    file.unlink()
    with pytest.raises(DataError, match=r"missing or broken \(file: .*model-00002-of-00003.safetensors\)"):
        built(Net, 0, tmp_path / "model")


def test_a_file_that_breaks_later_is_named(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    made = built(Net, 0, tmp_path / "model")
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(DataError, match=r"missing or broken \(file: .*model.safetensors\)"):
        in_memory(made)


@pytest.mark.parametrize("written", ["{", "[]", '{"weight_map": 3}', "{}"])
def test_an_index_that_is_none_is_named(tmp_path: Path, written: str) -> None:
    saved(tmp_path / "model", 2)
    (tmp_path / "model" / "model.safetensors.index.json").write_text(written)
    with pytest.raises(DataError, match=r"the index cannot be read \(file: .*index.json\)"):
        built(Net, 0, tmp_path / "model")


def test_an_index_that_says_what_a_file_has_not_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "model", 2)
    index = tmp_path / "model" / "model.safetensors.index.json"
    written = json.loads(index.read_text())
    written["weight_map"]["layer.weight"] = written["weight_map"]["layer.bias"]
    index.write_text(json.dumps(written))
    with pytest.raises(DataError, match=r"lacks a tensor that the index says it has \(file: .*, name: layer.weight\)"):
        built(Net, 0, tmp_path / "model")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no model in the folder \(weights: .*\); it needs model.safetensors"):
        built(Net, 0, tmp_path)


def test_texts_tell_files_apart(tmp_path: Path) -> None:
    model = saved(tmp_path / "one", 2)
    saved(tmp_path / "same", 2)
    saved(tmp_path / "other", 2)
    part = "model-00001-of-00002.safetensors"
    content = bytearray((tmp_path / "other" / part).read_bytes())
    content[-1] ^= 1
    (tmp_path / "other" / part).write_bytes(content)
    one, same, other = (built(Net, 0, tmp_path / name).source.text() for name in ("one", "same", "other"))
    assert one == same != other
    assert model is not None
