"""What a unit does for an evaluation that all units share: it measures the mean model on its slices of the test data.

Does not know: engines, how the mean was taken, which slices others have.

Slice by slice these are the numbers of an observer that measures all by itself: each slice draws by the same key.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from stalegrid.agents.evaluation import Evaluation, TestSet
from stalegrid.agents.replicas import put
from stalegrid.objects import Memory, State, by_every_name, call, kept_apart, mapped, spread
from stalegrid.observe import SUMS
from stalegrid.programs import OBSERVER, Action, Message
from stalegrid.seeds import key
from stalegrid.stages import Precision, StageLayout


class Sharing:
    """Executes what a unit does for evaluations.

    Args:
        model: a plain copy of the user's model, which takes the mean parameters; units of a process may have the same.
        layouts: of the parts of the parameters.
        test: test data.
        evaluation: of what the model makes of it.
        precision: what model and loss compute in.
        averaged: told of the model that has taken a mean over replicas; None where there is one replica.
        seed: of the run.
    """

    def __init__(
        self,
        model: nn.Module,
        layouts: Sequence[StageLayout],
        test: TestSet,
        evaluation: Evaluation,
        precision: Precision,
        averaged: Callable[[nn.Module], object] | None,
        seed: int,
    ) -> None:
        self._model = model.eval()
        self._layouts = layouts
        self._test = test
        self._evaluation = evaluation
        self._precision = precision
        self._averaged = averaged
        self._seed = seed
        self._device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._found: list[tuple[float, ...]] = []
        self._memory = Memory({"model": model}, [*model.parameters(), *model.buffers()])
        self._first = kept_apart(self._memory.state_dict())
        self._objects: Memory | None = None

    def remember(self) -> None:
        """Look at the objects that it has; see :class:`stalegrid.agents.Agent`."""
        self._objects = Memory({"loss": self._evaluation.loss})

    def state_dict(self) -> State:
        """Return what the loss remembers."""
        assert self._objects is not None
        return {"objects": self._objects.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        assert self._objects is not None
        self._objects.load_state_dict(state["objects"])

    @torch.no_grad()
    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Execute one action; see :class:`stalegrid.agents.Agent`."""
        for message in inbox:
            self._begin(message.tensors)
        self._found.append(self._measure(action.index))
        return [Message(tag, tag.index, (self._told(),)) for tag in action.sends]

    def _begin(self, mean: Sequence[Tensor]) -> None:
        self._found = []
        # What a forward of an earlier evaluation has left behind in the module does not count.
        self._memory.load_state_dict(kept_apart(self._first))
        state: Mapping[str, Tensor] = by_every_name(self._model)
        for layout, vector, counters in zip(self._layouts, mean[::2], mean[1::2], strict=True):
            put(state, layout, vector, counters)
        if self._averaged is not None:
            self._averaged(self._model)

    def _measure(self, chunk: int) -> tuple[float, ...]:
        key(self._device, self._seed, "evaluate", OBSERVER.group, OBSERVER.stage, chunk)
        given = self._test.inputs(chunk), self._test.targets(chunk)
        inputs, targets = mapped(lambda x: x.to(self._device), given)
        with self._precision.on(self._device):
            outputs = spread(call(self._model, self._test.form, inputs))
            return self._evaluation.of(chunk, outputs, targets)

    def _told(self) -> Tensor:
        return torch.tensor(self._found, dtype=torch.float64).flatten()


def in_order(parts: Sequence[Tensor]) -> Iterator[list[float]]:
    """Yield what was found in each slice, in the order of slices.

    Args:
        parts: what each unit with a share has told, in the order of the shares.
    """
    rows = [part.view(-1, SUMS).tolist() for part in parts]
    for n in range(max(map(len, rows))):
        yield from (own[n] for own in rows if n < len(own))
