import pytest
import torch

from stalegrid.consensus.matrices import mixing_matrix
from stalegrid.consensus.rounds import PARAMETERS, Together
from stalegrid.consensus.snapshots import Snapshots
from stalegrid.errors import StalenessExceeded
from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import Unit
from stalegrid.programs.messages import Message


def test_what_is_of_another_version_than_ones_own_is_refused() -> None:
    snapshots = Snapshots(Together(mixing_matrix("ring", 2), True, 2, 1, 9), Unit(0, 0))
    snapshots.share(Action(Kind.SHARE, 0), 1, torch.zeros(1))
    tag = Tag(Edge(PARAMETERS, Unit(1, 0), Unit(0, 0)), 0)
    with pytest.raises(StalenessExceeded, match=r"version 2; one's own are of version 1"):
        snapshots.meet(Action(Kind.MIX, 1, (tag,)), [Message(tag, 2, (torch.zeros(1),))])
