import pytest

from stalegrid.errors import ConfigError
from stalegrid.programs.grid import OBSERVER, Grid, Unit


def test_units_come_group_by_group() -> None:
    assert list(Grid(2, 3)) == [Unit(0, 0), Unit(0, 1), Unit(0, 2), Unit(1, 0), Unit(1, 1), Unit(1, 2)]
    assert list(Grid(1, 1)) == [Unit(0, 0)]


@pytest.mark.parametrize(("groups", "stages"), [(1, 1), (1, 5), (4, 1), (3, 2)])
def test_length_is_the_number_of_units(groups: int, stages: int) -> None:
    grid = Grid(groups, stages)
    assert len(grid) == groups * stages == len(set(grid))


def test_units_sort_in_the_order_of_the_grid_and_the_observer_stands_outside() -> None:
    units = list(Grid(3, 4))
    assert sorted(set(units)) == units
    assert Unit(0, 3) < Unit(1, 0) < Unit(1, 1)
    assert OBSERVER not in units


def test_a_unit_prints_as_its_coordinates() -> None:
    assert str(Unit(2, 5)) == "(2,5)"


@pytest.mark.parametrize(("groups", "stages", "at_fault"), [(0, 1, "groups: 0"), (1, 0, "stages: 0"), (2, -3, "-3")])
def test_a_grid_without_units_is_refused(groups: int, stages: int, at_fault: str) -> None:
    with pytest.raises(ConfigError, match=at_fault):
        Grid(groups, stages)
