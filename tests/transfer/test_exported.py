"""A plain loop goes on from what a run has exported, to the bit of the run that goes on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import stalegrid
from stalegrid.checkpoints import read_checkpoint
from stalegrid.data import Batches
from stalegrid.errors import ConfigError, DataError
from stalegrid.stages import make_optimizer
from stalegrid.transfer.reading import read_whole
from tests.transfer.runs import OPTIMIZERS, SCHEDULES, UPDATES, Shared, at, check_equal, data, net, train


def go_on(file: Path, model: nn.Module, optimizer: str, schedule: str, updates: int = UPDATES) -> None:
    """Train a model in a plain loop, from where a run was."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    own = make_optimizer(OPTIMIZERS[optimizer], trained)
    rates = None if SCHEDULES[schedule] is None else SCHEDULES[schedule](own)
    done = stalegrid.load_exported(file, model, own, rates)
    batches = Batches(data(), groups=1, batch_size=4, seed=3)
    for n in range(done, updates):
        own.zero_grad()
        nn.functional.cross_entropy(model(*batches.inputs(0, n)), batches.targets(0, n)).backward()
        own.step()
        if rates is not None:
            rates.step()


@pytest.mark.parametrize("stages", [1, 3])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_plain_loop_goes_on_as_the_run_does(tmp_path: Path, optimizer: str, schedule: str, stages: int) -> None:
    run, file = tmp_path / "run", tmp_path / "out" / "model.safetensors"
    whole = train(run, stages=stages, optimizer=OPTIMIZERS[optimizer], scheduler=SCHEDULES[schedule])
    file.parent.mkdir()
    assert stalegrid.export(at(run, 6), file) == 6
    model = net()
    go_on(file, model, optimizer, schedule)
    check_equal(model, whole.model)


def test_ties_frozen_parameters_and_what_no_state_dict_has_are_there(tmp_path: Path) -> None:
    whole, file = train(tmp_path / "run", Shared(), stages=3), tmp_path / "model.safetensors"
    stalegrid.export(at(tmp_path / "run", 4), file)
    model = Shared()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.zero_()
    go_on(file, model, "sgd", "constant")
    check_equal(model, whole.model)
    assert sorted(load_file(file)) == sorted(model.state_dict())


def test_a_model_that_is_given_has_what_no_checkpoint_has(tmp_path: Path) -> None:
    model = Shared()
    train(tmp_path / "run", model, stages=2)
    (tmp_path / "run" / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"is not in the checkpoint \(name: frozen.weight.*model=MODEL"):
        stalegrid.export(tmp_path / "run", tmp_path / "model.safetensors")
    stalegrid.export(tmp_path / "run", tmp_path / "model.safetensors", model=model)
    assert torch.equal(load_file(tmp_path / "model.safetensors")["frozen.weight"], model.frozen.weight)


def test_groups_are_averaged_or_chosen(tmp_path: Path) -> None:
    train(tmp_path / "run", method="pham-ahn", groups=2, stages=2, mixing="none")
    checkpoint = read_checkpoint(at(tmp_path / "run", 6))
    zero, one, mean = (read_whole(checkpoint, group) for group in (0, 1, None))
    for name, tensor in mean.tensors.items():
        if tensor.is_floating_point():
            assert torch.equal(tensor, (zero.tensors[name] + one.tensors[name]) / 2), name
        else:
            assert torch.equal(tensor, zero.tensors[name]), name
    moments = [whole.training.state["0.weight"]["momentum_buffer"] for whole in (zero, one, mean)]
    assert not torch.equal(moments[0], moments[1])
    assert torch.equal(moments[2], (moments[0] + moments[1]) / 2)
    file = tmp_path / "one.safetensors"
    stalegrid.export(checkpoint.folder, file, group=1)
    assert torch.equal(load_file(file)["3.weight"], one.tensors["3.weight"])
    with pytest.raises(ConfigError, match=r"no such group \(group: 2, groups: 0, 1\)"):
        stalegrid.export(checkpoint.folder, file, group=2)


def test_vectors_of_spectral_norms_have_no_mean_and_are_made_anew(tmp_path: Path) -> None:
    def normed() -> nn.Module:
        torch.manual_seed(0)
        norm: Any = torch.nn.utils.parametrizations.spectral_norm
        return nn.Sequential(norm(nn.Linear(6, 6)), nn.Tanh(), nn.Linear(6, 3))

    train(tmp_path / "run", normed(), method="pham-ahn", groups=2, stages=1, mixing="none")
    with pytest.raises(ConfigError, match=r"has no mean over groups \(name: 0.parametrizations"):
        stalegrid.export(tmp_path / "run", tmp_path / "model.safetensors")
    stalegrid.export(tmp_path / "run", tmp_path / "model.safetensors", model=normed())
    model = normed().eval()
    stalegrid.load_exported(tmp_path / "model.safetensors", model)
    largest = torch.linalg.matrix_norm(model.get_submodule("0").weight, 2)  # type: ignore[arg-type]
    assert torch.allclose(largest, torch.ones(()), rtol=1e-5)  # singular vectors are found by iteration


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    model, file = net(), tmp_path / "model.safetensors"
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ConfigError, match=r"name ends in .safetensors \(file: .*model.pt\)"):
        stalegrid.save_exported(tmp_path / "model.pt", model, optimizer)
    with pytest.raises(ConfigError, match=r"a parameter that is none of the model \(shape: \(8, 6\)\)"):
        stalegrid.save_exported(file, net(), optimizer)
    stalegrid.save_exported(file, model, optimizer, updates=7)
    assert stalegrid.load_exported(file, model, optimizer) == 7
    with pytest.raises(ConfigError, match=r"of another model"):
        stalegrid.load_exported(file, nn.Linear(2, 2))
    with pytest.raises(ConfigError, match=r"of another type .*torch.float32, here: torch.float64"):
        stalegrid.load_exported(file, net().double())
    with pytest.raises(ConfigError, match=r"of another optimizer \(of: SGD, asked for: Adam\)"):
        stalegrid.load_exported(file, model, torch.optim.Adam(model.parameters()))
    with pytest.raises(ConfigError, match=r"no state of a schedule"):
        stalegrid.load_exported(file, model, optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    model, file = net(), tmp_path / "model.safetensors"
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stalegrid.save_exported(file, model, optimizer)
    other = tmp_path / "model.optimizer.safetensors"
    for metadata in ({}, {"training": "[1"}, {"training": '{"dict": []}'}, {"training": "7"}):
        save_file({}, other, metadata)
        with pytest.raises(DataError, match=r"model.optimizer.safetensors"):
            stalegrid.load_exported(file, model, optimizer)
    other.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"no tensors that can be read \(file: .*model.optimizer"):
        stalegrid.load_exported(file, model, optimizer)
    other.unlink()
    with pytest.raises(ConfigError, match=r"exported alone"):
        stalegrid.load_exported(file, model, optimizer)
    assert stalegrid.load_exported(file, model) == 0
