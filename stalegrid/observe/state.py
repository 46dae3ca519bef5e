"""The state of a model as a file holds it: what is saved, what is not, and back again.

Does not know: runs, the folder that the files are in.
"""

from collections.abc import Mapping

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from stalegrid.data import bytes_of
from stalegrid.errors import ConfigError
from stalegrid.objects import copied, has_thin


def saved(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of a model on the CPU, dense, no two tensors in the same memory."""
    state: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in model.state_dict().items():
        dense = tensor.detach().cpu().contiguous()
        place = dense.untyped_storage().data_ptr()
        # Safetensors refuses tensors that share memory, such as tied ones.
        state[name] = dense.clone() if place in places else dense
        places.add(place)
    return state


def unsaved(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the parameters and buffers that a state dict leaves out, on the CPU."""
    kept = model.state_dict().keys()
    return {name: t.detach().cpu().clone().contiguous() for name, t in _tensors(model).items() if name not in kept}


def restore(model: nn.Module, state: Mapping[str, Tensor], rest: Mapping[str, Tensor]) -> None:
    """Give a model the state that :func:`saved` and :func:`unsaved` returned of another one."""
    model.load_state_dict(dict(state))
    tensors = _tensors(model)
    with torch.no_grad():
        for name, value in rest.items():
            tensors[name].copy_(value)


def check_saved(model: nn.Module) -> None:
    """Save and load the state of a model in memory, so that what cannot be saved comes before training.

    Args:
        model: left as it is.

    Raises:
        ConfigError: its state dict holds something else than tensors, cannot be saved or loaded, or does not bring
            back what was saved.
    """
    others = [name for name, value in model.state_dict().items() if not isinstance(value, Tensor)]
    if others:
        raise ConfigError(
            f"the state of the model holds something that is no tensor (name: {others[0]!r}), which model.safetensors "
            "cannot; return a tensor from get_extra_state, or register a buffer"
        )
    again = copied(model)
    try:
        _spoil(again)
        restore(again, *_read_back(model))
    except Exception as problem:  # what a model does when it is saved or loaded is the user's: anything can be raised
        raise ConfigError(
            f"the state of the model cannot be saved and loaded: {' '.join(str(problem).split())}; give each buffer "
            "memory of its own, and mend what saves and loads the model's state"
        ) from problem
    found = _tensors(again)
    lost = next((name for name, tensor in _tensors(model).items() if bytes_of(tensor) != bytes_of(found[name])), None)
    if lost is not None:
        raise ConfigError(
            f"the state of the model does not bring back a tensor as it was saved (name: {lost}), so the trained model "
            "could not be returned; let state_dict hold it as it is and load_state_dict load it, or leave it out"
        )


def _read_back(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what files would hold of a model."""
    if not has_thin(model):
        return load(save(saved(model))), load(save(unsaved(model)))
    # Not as bytes, of which there would be as many as the whole model has.
    state = dict(model.state_dict())
    return state, {name: tensor.detach() for name, tensor in _tensors(model).items() if name not in state}


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _spoil(model: nn.Module) -> None:
    """Give every element another value, so that what a load forgets shows."""
    for name, tensor in _tensors(model).items():
        try:
            # Of any type: what is 0 becomes 1, and all else 0.
            tensor.data.copy_(tensor.data == 0)
        except RuntimeError as problem:
            raise ValueError(f"{name}: {problem}") from problem
