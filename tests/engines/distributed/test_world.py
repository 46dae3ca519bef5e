"""An error about agents says on which other host they are."""

import torch

from stalegrid.engines.distributed.world import World
from stalegrid.programs import OBSERVER, Unit

HOME = {Unit(0, 0): 0, Unit(0, 1): 1, Unit(1, 0): 2, Unit(1, 1): 2, OBSERVER: 0}


def test_processes_of_other_hosts_are_named_once_and_those_of_this_one_not() -> None:
    places = (("a", "cpu"), ("a", "cpu"), ("b", "cpu"))
    told = World(0, HOME, torch.device("cpu"), places).elsewhere(["(1,0)", "(1,1)", "(0,1)", "(9,9)"])
    assert told == "; process 2 is on host b"
    told = World(2, HOME, torch.device("cpu"), places).elsewhere(["(0,1)", str(OBSERVER)])
    assert told == "; process 0 is on host a; process 1 is on host a"


def test_nothing_is_said_where_all_are_on_one_host() -> None:
    assert World(0, HOME, torch.device("cpu"), (("a", "cpu"),) * 3).elsewhere(["(1,0)"]) == ""
