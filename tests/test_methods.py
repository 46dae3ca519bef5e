import pytest

from stalegrid.errors import ConfigError
from stalegrid.methods import METHODS, MIXINGS, find, schedule
from stalegrid.program import Schedule, gpipe, one_f_one_b, stale
from stalegrid.weights import VIEWS

NAMES = [method.name for method in METHODS]


def test_every_method_is_found_by_its_own_name() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert [find(name) for name in NAMES] == list(METHODS)


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'pham'\); there are: pham-ahn, sgd, data-parallel, gpipe, 1f1b"):
        find("pham")


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_of_a_method_exist_and_run_at_its_own_shape(name: str) -> None:
    method = find(name)
    groups, stages = method.shape
    assert method.mixing in MIXINGS
    assert method.view in VIEWS
    assert groups <= (method.max_groups or groups)
    assert stages <= (method.max_stages or stages)
    made = schedule(method, stages, None, method.micro_batches)
    assert (made.stages, made.micro_batches) == (stages, method.micro_batches)


@pytest.mark.parametrize(
    ("name", "stages", "micro_batches", "expected"),
    [
        ("pham-ahn", 1, 1, stale([0])),
        ("pham-ahn", 4, 1, stale([6, 4, 2, 0])),
        ("pham-ahn", 3, 2, stale([4, 2, 0], 2)),
        ("sgd", 3, 1, Schedule((1, 1, 1), 1, flush=True)),
        ("data-parallel", 1, 1, Schedule((1,), 1, flush=True)),
        ("gpipe", 3, 4, gpipe(3, 4)),
        ("1f1b", 3, 4, one_f_one_b(3, 4)),
    ],
)
def test_schedule_of_a_method(name: str, stages: int, micro_batches: int, expected: Schedule) -> None:
    assert schedule(find(name), stages, None, micro_batches) == expected


@pytest.mark.parametrize("name", NAMES)
def test_the_printed_formula_is_the_schedule(name: str) -> None:
    method = find(name)
    for stages in (1, 2, 5):
        made = schedule(method, stages, None, 1)
        for k in range(stages):
            in_words = {"2(K-1-k)": 2 * (stages - 1 - k), "0": 0}[method.formula]
            assert made.bound(k) == in_words


def test_the_users_staleness_replaces_the_methods() -> None:
    assert schedule(find("pham-ahn"), 3, [5, 1, 1], 2) == stale([5, 1, 1], 2)


@pytest.mark.parametrize("name", [method.name for method in METHODS if not method.stale])
def test_a_method_that_flushes_takes_no_staleness(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} flushes at every update and has no staleness"):
        schedule(find(name), 1, [0], 1)


@pytest.mark.parametrize("staleness", [[], [1], [2, 1, 0]])
def test_staleness_of_another_length_than_the_stages_is_refused(staleness: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"one number a stage .*stages: 2"):
        schedule(find("pham-ahn"), 2, staleness, 1)


@pytest.mark.parametrize(("staleness", "fault"), [([0, 1], "increases"), ([1, -1], "negative")])
def test_staleness_that_cannot_run_is_refused(staleness: list[int], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        schedule(find("pham-ahn"), 2, staleness, 1)


def test_no_micro_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match="micro-batches: 0"):
        schedule(find("gpipe"), 2, None, 0)
