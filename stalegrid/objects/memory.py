"""What objects remember from one call to the next, wherever they keep it, and how others like them are given it.

Does not know: whose objects they are, files.

For what users write without a thought of saving it: attributes, closures, defaults, hooks, and what those hold.  An
object whose class has ``state_dict`` and ``load_state_dict`` of its own says itself what it remembers.  Nothing is left
out in silence: what cannot be saved is looked at as it was at the beginning, and is an error once it has changed.

A state is given to objects that were made as the first ones were.  Each thing that was one in two places is one again,
and what is there already is changed in place, so that whoever else holds it sees that too.
"""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

from stalegrid.errors import ConfigError
from stalegrid.objects.recalling import Recalling
from stalegrid.objects.remembering import Remembering


class Memory:
    """What a thing remembers, beside what is given.

    Args:
        thing: any object; several in a dictionary.
        given: tensors and objects that are saved elsewhere, and that those for whom a state is have too, in order.
    """

    def __init__(self, thing: Any, given: Sequence[object] = ()) -> None:
        self._thing = thing
        self._given = given
        first = Remembering(given, thing)
        first.value(thing, "")
        self._fixed, self._kinds = {**first.fixed, **first.common}, first.kinds

    def state_dict(self) -> Any:
        """Return what it remembers now, as a tree of plain values and tensors.

        Raises:
            ConfigError: something that cannot be saved has changed since the beginning.
        """
        now = Remembering(self._given, self._thing)
        found = now.value(self._thing, "")
        for path, mark in {**now.fixed, **now.common}.items():
            if path not in self._fixed or self._fixed[path] != mark:
                raise _unsaved(path)
        for path, kind in now.kinds.items():
            if self._kinds.get(path) is not kind:
                raise _unsaved(f"{path}: {kind.__name__}")
        return found

    def load_state_dict(self, state: Any) -> None:
        """Give it what another one like it remembered.

        Raises:
            DataError: it is not like that one.
        """
        Recalling(self._given).value(state, self._thing)


def remembered(thing: Any, given: Sequence[object] = ()) -> Any:
    """Return what an object remembers, whatever it was at the beginning; see :class:`Memory`."""
    return Memory(thing, given).state_dict()


def recall(thing: Any, state: Any, given: Sequence[object] = ()) -> None:
    """Let an object remember what another one like it did; see :class:`Memory`."""
    Memory(thing, given).load_state_dict(state)


def in_common(thing: Any, code: Iterable[Any] = ()) -> dict[str, Any]:
    """Return, by name, what shows a change of what classes and globals hold that a user's code knows.

    Args:
        thing: what has the code, see :class:`Memory`.
        code: more functions and classes, of which it is no matter what they hold.
    """
    seen = Remembering((), thing)
    seen.value(thing, "")
    for one in code:
        seen.look(one)
    return seen.common


def kept_apart(tree: Any) -> Any:
    """Return a state that does not change when what it is of goes on."""
    return copy.deepcopy(tree)


def _unsaved(path: str) -> ConfigError:
    return ConfigError(
        f"something changes in training that cannot be saved (it is: {path}); keep it in an attribute of the object "
        "that uses it, made in __init__, as plain values, containers or tensors, or give its class state_dict and "
        "load_state_dict, or run without checkpoints"
    )
