"""Values of one's own wherever there are names: in Python, by path on the command line, refused where wrong."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stalegrid
from stalegrid.cli import main
from stalegrid.config import Settings
from stalegrid.errors import ConfigError, TrainingError
from stalegrid.methods.choose import find_grid
from stalegrid.recipes.settings import RunConfig
from stalegrid.stages.weights import Weights
from stalegrid.studies.comparing import compare as compare_methods
from stalegrid.studies.loops import plain_loop
from stalegrid.studies.verifying import Outcome, on, run_engine
from stalegrid.timing.costs import Cost, CostTable
from stalegrid.written.groups import text_of
from stalegrid.written.kept import read_yaml
from tests.cases import CPU, compare, images, make_plan, make_settings, make_task, run_simulator, train
from tests.scripts import run_script

Rows = list[list[float]]


class Later(stalegrid.Stashed):
    """The weights of the forward, in a class of its own."""


class HalfAsMuch(stalegrid.AdaptThenCombine):
    """Neighbours pull half as much."""

    def pull(self, gap: Tensor, share: float) -> Tensor:
        return gap.mul_(share * 0.5)


@dataclass(frozen=True)
class Times(stalegrid.AdaptThenCombine):
    """Neighbours pull so many times as much."""

    factor: float

    def pull(self, gap: Tensor, share: float) -> Tensor:
        return gap.mul_(share * self.factor)


class Around:
    """When groups pass their parameters on in a directed ring: after every update."""

    def __init__(self, groups: int) -> None:
        self.groups = groups

    def opening(self, unit: stalegrid.Unit, update: int) -> Iterator[stalegrid.Action]:
        yield from ()

    before_update = opening

    def after_update(self, unit: stalegrid.Unit, update: int) -> Iterator[stalegrid.Action]:
        (edge,) = self.edges(unit)
        following = stalegrid.Unit((unit.group + 1) % self.groups, unit.stage)
        sent = stalegrid.Tag(stalegrid.Edge("around", unit, following), update)
        yield stalegrid.Action(stalegrid.Kind.SHARE, update, sends=(sent,))
        yield stalegrid.Action(stalegrid.Kind.MIX, update, needs=(stalegrid.Tag(edge, update),))

    def edges(self, unit: stalegrid.Unit) -> Iterator[stalegrid.Edge]:
        yield stalegrid.Edge("around", stalegrid.Unit((unit.group - 1) % self.groups, unit.stage), unit)


class HalfOfTheOneBefore:
    """Takes the mean of one's own parameters and of those that came."""

    def __init__(self, weights: Weights) -> None:
        self.vector = weights.flat[: weights.mixed]
        self.weights = weights

    def step(self, action: stalegrid.Action, inbox: Sequence[stalegrid.Message]) -> list[stalegrid.Message]:
        for message in inbox:
            self.vector.add_(message.tensors[0]).mul_(0.5)
        return [stalegrid.Message(tag, self.weights.version, (self.vector.clone(),)) for tag in action.sends]


class Ring(stalegrid.Mixing):
    """A directed ring, which no topology is: a mixing from nothing."""

    def lateral(self, turns: stalegrid.Turns) -> stalegrid.Lateral:
        return Around(turns.groups)

    def exchange(self, turns: Any, unit: Any, weights: Weights, momentum: Any) -> HalfOfTheOneBefore:
        return HalfOfTheOneBefore(weights)

    def layout(self, edge: Any, turns: Any, vectors: stalegrid.Vectors) -> Any:
        return stalegrid.flat_layout(vectors.read.mixed, vectors.read.dtype)


def even(stages: int, micro_batches: int) -> stalegrid.Schedule:
    return stalegrid.stale([2 * (stages - 1 - k) for k in range(stages)], micro_batches)


EVEN = stalegrid.Method("even", "nobody", "2(K-1-k)", even, view=Later, mixing="combine-while-adapt", shape=(2, 2))
GRAPH = nx.path_graph(3)
MODULE = """
import networkx as nx
import stalegrid
from tests.test_values import EVEN, HalfAsMuch, Later, Times

class Fade(stalegrid.Correction):
    def correct(self, update):
        for p in self.site.weights.trainable():
            if p.grad is not None:
                p.grad *= 0.5 ** update.staleness

even, graph, rows, three = EVEN, nx.path_graph(3), [[0.75, 0.25], [0.25, 0.75]], 3
twice = Times(2.0)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of the user's."""
    (tmp_path / "mine_of_values.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def both(settings: Settings, **changes: Any) -> Outcome:
    """Run on both engines, which must agree, and return what came of it."""
    task = make_task(**changes)
    plan = make_plan(task, settings)
    simulated = run_engine(task, on(settings, "simulator"), plan)
    processes = run_engine(task, on(settings, "processes"), plan)
    assert simulated.losses == processes.losses
    assert all(torch.equal(value, processes.parameters[key]) for key, value in simulated.parameters.items())
    return simulated


def differ(one: Outcome, other: Outcome) -> bool:
    return any(not torch.equal(value, other.parameters[key]) for key, value in one.parameters.items())


def refused(match: str, **changes: Any) -> None:
    settings = make_settings(**({"groups": 2, "stages": 2} | changes))
    with pytest.raises(ConfigError, match=match):
        make_plan(make_task(), settings)


# Values that say what names say


def test_a_view_and_a_method_of_ones_own_that_say_what_named_ones_say_train_alike() -> None:
    named = run_simulator(make_task(), make_settings(2, 2, method="pham-ahn"))
    compare(named, run_simulator(make_task(), make_settings(2, 2, method=EVEN)))
    compare(named, run_simulator(make_task(), make_settings(2, 2, method="pham-ahn", view=Later)))
    compare(named, run_simulator(make_task(), make_settings(2, 2, method="pham-ahn", view=stalegrid.Stashed)))


def test_a_mixing_of_the_package_is_the_same_by_name_as_a_class_and_made() -> None:
    named = make_settings(2, 2, mixing="adapt-then-combine")
    plans = [
        make_plan(make_task(), replace(named, mixing=stalegrid.MixingSettings(kind=kind)))
        for kind in ("adapt-then-combine", stalegrid.AdaptThenCombine, stalegrid.AdaptThenCombine())
    ]
    assert len({id(plan.mixing) for plan in plans}) == 1
    assert all(plan.spectral_gap is not None and plain_loop(make_task(), plan, CPU) is not None for plan in plans)


def test_a_topology_is_the_same_as_a_name_a_graph_edges_and_rows() -> None:
    third = 1 / 3
    rows = [[2 / 3, third, 0], [third, third, third], [0, third, 2 / 3]]
    made = [
        train(
            make_task().model,
            images(),
            loss=nn.CrossEntropyLoss(),
            optimizer=make_task().optimizer,
            engine="simulator",
            method="pham-ahn",
            groups=3,
            stages=2,
            cuts=["norm2"],
            batch_size=4,
            updates=6,
            topology=topology,
            quiet=True,
        )
        for topology in (GRAPH, "0-1,1-2", rows, np.array(rows))
    ]
    states = [run.model.state_dict() for run in made]
    assert all(torch.equal(value, state[name]) for state in states[1:3] for name, value in states[0].items())
    assert all(torch.equal(value, states[3][name]) for name, value in states[2].items())
    ring = make_plan(make_task(), make_settings(3, 2)).turns.matrix.weights(0)
    assert not np.array_equal(ring, make_plan(make_task(), make_settings(3, 2, topology=GRAPH)).turns.matrix.weights(0))


# A mixing from nothing


def test_a_mixing_from_nothing_computes_the_same_on_both_engines_and_in_a_loop() -> None:
    settings = make_settings(3, 1, mixing=Ring, method="ddg", staleness=[0])
    found = both(settings)
    alone = run_simulator(make_task(), make_settings(3, 1, mixing="none", method="ddg", staleness=[0], updates=1))
    first = run_simulator(make_task(), make_settings(3, 1, mixing=Ring, method="ddg", staleness=[0], updates=1))
    for (s, name), value in first.parameters.items():
        before = alone.parameters[(s - 1) % 3, name]
        torch.testing.assert_close(value, (alone.parameters[s, name] + before) * 0.5, rtol=0, atol=0)
    assert differ(found, run_simulator(make_task(), make_settings(3, 1, method="ddg", staleness=[0], mixing="none")))


def test_a_mixing_takes_period_lag_and_momentum_like_those_with_names() -> None:
    options: dict[str, Any] = {"period": 2, "lag": 1, "momentum": True, "method": "pham-ahn"}
    found = both(make_settings(2, 2, mixing=HalfAsMuch, **options))
    assert differ(found, run_simulator(make_task(), make_settings(2, 2, mixing="adapt-then-combine", **options)))
    once = run_simulator(make_task(), make_settings(2, 2, mixing=Times(1.0), **options))
    compare(once, run_simulator(make_task(), make_settings(2, 2, mixing="adapt-then-combine", **options)))


def test_no_spectral_gap_is_claimed_for_a_rule_that_nobody_knows() -> None:
    assert make_plan(make_task(), make_settings(2, 2, mixing=HalfAsMuch)).spectral_gap is None


def test_a_single_group_mixes_nothing_whatever_the_mixing() -> None:
    for kind in (Ring, HalfAsMuch, Times(2.0)):
        plan = make_plan(make_task(), make_settings(1, 2, mixing=kind))
        assert plan.mixing.name == "none"
        assert plan.settled(make_settings(1, 2, mixing=kind)).mixing.kind == "none"


# What is written down


def test_what_is_written_down_makes_the_same_again_or_is_refused() -> None:
    settings = make_settings(2, 2, mixing=HalfAsMuch, view=Later)
    said = make_plan(make_task(), settings).settled(settings).plain()
    assert said["method"]["view"] == "tests.test_values:Later"
    assert said["mixing"]["kind"] == "tests.test_values:HalfAsMuch"
    compare(run_simulator(make_task(), settings), run_simulator(make_task(), Settings.of(said)))
    settings = make_settings(2, 2, mixing=Times(2.0))
    said = make_plan(make_task(), settings).settled(settings).plain()
    assert said["mixing"]["kind"] == "tests.test_values:Times(factor=2.0)"
    with pytest.raises(ConfigError, match=r"PACKAGE.MODULE:NAME"):
        make_plan(make_task(), Settings.of(said))


def test_two_graphs_and_two_mixings_that_differ_are_written_down_differently() -> None:
    graphs = [
        make_settings(3, 2, topology=graph).plain()
        for graph in (GRAPH, nx.star_graph([1, 0, 2]), nx.path_graph([1, 0, 2]))
    ]
    assert [said["mixing"]["topology"] for said in graphs] == ["0-1,1-2", "0-1,1-2", "0-1,0-2"]
    assert make_plan(make_task(), Settings.of(graphs[2])).turns.matrix.weights(0)[1][2] == 0
    assert text_of(Times(1.0)) != text_of(Times(2.0))


def test_a_graph_of_one_group_can_be_read_back() -> None:
    settings = make_settings(1, 2, topology=nx.path_graph(1))
    assert make_plan(make_task(), Settings.of(settings.plain())).grid.groups == 1


# Refusals


class Instead:
    """No part of anything."""


def test_what_is_no_view_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method.view must be text in UTF-8 or a class of View or left out"):
        make_settings(view=Later(make_site()))
    with pytest.raises(ConfigError, match=r"method.view must be"):
        make_settings(view=Instead)
    own = replace(EVEN, view=Later(make_site()))  # type: ignore[arg-type]
    refused(r"a view is made for every unit \(view: Later, made already\); give its class", method=own)
    refused(r"unknown view \(view: 'stahsed'\); did you mean stashed", method=replace(EVEN, view="stahsed"))
    refused("this is no view", view="tests.test_values:Instead")


def make_site() -> stalegrid.Site:
    from tests.sites import make_site as make

    return make()


class Forgetful(stalegrid.View):
    def forwarding(self, batch: int) -> tuple[int, Tensor]:
        return self.weights.version, self.parameters.clone()


class Short(stalegrid.View):
    def seen(self, version: int) -> Tensor:
        return self.parameters[1:]


class Nothing(stalegrid.View):
    def seen(self, version: int) -> Tensor:
        return None  # type: ignore[return-value]


class Twice(stalegrid.Recomputed):
    def seen(self, version: int) -> Tensor:
        return self.parameters


class Larger(stalegrid.View):
    nbytes = 1 << 20  # type: ignore[assignment]


class Broken(stalegrid.View):
    def overwriting(self) -> None:
        raise KeyError("a bug")


@pytest.mark.parametrize(
    ("view", "match"),
    [
        (Forgetful, r"forwards at other weights.*Forgetful, elsewhere: False\); set elsewhere = True"),
        (Short, r"a vector like self.parameters.*Short, seen returned: torch.float32 of shape"),
        (Nothing, r"Nothing, seen returned: NoneType"),
        (Twice, r"recomputes: True, overridden: seen"),
        (Larger, r"keeps more than it says \(view: tests.test_values:Larger, keeps: \d+ bytes, Kept.*copies=0"),
        (Broken, r"cannot be built or used \(view: tests.test_values:Broken\): 'a bug'"),
    ],
)
def test_a_view_that_cannot_be_right_is_refused(view: type[stalegrid.View], match: str) -> None:
    refused(match, view=view, method="pham-ahn")


class Hoarding(stalegrid.Correction):
    """Keeps a vector and says that it keeps none."""

    def stepped(self, update: stalegrid.Update) -> None:
        self.last = self.site.weights.flat.clone()

    @property
    def nbytes(self) -> int:
        return self.last.nbytes


def test_a_correction_that_keeps_more_than_it_says_is_refused() -> None:
    text = r"keeps more than it says \(correction: Hoarding, keeps: \d+ bytes, vectors: 0 of \d+ bytes\)"
    refused(text, corrections=[Hoarding], method="pham-ahn")


class LaterElsewhere(stalegrid.View):
    """Says only in training that it forwards elsewhere."""

    def forwarding(self, batch: int) -> tuple[int, Tensor]:
        return self.weights.version, self.weights.flat if batch < 3 else self.parameters.clone()


def test_a_view_that_forwards_elsewhere_without_a_word_ends_the_run() -> None:
    with pytest.raises(TrainingError, match=r"LaterElsewhere, batch: 3"):
        run_simulator(make_task(), make_settings(1, 2, view=LaterElsewhere, method="pham-ahn"))


class Scalar(stalegrid.AdaptThenCombine):
    def pull(self, gap: Tensor, share: float) -> Tensor:
        return gap.mean() * share


class NoLayout(Ring):
    layout = stalegrid.Mixing.layout


class NoExchange(Ring):
    exchange = stalegrid.Mixing.exchange


class Silent(stalegrid.AdaptThenCombine):
    tells = ("moved",)


class Deaf(Around):
    def after_update(self, unit: stalegrid.Unit, update: int) -> Iterator[stalegrid.Action]:
        yield next(super().after_update(unit, update))


class Unsent(Around):
    def after_update(self, unit: stalegrid.Unit, update: int) -> Iterator[stalegrid.Action]:
        yield list(super().after_update(unit, update))[1]


class Nameless(Around):
    def edges(self, unit: stalegrid.Unit) -> Iterator[stalegrid.Edge]:
        if unit.group:
            yield from super().edges(unit)

    def after_update(self, unit: stalegrid.Unit, update: int) -> Iterator[stalegrid.Action]:
        yield from Around(self.groups).after_update(unit, update)


class Posing(stalegrid.AdaptThenCombine):
    name = "adapt-then-combine"


def patched() -> stalegrid.Mixing:
    made = stalegrid.AdaptThenCombine()
    made.pull = lambda gap, share: gap * 0  # type: ignore[method-assign]
    return made


def of(lateral: type[Around]) -> type[stalegrid.Mixing]:
    class Own(Ring):
        def lateral(self, turns: stalegrid.Turns) -> stalegrid.Lateral:
            return lateral(turns.groups)

    return Own


@pytest.mark.parametrize(
    ("mixing", "match"),
    [
        (NoLayout, r"must say what every message.*NoLayout, edge: around .*override layout"),
        (NoExchange, r"must say what they do.*NoExchange, exchange returned: NoneType"),
        (Silent, r"as many numbers as its mixing names.*Silent, tells: moved, told: 0\)"),
        (of(Deaf), r"a message would never be taken.*around"),
        (of(Unsent), r"groups would wait for each other.*around"),
        (of(Nameless), r"a message travels on an edge that its target does not name"),
        (Scalar, r"a neighbour pulls at every number.*Scalar, pull returned: torch.float32 of shape \(\)"),
        (Times, r"cannot be made without arguments.*Times.*factor.*mixing=Times\(\.\.\.\)"),
        (Posing, r"this is not the mixing adapt-then-combine .*it is: Posing\); inherit"),
        (patched(), r"this is not the mixing adapt-then-combine .*it is: AdaptThenCombine, pull set\); inherit"),
        ("adapt-then-combin", r"unknown mixing.*did you mean adapt-then-combine"),
        ("tests.test_values:Instead", r"this is no mixing \(mixing: tests.test_values:Instead, it is: type\)"),
    ],
)
def test_a_mixing_that_cannot_be_right_is_refused(mixing: Any, match: str) -> None:
    refused(match, mixing=mixing)


class Less(stalegrid.AdaptThenCombine):
    """Neighbours pull less every time."""

    def __init__(self) -> None:
        self.times = 0

    def pull(self, gap: Tensor, share: float) -> Tensor:
        self.times += 1
        return gap.mul_(share / self.times)


@pytest.mark.parametrize("processes", [1, 4])
def test_each_unit_has_a_mixing_of_its_own_and_the_users_is_left_as_it_is(processes: int) -> None:
    mixing = Less()
    settings = make_settings(2, 2, mixing=mixing, processes=processes)
    assert not differ(both(settings), both(settings))
    assert mixing.times == 0


def test_what_is_no_mixing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"mixing.kind must be"):
        make_settings(mixing=Instead())
    refused(
        r"this is no mixing \(mixing: tests.test_values:Instead, it is: type\)", method=replace(EVEN, mixing=Instead)
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("schedule", "match"),
    [
        (lambda stages, micro: [0] * stages, r"returns a schedule \(method: even, returned: list\)"),
        (lambda stages, micro: stalegrid.stale([0] * stages), r"micro_batches: 1 instead of 2"),
        (lambda stages, micro: stalegrid.stale([0], micro), r"stages: 1 instead of 2"),
        (lambda stages, micro: stalegrid.Schedule((1, 2), micro), r"staleness increases along the stages"),
        (lambda stages, micro: 1 / 0, r"the schedule of even fails .*ZeroDivisionError"),
        (lambda stages: None, r"the schedule of even fails .*TypeError"),
    ],
)
def test_a_method_whose_schedule_cannot_be_right_is_refused(schedule: Any, match: str) -> None:
    refused(match, method=replace(EVEN, schedule=schedule), micro_batches=2)


def test_what_is_no_method_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method.name must be"):
        make_settings(method=Instead)
    with pytest.raises(ConfigError, match=r"a method's name .*'a/b'"):
        replace(EVEN, name="a/b")
    refused(r"this is not the published dsp", method=replace(EVEN, name="dsp"))
    with pytest.raises(ConfigError, match=r"this is no method \(method: tests.test_values:Instead"):
        find_grid("tests.test_values:Instead")


def test_what_makes_no_correction_is_refused() -> None:
    refused(r"this makes no correction \(corrections: Instead\)", corrections=[lambda site: Instead()])
    refused(r"this makes no correction \(corrections: Later\)", corrections=[Later])
    with pytest.raises(ConfigError, match=r"method.corrections must be"):
        make_settings(corrections=[Instead()])


def test_directed_graphs_and_graphs_of_other_nodes_are_refused() -> None:
    refused(r"a directed graph has no rule here .*to_undirected", topology=nx.DiGraph([(0, 1), (1, 0)]))
    refused(r"nodes must be the groups 0 to 1", topology=nx.path_graph(3))
    refused(r"matrix is 3 x 3 but there are 2 groups", topology=np.full((3, 3), 1 / 3))
    with pytest.raises(ConfigError, match=r"mixing.topology must be"):
        make_settings(topology=Instead())


# The command line


SMALL = ("--data", "digits", "--model", "mlp", "--batch-size", "16", "--updates", "4", "--engine.kind", "simulator")


def stalegrid_of(*words: str) -> int:
    return main(list(words))


def test_every_part_is_named_by_its_path_on_the_command_line(mine: Path) -> None:
    parts = ("--method", "mine_of_values:even", "--groups", "3", "--view", "mine_of_values:Later")
    more = ("--corrections", "mine_of_values:Fade,clip=1.0", "--mixing", "mine_of_values:HalfAsMuch")
    run = mine / "run"
    assert stalegrid_of("train", *SMALL, *parts, *more, "--topology", "mine_of_values:graph", "--out", str(run)) == 0
    said = read_yaml(run / "config.yaml")
    assert said["method"]["name"] == "mine_of_values:even"
    assert said["mixing"]["kind"] == "mine_of_values:HalfAsMuch"
    assert said["mixing"]["topology"] == "mine_of_values:graph"
    assert said["method"]["corrections"] == ["mine_of_values:Fade", "clip=1.0"]
    again = mine / "again"
    assert stalegrid_of("train", "--config", str(run / "config.yaml"), "--out", str(again)) == 0
    losses = [json.loads((folder / "summary.json").read_text())["train_loss"] for folder in (run, again)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--method", "mine_of_values:three", "this is no method (method: mine_of_values:three, it is: int)"),
        ("--method", "mine_of_values:tree", "the module has nothing of that name (method: mine_of_values:tree"),
        ("--view", "mine_of_nothing:Later", "the module cannot be imported (view: mine_of_nothing:Later)"),
        ("--mixing", "mine_of_values:Times", "a mixing cannot be made without arguments"),
        ("--corrections", "mine_of_values:three", "this makes no correction (corrections: mine_of_values:three"),
        ("--topology", "mine_of_values:three", "this is no topology (topology: mine_of_values:three, it is: int)"),
    ],
)
def test_a_path_of_something_else_is_refused(
    mine: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, said: str
) -> None:
    assert stalegrid_of("train", *SMALL, "--groups", "2", option, value) == 2
    assert said in capsys.readouterr().err


def test_a_mixing_that_was_made_is_named_by_its_path_too(mine: Path) -> None:
    run = mine / "run"
    words = ("--method", "pham-ahn", "--groups", "2", "--mixing", "mine_of_values:twice", "--out", str(run))
    assert stalegrid_of("train", *SMALL, *words) == 0
    assert read_yaml(run / "config.yaml")["mixing"]["kind"] == "mine_of_values:twice"


def test_a_comparison_a_table_and_a_plan_take_a_method_of_ones_own(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = mine / "compared"
    words = ("--methods", "sgd,mine_of_values:even", "--seeds", "1", "--out", str(out))
    assert stalegrid_of("compare", *SMALL, *words) == 0
    assert {"sgd-0", "even-0"} <= {path.name for path in out.iterdir()}
    for words in (("table", "--method"), ("methods",)):
        assert stalegrid_of(*words, "mine_of_values:even") == 0
    COSTS.write(mine / "costs.json")
    costs = ("--costs", str(mine / "costs.json"), "--batch-size", "16")
    capsys.readouterr()
    assert stalegrid_of("plan", "--units", "4", "--methods", "mine_of_values:even", *costs) == 0
    assert "stalegrid train --method mine_of_values:even" in capsys.readouterr().out


def test_verify_says_that_no_plain_loop_computes_ones_own(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--data", "digits", "--model", "mlp", "--batch-size", "16", "--updates", "4")
    assert stalegrid_of("verify", *words, "--method", "mine_of_values:even", "--view", "mine_of_values:Later") == 0
    assert "no plain loop computes this" in capsys.readouterr().out


def test_two_methods_of_one_name_are_not_compared(tmp_path: Path) -> None:
    base = RunConfig.of({"method": "sgd", "data": "digits", "model": "mlp"})
    with pytest.raises(ConfigError, match=r"each named once .*:EVEN,tests.test_values:ALIKE"):
        compare_methods(base, ["tests.test_values:EVEN", "tests.test_values:ALIKE"], 1, tmp_path / "out", quiet=True)


ALIKE = replace(EVEN, view="recomputed")


COSTS = CostTable(
    16,
    tuple(
        Cost(forward=1.0, backward=2.0, update=0.1, mix=0.1, output=100, parameters=1000, graph=100, name=name)
        for name in ("conv1", "norm2", "fc1")
    ),
    0.0,
)


def test_staleness_auto_takes_a_mixing_of_ones_own() -> None:
    settings = make_settings(2, 2, method=EVEN, mixing=Ring, staleness="auto")
    plan = make_plan(make_task(), settings, COSTS)
    assert list(plan.schedule.windows) == sorted(plan.schedule.windows, reverse=True)


SCRIPT = """
import torch
from torch import nn, optim
from torch.utils.data import TensorDataset
import stalegrid

class Later(stalegrid.Stashed):
    pass

class Half(stalegrid.AdaptThenCombine):
    def pull(self, gap, share):
        return gap * share / 2

own = stalegrid.Method("own", "me", "1,0", lambda k, m: stalegrid.stale([1] + [0] * (k - 1), m), view=Later,
                       mixing=Half, corrections=(lambda site: stalegrid.Correction(site),), shape=(2, 2))
torch.manual_seed(0)
data = TensorDataset(torch.randn(32, 4), torch.arange(32) % 2)
model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
losses = [
    stalegrid.train(model, data, loss=nn.CrossEntropyLoss(), optimizer=lambda p: optim.SGD(p, lr=0.1), method=own,
                    grid=stalegrid.GridSettings(cuts=["2"]), batch_size=4, updates=3, engine=engine, device="cpu",
                    quiet=True).summary["train_loss"]
    for engine in ("simulator", "processes")
]
assert losses[0] == losses[1], losses
print("alike")
"""


def test_parts_that_a_script_defines_work_on_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    run_script(tmp_path / "script.py", tmp_path)
    assert capsys.readouterr().out.split()[-1:] == ["alike"]
