import pytest
import torch

from stalegrid.consensus.choose import find_mixing
from stalegrid.consensus.mixings import MIXINGS
from stalegrid.errors import ConfigError
from stalegrid.methods.choose import find, find_grid, schedule, staleness_of
from stalegrid.methods.published import METHODS, SERVER_METHODS
from stalegrid.programs.schedules import Schedule, gpipe, one_f_one_b, stale
from stalegrid.stages.corrections.named import makers
from stalegrid.stages.views.named import VIEWS

NAMES = [method.name for method in METHODS]


def test_every_method_is_found_by_its_own_name() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert [find(name) for name in NAMES] == list(METHODS)


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    served = [method.name for method in SERVER_METHODS]
    with pytest.raises(ConfigError, match=rf"'soup'\); there are: {', '.join(NAMES + served)}$"):
        find("soup")


@pytest.mark.parametrize(
    ("name", "nearest"), [("pham", "pham-ahn"), ("pipedream-2wb", "pipedream-2bw"), ("sgdd", "sgd")]
)
def test_a_misspelt_method_is_refused_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf"\(method: '{name}'\); did you mean {nearest}\? there are: pham-ahn, "):
        find(name)


def test_methods_with_parameter_servers_are_no_methods_of_the_grid() -> None:
    for method in SERVER_METHODS:
        assert find(method.name) is method
        with pytest.raises(ConfigError, match=f"{method.name} trains learners with parameter servers, not a grid"):
            find_grid(method.name)
    assert all(find_grid(name) is find(name) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_of_a_method_exist_and_run_at_its_own_shape(name: str) -> None:
    method = find_grid(name)
    groups, stages = method.shape
    assert find_mixing(method.mixing).name in [mixing.name for mixing in MIXINGS]
    assert method.view in VIEWS
    assert groups <= (method.max_groups or groups)
    assert stages <= (method.max_stages or stages)
    makers(method.corrections)
    assert method.optimizer is None or issubclass(getattr(torch.optim, method.optimizer), torch.optim.Optimizer)
    made = schedule(method, stages, None, None, method.micro_batches)
    assert (made.stages, made.micro_batches) == (stages, method.micro_batches)


@pytest.mark.parametrize(
    ("name", "stages", "micro_batches", "expected"),
    [
        ("pham-ahn", 1, 1, stale([0])),
        ("pham-ahn", 4, 1, stale([6, 4, 2, 0])),
        ("diloco", 3, 1, stale([0, 0, 0])),
        ("streaming-diloco", 3, 1, stale([0, 0, 0])),
        ("noloco", 3, 1, stale([0, 0, 0])),
        ("snoo", 3, 2, stale([0, 0, 0], 2)),
        ("pham-ahn", 3, 2, stale([4, 2, 0], 2)),
        ("dsp", 3, 1, stale([4, 2, 0])),
        ("fdg", 3, 1, stale([3, 1, 0])),
        ("fdg", 1, 1, stale([0])),
        ("fdg-forward-first", 3, 1, stale([4, 2, 0])),
        ("adl", 3, 4, stale([4, 2, 0], 4)),
        ("ddg", 3, 1, stale([2, 1, 0])),
        ("features-replay", 4, 1, stale([3, 2, 1, 0])),
        ("pipedream", 3, 1, stale([2, 1, 0])),
        ("pipedream-2bw", 3, 4, stale([2, 1, 0], 4)),
        ("pipemare", 3, 1, stale([2, 1, 0])),
        ("spectrain", 3, 1, stale([2, 1, 0])),
        ("pipeoptim", 3, 1, stale([2, 1, 0])),
        ("async-nesterov", 3, 1, stale([2, 1, 0])),
        ("paci", 3, 4, stale([2, 1, 0], 4)),
        ("asyncmesh", 3, 1, stale([2, 1, 0])),
        ("sgp", 3, 1, stale([0, 0, 0])),
        ("exact-diffusion", 1, 1, stale([0])),
        ("gradient-tracking", 2, 1, stale([0, 0])),
        ("sgd", 3, 1, Schedule((1, 1, 1), 1, flush=True)),
        ("data-parallel", 1, 1, Schedule((1,), 1, flush=True)),
        ("choco", 2, 1, stale([0, 0])),
        ("gpipe", 3, 4, gpipe(3, 4)),
        ("1f1b", 3, 4, one_f_one_b(3, 4)),
    ],
)
def test_schedule_of_a_method(name: str, stages: int, micro_batches: int, expected: Schedule) -> None:
    assert schedule(find_grid(name), stages, None, None, micro_batches) == expected


@pytest.mark.parametrize("name", NAMES)
def test_the_printed_formula_is_the_schedule(name: str) -> None:
    method = find_grid(name)
    for stages in (1, 2, 5):
        made = schedule(method, stages, None, None, 1)
        for k in range(stages):
            later = stages - 1 - k
            in_words = {"2(K-1-k)": 2 * later, "K-1-k": later, "2(K-1-k)-1, 0 last": max(0, 2 * later - 1), "0": 0}
            assert made.bound(k) == in_words[method.formula]


def test_the_two_orders_within_a_tick_differ_by_a_batch_below_the_last_stage() -> None:
    first, last = (schedule(find_grid(name), 4, None, None, 1).windows for name in ("fdg-forward-first", "fdg"))
    assert [a - b for a, b in zip(first, last, strict=True)] == [1, 1, 1, 0]


def test_gradients_are_averaged_unless_the_method_adds_them_up() -> None:
    assert [method.name for method in METHODS if method.reduction == "sum"] == ["adl"]


def test_the_users_staleness_replaces_the_methods() -> None:
    assert schedule(find_grid("pham-ahn"), 3, [5, 1, 1], None, 2) == stale([5, 1, 1], 2)


@pytest.mark.parametrize("name", [method.name for method in METHODS if not method.stale])
def test_a_method_that_flushes_takes_no_staleness(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} flushes at every update and has no staleness"):
        schedule(find_grid(name), 1, [0], None, 1)
    with pytest.raises(ConfigError, match=rf"{name} flushes .* \(queues: 0\)"):
        schedule(find_grid(name), 1, None, [0], 1)


@pytest.mark.parametrize("staleness", [[], [1], [2, 1, 0]])
def test_staleness_of_another_length_than_the_stages_is_refused(staleness: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"one number a stage .*stages: 2"):
        schedule(find_grid("pham-ahn"), 2, staleness, None, 1)
    with pytest.raises(ConfigError, match=r"queues needs one number a stage .*stages: 2"):
        schedule(find_grid("pham-ahn"), 2, None, staleness, 1)


@pytest.mark.parametrize(("staleness", "fault"), [([0, 1], "increases"), ([1, -1], "negative")])
def test_staleness_that_cannot_run_is_refused(staleness: list[int], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        schedule(find_grid("pham-ahn"), 2, staleness, None, 1)


def test_no_micro_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match="micro-batches: 0"):
        schedule(find_grid("gpipe"), 2, None, None, 0)


@pytest.mark.parametrize(
    ("queues", "staleness"),
    [([1, 1, 0], [4, 2, 0]), ([0, 0, 0], [2, 1, 0]), ([0], [0]), ([2], [2]), ([3, 0, 1], [6, 2, 1]), ([0, 5], [6, 5])],
)
def test_queues_say_the_staleness(queues: list[int], staleness: list[int]) -> None:
    assert staleness_of(queues) == staleness
    assert schedule(find_grid("dsp"), len(queues), None, queues, 2) == stale(staleness, 2)


def test_a_queue_of_one_a_stage_is_the_published_staleness() -> None:
    for stages in range(1, 6):
        assert schedule(find_grid("dsp"), stages, None, [1] * (stages - 1) + [0], 1) == schedule(
            find_grid("dsp"), stages, None, None, 1
        )


def test_a_queue_that_holds_less_than_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a queue holds 0 or more \(queues: 1,-1,0\)"):
        schedule(find_grid("dsp"), 3, None, [1, -1, 0], 1)


def test_queues_and_staleness_at_once_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"say the same \(staleness: \[4, 2, 0\], queues: \[1, 1, 0\]\); give one"):
        schedule(find_grid("dsp"), 3, [4, 2, 0], [1, 1, 0], 1)


@pytest.mark.parametrize(("staleness", "queues"), [(None, None), ([2, 1, 0], None), (None, [0, 0, 0])])
def test_the_delay_of_a_view_is_the_schedules(staleness: list[int] | None, queues: list[int] | None) -> None:
    made = schedule(find_grid("pipedream-2bw"), 3, staleness, queues, 4, delay=1)
    assert made == Schedule((3, 2, 1), 4, delay=1)
    assert [made.bound(k) for k in range(3)] == [1, 1, 1]
