"""The state of a model as a file holds it: what is saved, what is not, and back again.

Does not know: runs, the folder that the files are in.
"""

from collections.abc import Mapping

from safetensors.torch import load, save
from torch import Tensor, nn

from stalegrid.copies import copied
from stalegrid.errors import ConfigError


def saved(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of a model on the CPU, dense, no two tensors in the same memory."""
    state: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in model.state_dict().items():
        dense = tensor.detach().cpu().contiguous()
        place = dense.untyped_storage().data_ptr()
        state[name] = dense.clone() if place in places else dense
        places.add(place)
    return state


def unsaved(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the buffers that a state dict leaves out, on the CPU."""
    kept = model.state_dict().keys()
    return {
        name: buffer.detach().cpu().clone().contiguous() for name, buffer in model.named_buffers() if name not in kept
    }


def restore(model: nn.Module, state: Mapping[str, Tensor], rest: Mapping[str, Tensor]) -> None:
    """Give a model the state that :func:`saved` and :func:`unsaved` returned of another one."""
    model.load_state_dict(dict(state))
    for name, value in rest.items():
        model.get_buffer(name).copy_(value)


def check_saved(model: nn.Module) -> None:
    """Save and load the state of a model in memory, so that what cannot be saved comes before training.

    Args:
        model: left as it is.

    Raises:
        ConfigError: its state dict holds something else than tensors, or cannot be saved or loaded.
    """
    others = [name for name, value in model.state_dict().items() if not isinstance(value, Tensor)]
    if others:
        raise ConfigError(
            f"the state of the model holds something that is no tensor (name: {others[0]!r}), which model.safetensors "
            "cannot; return a tensor from get_extra_state, or register a buffer"
        )
    again = copied(model)
    try:
        restore(again, load(save(saved(model))), load(save(unsaved(model))))
    except Exception as problem:  # what a model does when it is saved or loaded is the user's: anything can be raised
        raise ConfigError(
            f"the state of the model cannot be saved and loaded: {' '.join(str(problem).split())}; give each buffer "
            "memory of its own, and mend what saves and loads the model's state"
        ) from problem
