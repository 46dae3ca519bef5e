"""Which groups a run has where it goes on."""

from dataclasses import replace
from pathlib import Path

import pytest

from stalegrid.checkpoints.kept import read_checkpoint
from stalegrid.errors import ConfigError
from stalegrid.plans.membership import ALL, ReturnedGroup
from stalegrid.runs import execute
from stalegrid.runs.asked import Asked
from stalegrid.runs.groups import by_hosts, donors
from tests.test_lost_groups import settings_of, task_of

PATH = replace(settings_of(), mixing=replace(settings_of().mixing, topology="0-1,1-2,2-3"))


def test_a_group_takes_the_state_of_a_neighbour_and_would_not_be_alone() -> None:
    away = ALL.losing([2, 3], 10, "")
    assert donors(PATH, away, 4, [2]) == {2: 1}
    assert donors(PATH, away, 4, [2, 3]) == {2: 1, 3: 0}  # a neighbour that is away too has none to give
    with pytest.raises(ConfigError, match=r"not connected|split"):
        donors(PATH, away, 4, [3])
    for wanted, said in (([1, 2], "asked for: 1, 2, lost: 2, 3"), ([], "asked for: none, lost: 2, 3")):
        with pytest.raises(ConfigError, match=said):
            donors(PATH, away, 4, wanted)


def test_a_group_comes_back_to_others_with_unlike_batches() -> None:
    rows = [[10 / 12, 2 / 12, 0], [6 / 12, 2 / 12, 4 / 12], [0, 2 / 12, 10 / 12]]
    settings = replace(settings_of(batch_size=[6, 2, 4]), mixing=replace(settings_of().mixing, topology=rows))
    assert donors(settings, ALL.losing([2], 10, ""), 3, [2]) == {2: 1}


def test_there_are_as_many_groups_as_hosts(tmp_path: Path) -> None:
    out = tmp_path / "run"
    output = replace(settings_of().output, folder=out)
    settings = settings_of(groups=4, stages=1, cuts=[], updates=10, engine="simulator", output=output)
    execute(task_of(), settings, quiet=True)
    settings = replace(settings, engine=replace(settings.engine, on_loss="continue"))
    begun = by_hosts(Asked(task_of(), settings, (), (), True, False), 2, str)
    assert begun.hosts == 2
    asked, said = replace(begun, source=read_checkpoint(out / "checkpoints" / "000000005")), list[str]()
    assert by_hosts(asked, 2, said.append).membership == ALL
    fewer = by_hosts(asked, 1, said.append)
    assert fewer.membership.gone == {2, 3}
    assert by_hosts(fewer, 1, said.append).membership == fewer.membership
    assert by_hosts(replace(fewer, hosts=4), 3, said.append).membership.returned == (ReturnedGroup(2, 5, 0),)
    more = by_hosts(fewer, 5, said.append)
    assert not more.membership.gone
    assert [line.partition(" from version 5")[0] for line in said] == [
        "groups 2, 3 are gone, and the others go on",
        "group 2 is back",
        "groups 2, 3 are back",
    ]
    ending = replace(asked, settings=replace(settings, engine=replace(settings.engine, on_loss="end")))
    assert by_hosts(ending, 1, said.append) == ending
