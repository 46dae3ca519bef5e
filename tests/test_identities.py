"""Settings that must agree with each other, with torch's own loop, or with theory."""

import copy
import itertools
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from stalegrid import seeds
from stalegrid.config import Settings
from stalegrid.consensus.matrices import mixing_matrix
from stalegrid.errors import ConfigError
from stalegrid.methods.choose import find
from stalegrid.methods.method import Method
from stalegrid.methods.published import METHODS
from stalegrid.plans.material import cast_model, make_batches
from stalegrid.plans.task import Task
from stalegrid.runs import execute
from stalegrid.stages.views.named import VIEWS
from tests.cases import (
    CPU,
    OPTIMIZERS,
    UPDATES,
    Net,
    Outcome,
    Recorder,
    build,
    compare,
    images,
    make_settings,
    make_task,
    record_simulator,
    run_simulator,
)
from tests.pairs import pairs

pytestmark = pytest.mark.thorough

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01)
MIXINGS = ("combine-while-adapt", "adapt-then-combine")


def same(one: Outcome, other: Outcome) -> bool:
    return all(torch.equal(value, other.parameters[key]) for key, value in one.parameters.items())


def torch_loop(task: Task, settings: Settings) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Train as any PyTorch user would, on the whole model."""
    samples = make_batches(task, settings.training, 1, 1)
    model = cast_model(task, settings.training)
    optimizer = task.optimizer(list(model.parameters()))
    scheduler = task.scheduler(optimizer) if task.scheduler else None
    losses = []
    for n in range(UPDATES):
        with seeds.drawing(CPU, settings.training.seed, "forward", 0, 0, n):
            loss = task.loss(model(*samples.inputs(0, n)), samples.targets(0, n))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if scheduler:
            scheduler.step()
        losses.append(loss.item())
    return model.state_dict(), losses


STEPS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": SGD},
    "nesterov": {"optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True), "scheduler": None},
    "adam": {"optimizer": partial(torch.optim.Adam, lr=0.01)},
    "adamw": {"optimizer": partial(torch.optim.AdamW, lr=0.01, amsgrad=True), "scheduler": None},
}


@pytest.mark.parametrize(("step", "dtype", "view"), pairs([*STEPS], ("float32", "float64"), ("stashed", "current")))
def test_one_unit_is_a_plain_torch_loop(step: str, dtype: str, view: str) -> None:
    task, settings = make_task(**STEPS[step]), make_settings(1, 1, dtype=dtype, view=view)
    run = run_simulator(task, settings)
    state, losses = torch_loop(task, settings)
    assert run.mean.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(run.mean[name], tensor), name
    assert run.losses == [[loss] for loss in losses]


@pytest.mark.parametrize("view", ["stashed", "current"])
def test_one_group_has_nobody_to_mix_with(view: str) -> None:
    alone = run_simulator(make_task(), make_settings(1, 3, mixing="none", view=view))
    for changes in (
        {"mixing": "combine-while-adapt", "lag": 1},
        {"mixing": "adapt-then-combine", "period": 2, "momentum": True},
        {"mixing": "adapt-then-combine", "topology": "one-peer-exponential"},
        {"mixing": "all-reduce"},
    ):
        compare(run_simulator(make_task(), make_settings(1, 3, view=view, **changes)), alone)


@pytest.mark.parametrize(
    ("view", "momentum"),
    [(v, m) for v in ("stashed", "current", "recomputed", "corrected", "double-buffered") for m in (False, True)]
    + [("predicted", True), ("predicted-twice", True)],
)
def test_complete_mixing_is_one_pipeline_with_a_larger_batch(view: str, momentum: bool) -> None:
    """Equal starts, P = 11^T/S and linear updates: the groups stay together on the mean gradient of all samples.

    Not bit for bit: a mean over 12 samples and a mean of three means over 4 are summed in different orders.  In
    float64 each update adds rounding of about 1e-16 and eight updates amplify it little; 1e-12 leaves room.
    """
    task = make_task(model=build(partial(Net, plain=True)))
    common: dict[str, Any] = {"stages": 3, "dtype": "float64", "view": view}
    if view == "double-buffered":
        common["staleness"] = [1, 1, 0]
    groups = run_simulator(
        task,
        make_settings(3, topology="complete", mixing="adapt-then-combine", momentum=momentum, **common),
    )
    single = run_simulator(task, make_settings(1, batch_size=12, **common))
    start = task.model.state_dict()
    moved = max(float((value - start[name]).abs().max()) for name, value in single.mean.items())
    assert moved > 1e-2
    for name, value in single.mean.items():
        torch.testing.assert_close(groups.mean[name], value, rtol=0, atol=1e-12)
    for n in range(UPDATES):
        assert math.isclose(sum(groups.losses[n]) / 3, single.losses[n][0], rel_tol=1e-12)


@pytest.mark.parametrize("method", ["sgd", "gpipe", "1f1b"])
@pytest.mark.parametrize("stages", [1, 2, 3])
def test_no_staleness_is_sgd(stages: int, method: str) -> None:
    fresh = run_simulator(make_task(), make_settings(1, stages, staleness=[0] * stages))
    compare(run_simulator(make_task(), make_settings(1, stages, method=method, micro_batches=1)), fresh)


STALE = [method for method in METHODS if method.stale]


def run_method(method: Method, **changes: Any) -> Outcome:
    """Run a method on one group, with its own corrections, except that nothing is shrunk."""
    own = {"optimizer": OPTIMIZERS[method.name]} if method.name in OPTIMIZERS else {}
    corrections = ["shrink=1" if text.startswith("shrink") else text for text in method.corrections]
    options = {"method": method.name, "corrections": corrections, "micro_batches": 1, "mixing": "none", **changes}
    return run_simulator(make_task(**own), make_settings(1, 3, **options))


def run_sgd(method: Method, **changes: Any) -> Outcome:
    """Run the method's optimizer, stage after stage."""
    own = {"optimizer": OPTIMIZERS[method.name]} if method.name in OPTIMIZERS else {}
    return run_simulator(make_task(**own), make_settings(1, 3, method="sgd", **changes))


@pytest.mark.parametrize("method", [m for m in STALE if m.view != "double-buffered"], ids=lambda m: m.name)
def test_without_staleness_every_method_is_sgd(method: Method) -> None:
    sgd = run_sgd(method)
    compare(run_method(method, staleness=[0, 0, 0]), sgd)
    assert not same(run_method(method, staleness=[2, 1, 0]), sgd)


@pytest.mark.parametrize("method", [m for m in STALE if m.view == "double-buffered"], ids=lambda m: m.name)
def test_a_double_buffer_is_late_by_one_update_even_without_staleness(method: Method) -> None:
    compare(run_method(method, staleness=[0, 0, 0], updates=1), run_sgd(method, updates=1))
    late, sgd = run_method(method, staleness=[0, 0, 0]), run_sgd(method)
    assert not same(late, sgd)
    compare(late, run_simulator(make_task(), make_settings(1, 3, staleness=[1, 1, 1])))


def test_shrinking_without_staleness_is_no_sgd() -> None:
    shrunk = run_simulator(make_task(), make_settings(1, 3, method="fdg", staleness=[0, 0, 0]))
    assert not same(shrunk, run_sgd(find("fdg")))


@pytest.mark.parametrize("method", ["gpipe", "1f1b"])
@pytest.mark.parametrize("view", [view for view in VIEWS if view not in ("stashed", "double-buffered")])
def test_with_a_flush_all_views_are_the_same(view: str, method: str) -> None:
    stashed, other = (run_simulator(make_task(), make_settings(1, 3, method=method, view=v)) for v in ("stashed", view))
    compare(other, stashed)


def test_with_a_flush_there_is_no_double_buffer() -> None:
    with pytest.raises(ConfigError, match="which a flush forbids; take stashed"):
        run_simulator(make_task(), make_settings(1, 3, method="gpipe", view="double-buffered"))


def test_late_all_views_differ() -> None:
    """Three micro-batches, so that weights change between forwards of an update too."""

    def run(view: str) -> Outcome:
        staleness = [3, 2, 0] if view == "double-buffered" else [6, 2, 0]
        return run_simulator(
            make_task(), make_settings(1, 3, view=view, staleness=staleness, micro_batches=3, batch_size=6)
        )

    outcomes = {view: run(view) for view in VIEWS}
    for one, other in itertools.combinations(outcomes, 2):
        assert not same(outcomes[one], outcomes[other]), (one, other)


@pytest.mark.parametrize(("groups", "stages"), [(1, 2), (1, 3), (2, 3)])
def test_1f1b_is_gpipe(groups: int, stages: int) -> None:
    for micro_batches in (2, 4):
        one, other = (
            run_simulator(make_task(), make_settings(groups, stages, method=method, micro_batches=micro_batches))
            for method in ("gpipe", "1f1b")
        )
        compare(one, other)


def test_data_parallel_is_gpipe_of_one_stage() -> None:
    one = run_simulator(make_task(), make_settings(3, 1, method="data-parallel"))
    compare(one, run_simulator(make_task(), make_settings(3, 1, method="gpipe", micro_batches=1)))
    for s in (1, 2):
        for (group, name), value in one.parameters.items():
            if group == 0 and "running" not in name:
                assert torch.equal(value, one.parameters[s, name])


@pytest.mark.parametrize("mixing", MIXINGS)
def test_views_differ_only_by_staleness(mixing: str) -> None:
    def run(view: str, staleness: list[int]) -> Outcome:
        return run_simulator(make_task(), make_settings(2, 3, view=view, staleness=staleness, mixing=mixing))

    compare(run("current", [0, 0, 0]), run("stashed", [0, 0, 0]))
    assert not same(run("current", [1, 0, 0]), run("stashed", [1, 0, 0]))


def test_every_choice_of_mixing_matters() -> None:
    choices: list[dict[str, Any]] = [
        {"mixing": "none"},
        {"mixing": "combine-while-adapt"},
        {"mixing": "adapt-then-combine"},
        {"topology": "star"},
        {"topology": "one-peer-exponential"},
        {"period": 2},
        {"lag": 1},
        {"momentum": True},
        {"lag_rule": "delta", "lag": 1, "period": 2},
        {"lag": 1, "period": 2},
        {"lag_rule": "ema", "lag": 1, "period": 2},
        {"sparse": 0.5},
    ]
    outcomes = [run_simulator(make_task(), make_settings(4, 1, **c)) for c in choices]
    for i, one in enumerate(outcomes):
        for j, other in enumerate(outcomes[:i]):
            assert not same(one, other), (choices[i], choices[j])


def at_rate_zero(groups: int, **changes: Any) -> Recorder:
    """Train three updates, then go on mixing with rate zero; keep every version."""

    def stop(step: int) -> float:
        return float(step < 3)

    task = make_task(
        data=images(4 * groups),  # one update an epoch
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        scheduler=partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=stop),
    )
    return record_simulator(task, make_settings(groups, 2, dtype="float64", evaluate_every=1.0, updates=14, **changes))


@pytest.mark.parametrize("topology", ["ring", "star", "0-1,1-2,2-3,2-4"])
@pytest.mark.parametrize("period", [1, 2])
@pytest.mark.parametrize("order", MIXINGS)
def test_mixing_keeps_the_mean_and_contracts_as_the_spectrum_says(order: str, period: int, topology: str) -> None:
    groups = 5
    sink = at_rate_zero(groups, mixing=order, topology=topology, period=period)
    shares = mixing_matrix(topology, groups).weights(0)
    second = float(np.sort(np.abs(np.linalg.eigvalsh(shares)))[-2])
    assert 0.1 < second < 0.9
    assert [e["version"] for e in sink.evaluations] == list(range(1, 15))
    distances = [e["consensus_distance"] for e in sink.evaluations]
    assert distances[2] > 1e-3
    parameters = [name for name, _ in Net().named_parameters()]
    for v in range(3, 14):  # update v leads from version v to v + 1
        turn = (v + 1) % period == 0
        # Rounding of parameters near 1 is what remains of the distance in the end.
        assert distances[v] <= (second if turn else 1.0) * distances[v - 1] * (1 + 1e-9) + 1e-15
        if turn and distances[v - 1] > 1e-12:
            assert distances[v] < distances[v - 1] * 0.95
        for name in parameters:
            torch.testing.assert_close(sink.means[v][name], sink.means[v - 1][name], rtol=0, atol=1e-15)


@pytest.mark.parametrize("order", MIXINGS)
@pytest.mark.parametrize("changes", [{}, {"momentum": True}, {"period": 2, "topology": "star"}], ids=str)
def test_with_nothing_late_the_rule_delta_is_the_usual_one_to_the_bit(changes: dict[str, Any], order: str) -> None:
    task, options = make_task(), {"mixing": order, **changes}
    usual = run_simulator(task, make_settings(3, 2, **options))
    compare(run_simulator(task, make_settings(3, 2, lag_rule="delta", **options)), usual)


@pytest.mark.parametrize("changes", [{"lag": 2}, {"lag_rule": "delta", "lag": 1, "period": 2}], ids=str)
def test_a_share_of_one_is_the_whole_to_the_bit(changes: dict[str, Any]) -> None:
    task = make_task()
    whole = run_simulator(task, make_settings(3, 2, **changes))
    compare(run_simulator(task, make_settings(3, 2, sparse=1.0, **changes)), whole)
    assert not same(run_simulator(task, make_settings(3, 2, sparse=0.5, **changes)), whole)


@pytest.mark.parametrize("rule", ["delta", "own-current"])
@pytest.mark.parametrize(
    ("changes", "keeps"),
    [
        ({"lag": 2, "topology": [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]}, False),
        ({"lag": 3, "period": 4, "topology": "ring"}, False),
        ({"lag": 2, "sparse": 0.25, "topology": "complete"}, False),
        ({"topology": "ring", "sparse": 0.5}, True),
    ],
    ids=str,
)
def test_the_mean_over_groups_moves_by_their_own_steps_alone(changes: dict[str, Any], keeps: bool, rule: str) -> None:
    """At rate zero it stays where it is, to rounding, while groups come together; own-current does so without lag."""
    sink = at_rate_zero(3, lag_rule=rule, **changes)
    distances = [e["consensus_distance"] for e in sink.evaluations]
    assert distances[13] < 0.5 * max(distances)
    names = [name for name, _ in Net().named_parameters()]
    moved = max(float((sink.means[13][name] - sink.means[2][name]).abs().max()) for name in names)
    assert (moved < 1e-14) == (rule == "delta" or keeps), moved


def test_one_peer_exponential_reaches_the_mean_after_a_cycle() -> None:
    distances = [e["consensus_distance"] for e in at_rate_zero(4, topology="one-peer-exponential").evaluations]
    assert distances[2] > 1e-3
    assert distances[4] < 1e-14


@pytest.mark.parametrize("view", VIEWS)
def test_groups_that_see_the_same_stay_bit_equal(view: str) -> None:
    x, y = images(1)[0]
    one_sample = TensorDataset(x.expand(50, -1, -1, -1), y.expand(50))
    task = make_task(model=build(partial(Net, plain=True)), data=one_sample)
    run = run_simulator(task, make_settings(3, 2, lag=1, view=view, micro_batches=2))
    assert all(len(set(losses)) == 1 for losses in run.losses)
    for (_, name), value in run.parameters.items():
        assert torch.equal(value, run.parameters[0, name])


def test_a_run_repeats_itself_and_leaves_the_task_alone() -> None:
    task, settings = make_task(), make_settings(2, 3)
    before = copy.deepcopy(task.model.state_dict())
    compare(run_simulator(task, settings), run_simulator(task, settings))
    for name, tensor in task.model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_run_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(7)  # a state that no run before this one has left
    state = torch.random.get_rng_state()
    execute(make_task(), make_settings(2, 2, engine="simulator"), quiet=True)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_seed_matters() -> None:
    assert not same(
        run_simulator(make_task(), make_settings(seed=3)), run_simulator(make_task(), make_settings(seed=4))
    )
