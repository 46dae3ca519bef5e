import shlex
from functools import cache
from itertools import permutations
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from stalegrid.cli import make_parser
from stalegrid.commands.options import config_of
from stalegrid.commands.words import expanded
from stalegrid.config import Settings
from stalegrid.consensus.choose import choose_mixing
from stalegrid.methods.choose import find_grid
from stalegrid.methods.choose import schedule as schedule_of
from stalegrid.planner import show
from stalegrid.planner.planning import Candidate, Question, candidates
from stalegrid.programs.grid import Grid
from stalegrid.programs.schedules import Schedule, stale
from stalegrid.recipes.settings import DataSettings, ModelSettings, RunConfig
from stalegrid.stages.views.named import find_view
from stalegrid.timing.columns import DeviceTable
from stalegrid.timing.costs import Cost, CostTable
from stalegrid.timing.estimating import Estimate
from stalegrid.timing.links import Link
from tests.cases import changed, flat


def written(table: Table) -> list[list[str]]:
    """Return the cells of a table, line by line."""
    columns = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def candidate(rate: float = 1234.5, staleness: tuple[int, ...] = (2, 0), groups: int = 3) -> Candidate:
    stages = len(staleness)
    times = Estimate(batch=12.3456, total=99.0, busy=0.625, sending=0.125, actions=1, updated=(1.0,))
    settings = flat(Settings, method="pham-ahn", groups=groups, stages=stages, staleness=list(staleness))
    schedule: Schedule = stale(staleness, 2)
    cuts = tuple(f"p{k}" for k in range(1, stages))
    sent = {"activation": 9e6, "parameters": 6e5}
    return Candidate(settings, Grid(groups, stages), schedule, cuts, times, (1_234_567,) * stages, rate, sent)


def test_costs_are_shown_part_by_part() -> None:
    part = Cost(
        forward=1.23456, backward=0.5, update=0.0625, mix=3, output=1500, parameters=2_000_400, graph=999, name="fc"
    )
    heads, row = written(show.costs(CostTable(8, (part,))))
    assert row == ["fc", "1.23", "0.5", "0.0625", "3", "2", "2,000", "1"]
    assert heads == [
        "part",
        "forward ms",
        "backward ms",
        "update ms",
        "mix ms",
        "output kB",
        "parameters kB",
        "graph kB",
    ]


def test_devices_are_shown_in_columns_and_their_links_in_lines() -> None:
    slow = Cost(forward=1.23456, backward=0.5, update=0.0625, output=1500, parameters=2_000_400, name="fc")
    fast = Cost(forward=0.5, backward=0.25, output=1500, parameters=2_000_400, name="fc")
    links = {("a", "b"): Link(1.23456, 1234.5), ("b", "a"): Link(0.5)}
    table = DeviceTable((CostTable(8, (slow,)), CostTable(8, (fast,))), ("a", "b"), links)
    heads, row = written(show.devices(table))
    assert heads == ["part", "0 a ms", "1 b ms", "output kB", "parameters kB"]
    assert row == ["fc", "1.8", "0.75", "2", "2,000"]
    assert show.links(table) == ["a > b: 1.23 ms, 1,234 Mbit/s", "b > a: 0.5 ms, inf Mbit/s"]


def test_the_slowest_of_many_links_are_shown() -> None:
    names = "abcde"
    links = {(a, b): Link(1.0, 10.0 * (i + 1)) for i, (a, b) in enumerate(permutations(names, 2))}
    table = DeviceTable((CostTable(8, (Cost(forward=1, backward=1),)),) * 5, tuple(names), links)
    shown = show.links(table)
    assert (shown[0], shown[11]) == ("a > b: 1 ms, 10 Mbit/s", "c > e: 1 ms, 120 Mbit/s")
    assert shown[12:] == ["and 8 more, none slower"]


def test_candidates_are_shown_with_the_recommended_one_marked() -> None:
    found = [candidate(), candidate(7.0, groups=1)]
    heads, first, second = written(show.candidates(found, found[1], {}))
    named = dict(zip(heads, first, strict=True))
    assert named == {
        "": "",
        "method": "pham-ahn",
        "S x K": "3 x 2",
        "M": "2",
        "ms/batch": "12.35",
        "samples/s": "1,234",
        "busy": "62%",
        "waiting": "25%",
        "sending": "12%",
        "staleness": "1,0",  # in updates of two batches
        "MB a stage": "1.23,1.23",
        "MB sent": "9.6",
        "kB/sample": "100",
    }
    assert (second[0], second[2], second[5]) == ("*", "1 x 2", "7")


def test_what_was_measured_is_shown_beside_the_estimate() -> None:
    found = [candidate(), candidate(), candidate()]
    heads, *rows = written(show.candidates(found, found[0], {0: 24.6912, 2: 6.1728}))
    assert heads[-2:] == ["measured", "estimated/measured"]
    assert [row[-2:] for row in rows] == [["24.69 ms", "0.500"], ["", ""], ["6.173 ms", "2.000"]]


def test_many_stages_are_abbreviated() -> None:
    eight, nine = (candidate(staleness=tuple(range(2 * n, 0, -2))) for n in (8, 9))
    for c, shown in ((eight, "8,7,6,5,4,3,2,1"), (nine, "9,8,...,1")):
        heads, row = written(show.candidates([c], c, {}))
        assert row[heads.index("staleness")] == shown


def test_tables_fit_a_console() -> None:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(show.candidates([candidate()], candidate(), {0: 1.0}))
    assert "estimated/measured" in captured.get()


@cache
def planned(devices: int, *names: str, batch_size: int = 32, **asked: Any) -> list[Candidate]:
    parts = tuple(Cost(forward=1, backward=2, name=f"layer.{i}") for i in range(3))
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()}
    return candidates(
        Question(CostTable(batch_size, parts), devices, names), flat(Settings, batch_size=batch_size, **lists)
    )


def parsed(command: str) -> RunConfig:
    """Return what the command line makes of a command."""
    program, name, *arguments = shlex.split(command)
    assert program == "stalegrid"
    parser, known = make_parser()
    return config_of(parser.parse_args([name, *expanded(arguments, known[name])]))


def settled(settings: Settings) -> dict[str, Any]:
    """Return what settings come to, with what the method says of what they leave open."""
    asked, method = settings.method, find_grid(settings.method.name)
    groups, stages = settings.grid.groups or method.shape[0], settings.grid.stages or method.shape[1]
    micro = asked.micro_batches or method.micro_batches
    view = asked.view or method.view
    staleness = asked.staleness
    assert staleness != "auto"
    schedule = schedule_of(method, stages, staleness, asked.queues, micro, find_view(view).delay)
    mixing = choose_mixing(settings.mixing, method.mixing, method.name, groups)
    cuts = settings.grid.cuts or []
    return {
        "method": method.name,
        "shape": (groups, stages),
        "view": view,
        "mixing": mixing,
        "schedule": schedule,
        "cuts": cuts,
    }


COMMANDS: dict[str, tuple[int, tuple[str, ...], dict[str, Any]]] = {
    "one-device": (1, ("sgd",), {}),
    "data-parallel": (4, ("data-parallel",), {}),
    "gpipe": (2, ("gpipe",), {}),
    "1f1b": (6, ("1f1b",), {"stages": 2, "micro_batches": 8}),
    "pipedream": (3, ("pipedream",), {"link": (2.0,)}),
    "pham-ahn": (4, ("pham-ahn",), {"stages": 2}),
    "groups": (3, ("pham-ahn",), {"stages": 1}),
    "staleness": (3, ("ddg",), {"staleness": (5, 1, 0)}),
    "queues": (3, ("dsp",), {"queues": (0, 1, 0)}),
    "cuts": (2, ("pipedream",), {"cuts": ("layer.1",)}),
    "accumulating": (2, ("paci",), {}),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_the_command_line_reads_a_shown_command_as_the_candidate(case: str) -> None:
    devices, names, asked = COMMANDS[case]
    for found in planned(devices, *names, **asked):
        assert settled(parsed(show.command(found))) == settled(found.settings)
        assert settled(found.settings)["schedule"] == found.schedule


def test_a_command_says_what_is_not_usual_and_no_more() -> None:
    found = planned(2, "pham-ahn", stages=2, staleness=(2, 0))
    expected = "--method pham-ahn --groups 1 --stages 2 --staleness 2,0 --cuts layer.1"
    assert sorted(map(show.command, found)) == [f"stalegrid train {expected}"]
    asked = flat(RunConfig, nesterov=True, data=DataSettings(folder="some where"))  # type: ignore[arg-type]
    (found_one,) = candidates(Question(CostTable(32, (Cost(forward=1, backward=2),)), 1, ("sgd",)), asked)
    said = show.command(found_one)
    assert (
        said
        == "stalegrid train --method sgd --groups 1 --stages 1 --data.folder 'some where' --optimizer.nesterov true"
    )


def test_a_command_of_the_command_line_keeps_model_data_and_training_but_not_devices() -> None:
    asked = flat(
        RunConfig,
        batch_size=8,
        lr=0.25,
        model="convnet",
        nesterov=True,
        data=DataSettings(folder="some where"),  # type: ignore[arg-type]
        topology=[[0.5, 0.5], [0.5, 0.5]],
        slow="0=2",
        link=[1.0, 2.0],
        jitter=0.5,
    )
    table = CostTable(8, (Cost(forward=1, backward=2, name="fc"),))
    (found,) = candidates(Question(table, 2, ("pham-ahn",)), asked)
    usual = {"mixing": None, "micro_batches": None, "cuts": None, "slow": None, "link": None, "jitter": 0.0}
    assert parsed(show.command(found)) == changed(found.settings, **usual)


LOST: dict[str, tuple[int, tuple[str, ...], dict[str, Any]]] = {
    "mixing": (2, ("pham-ahn",), {"mixing": "adapt-then-combine"}),
    "mixing-needed": (2, ("pipedream",), {"stages": 1, "mixing": "all-reduce"}),
    "view": (2, ("pipedream",), {"view": "current"}),
    "one-micro-batch": (2, ("gpipe",), {"micro_batches": 1}),
}


@pytest.mark.parametrize("case", LOST)
def test_a_shown_command_says_what_else_was_asked_for(case: str) -> None:
    devices, names, asked = LOST[case]
    for found in planned(devices, *names, **asked):
        assert settled(parsed(show.command(found))) == settled(found.settings)


OWN = find_grid("pipedream")


def test_a_command_names_what_is_the_users_own_by_its_path_and_each_argument() -> None:
    asked = flat(
        RunConfig,
        model=ModelSettings(name="nets:make_net", args={"width": 64, "wide": True}),
        threads=2,
    )
    table = CostTable(32, tuple(Cost(forward=1, backward=2, name=name) for name in ("input", "fc")))
    (found,) = candidates(Question(table, 2, ("tests.planner.test_show:OWN",)), asked)
    command = show.command(found)
    assert command.startswith("stalegrid train --method tests.planner.test_show:OWN --groups 1 --stages 2 ")
    assert "--model nets:make_net --model.args.width 64 --model.args.wide true" in command
    assert "--engine.threads 2" in command
    assert parsed(command) == changed(found.settings, micro_batches=None, mixing=None)
