"""What a module and the modules in it hold, parameters, buffers and plain attributes alike, and whether it has changed.

Does not know: why anybody asks.
"""

from collections import deque

from torch import Tensor, nn

Held = dict[str, list[object]]
"""By name: a value, what a container has in it, and for a tensor its modification counter."""


_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def held(module: nn.Module) -> Held:
    """Return all that a module and the modules in it hold, each with what shows that it was changed in place."""
    found: Held = {}
    for path, part in module.named_modules():
        for name, value in [*vars(part).items(), *part._buffers.items(), *part._parameters.items()]:
            elements = [*value, *value.values()] if isinstance(value, dict) else value
            content = list(elements) if isinstance(elements, list | tuple | set | deque) else []
            version = [value._version] if isinstance(value, Tensor) else []
            # A hook may be an object that counts its calls; other objects keep caches, which are nobody's business.
            states = [s for hook in content for s in getattr(hook, "__dict__", {}).values()] if name in _HOOKS else []
            found[f"{path}.{name}" if path else name] = [value, *content, *states, *version]
    return found


def changes(before: Held, after: Held) -> list[str]:
    """Return the names of what was changed, made or taken away."""

    # By identity: tensors answer == element by element, and a user's own classes as they like.
    def same(a: object, b: object) -> bool:
        return a is b or (isinstance(a, int | float | str) and type(a) is type(b) and a == b)

    def differ(one: list[object], other: list[object]) -> bool:
        return len(one) != len(other) or not all(map(same, one, other))

    return [name for name in {**after, **before} if differ(before.get(name, []), after.get(name, []))]


def tensors_held(module: nn.Module) -> list[Tensor]:
    """Return the tensors that a module and the modules in it hold, those in their containers included."""
    return [value for values in held(module).values() for value in values if isinstance(value, Tensor)]
