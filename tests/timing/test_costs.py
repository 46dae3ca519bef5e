import math
import re
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.errors import ConfigError
from stalegrid.programs.ties import Tie
from stalegrid.timing.costs import Cost, CostTable, frozen_stages, ties_of
from stalegrid.written.kept import read_yaml

MILLISECONDS = ("forward", "backward", "recompute", "update", "fixed", "mix")
BYTES = ("input", "output", "parameters", "graph")


def part(forward: float = 1.0, backward: float = 2.0, **more: Any) -> Cost:
    return Cost(forward=forward, backward=backward, **more)


def table(*work: float, batch_size: int = 8) -> CostTable:
    return CostTable(batch_size, tuple(part(w, 0.0, name=f"p{i}") for i, w in enumerate(work)))


@pytest.mark.parametrize("field", [*MILLISECONDS, *BYTES])
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, True, "2"])
def test_a_cost_that_is_no_number_of_0_or_more_is_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"0 or more ({field}: {value!r}, part: 'conv')")):
        part(**{"name": "conv", field: value})


@pytest.mark.parametrize("field", ["forward", "backward", "update"])
def test_only_a_second_forward_may_be_left_out(field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field}: None"):
        part(**{field: None})


def test_a_second_forward_costs_as_much_as_the_first_unless_told() -> None:
    assert part(1.5).second_forward == 1.5
    assert part(1.5, recompute=0.5).second_forward == 0.5
    assert part(1.5, recompute=0).second_forward == 0


@pytest.mark.parametrize("size", [0, -3])
def test_a_table_is_for_at_least_one_sample(size: int) -> None:
    with pytest.raises(ConfigError, match=rf"at least one sample \(batch_size: {size}\)"):
        CostTable(size, (part(),))


@pytest.mark.parametrize("handling", [-0.5, math.nan, math.inf])
def test_handling_is_0_or_more(handling: float) -> None:
    with pytest.raises(ConfigError, match=rf"0 ms or more a MB \(handling: {handling}\)"):
        CostTable(1, (part(),), handling)


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_a_part_is_frozen_or_not(value: Any) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"frozen or not (frozen: {value!r}, part: 'conv')")):
        part(name="conv", frozen=value)


def test_a_stage_is_frozen_where_all_its_parts_are() -> None:
    parts = (part(frozen=True), part(frozen=True, name="b"), part(name="c"), part(name="d"))
    whole = CostTable(8, parts)
    assert [cost.frozen for cost in whole.cut(3, ["b", "c"])] == [True, True, False]
    assert [frozen_stages(whole.cut(k, cuts)) for k, cuts in ((3, ["b", "c"]), (2, ["c"]), (2, ["d"]), (1, []))] == [
        2,
        1,
        0,
        0,
    ]


def test_stages_share_what_parts_of_several_use() -> None:
    both = {"w": 48, "v": 8}
    whole = CostTable(8, (part(tied=both), part(name="b", tied={"w": 48}), part(name="c"), part(name="d", tied=both)))
    assert ties_of(whole.cut(4, ["b", "c", "d"])) == (Tie((0, 1, 3), ("w",) * 3), Tie((0, 3), ("v",) * 2))
    assert ties_of(whole.cut(2, ["d"])) == (Tie((0, 1), ("w",) * 2), Tie((0, 1), ("v",) * 2))
    assert ties_of(whole.cut(1)) == ()
    assert [cost.tied for cost in whole.of_batch(16).cut(2, ["d"])] == [both, both]


def test_a_table_has_parts() -> None:
    with pytest.raises(ConfigError, match=r"at least one part \(parts: none\)"):
        CostTable(1, ())


def test_a_stage_costs_what_its_parts_cost_and_hands_over_at_its_ends() -> None:
    first = Cost(
        forward=1.0,
        backward=2.0,
        update=0.5,
        fixed=0.25,
        mix=0.125,
        input=10,
        output=20,
        parameters=30,
        graph=40,
        name="a",
    )
    second = Cost(
        forward=4.0,
        backward=8.0,
        recompute=3.0,
        update=16.0,
        fixed=0.5,
        mix=0.0625,
        input=20,
        output=7,
        targets=9,
        parameters=300,
        graph=400,
        name="b",
    )
    (whole,) = CostTable(8, (first, second)).cut(1)
    assert whole == Cost(
        forward=5.0,
        backward=10.0,
        recompute=4.0,
        update=16.5,
        fixed=0.75,
        mix=0.1875,
        input=10,
        output=7,
        targets=9,
        parameters=330,
        graph=440,
        name="a",
    )


def test_a_table_is_cut_where_the_user_says() -> None:
    stages = table(1, 2, 4, 8).cut(3, ["p1", "p3"])
    assert [stage.forward for stage in stages] == [1, 6, 8]
    assert [stage.name for stage in stages] == ["p0", "p1", "p3"]


@settings(deadline=None, max_examples=50)
@given(work=st.lists(st.integers(0, 9), min_size=1, max_size=7), data=st.data())
def test_a_table_is_cut_where_the_slowest_stage_is_fastest(work: list[int], data: st.DataObject) -> None:
    stages = data.draw(st.integers(1, len(work)))
    made = table(*work).cut(stages)
    cuttings = ([0, *cuts, len(work)] for cuts in combinations(range(1, len(work)), stages - 1))
    best = min(max(sum(work[a:b]) for a, b in pairwise(bounds)) for bounds in cuttings)
    assert max(stage.forward for stage in made) == best
    assert sum(stage.forward for stage in made) == sum(work)
    assert len(made) == stages


def test_backwards_and_updates_count_where_a_table_is_cut() -> None:
    parts = [part(1, 0), part(0, 1, name="b"), part(0, 0, update=2, name="u")]
    assert [stage.name for stage in CostTable(1, tuple(parts)).cut(2)] == ["", "u"]


def test_more_stages_than_parts_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"fewer parts than stages \(parts: 2, stages: 3\)"):
        table(1, 2).cut(3)


@pytest.mark.parametrize("cuts", [["p1"], ["p1", "p1"], ["p2", "p1"], ["p0", "p1"], ["p1", "p2", "p3"]])
def test_cuts_that_make_no_stages_are_refused(cuts: list[str]) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"3 stages need 2 cuts in the order of the table (cuts: {cuts})")):
        table(1, 2, 3, 4).cut(3, cuts)


def test_a_cut_of_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no part of that name \(cut: 'conv'\); there are: p0, p1"):
        table(1, 2).cut(2, ["conv"])


def test_a_table_for_another_batch_grows_by_its_samples_but_for_what_is_fixed() -> None:
    whole = Cost(
        forward=5.0,
        backward=9.0,
        recompute=3.0,
        update=0.5,
        fixed=1.0,
        mix=0.25,
        input=10,
        output=21,
        targets=6,
        parameters=30,
        graph=40,
        name="fc",
    )
    made = CostTable(8, (whole,), 0.5).of_batch(4)
    less = {"forward": 3.0, "backward": 5.0, "recompute": 2.0, "input": 5, "output": 10, "targets": 3, "graph": 20}
    assert made == CostTable(4, (replace(whole, **less),), 0.5)
    more = {"forward": 13.0, "backward": 25.0, "recompute": 7.0, "input": 30, "output": 63, "targets": 18, "graph": 120}
    assert CostTable(8, (whole,)).of_batch(24).parts == (replace(whole, **more),)


def test_a_table_for_the_same_batch_is_the_same_and_what_is_less_than_fixed_stays() -> None:
    made = CostTable(8, (part(0.5, 2.0, fixed=1.0),))
    assert made.of_batch(8) is made
    assert made.of_batch(16).parts == (part(0.5, 3.0, fixed=1.0),)
    assert made.of_batch(2).parts[0].recompute is None


def test_a_written_table_reads_back_equal(tmp_path: Path) -> None:
    parts = (
        Cost(forward=0.1, backward=1e-7, recompute=0.3, update=1 / 3, fixed=0.01, mix=2.5, name="input"),
        Cost(forward=0.0, backward=2.0, input=3, output=5, parameters=1 << 40, graph=7, name="1"),
        Cost(forward=1, backward=2, name="yes: [no]", tied={"embed.weight": 48, "scale": 4}),
    )
    made = CostTable(32, parts, 0.45)
    made.write(tmp_path / "costs.yaml")
    assert CostTable.read(tmp_path / "costs.yaml") == made
    assert read_yaml(tmp_path / "costs.yaml") == made.plain()
    assert CostTable.parse(made.plain()) == made


def write(folder: Path, text: str) -> Path:
    path = folder / "costs.yaml"
    path.write_text(text)
    return path


def test_what_a_table_leaves_out_is_nothing_and_parts_are_named_by_their_place(tmp_path: Path) -> None:
    text = "batch_size: 4\nparts: [{forward: 1, backward: 2}, {forward: 3, backward: 4, name: fc}]"
    found = CostTable.read(write(tmp_path, text))
    assert found == CostTable(4, (part(1, 2, name="0"), part(3, 4, name="fc")), 0.0)


BAD = {
    "nothing": ("", "has the entries batch_size, handling and parts, and no others"),
    "list": ("[1, 2]", "has the entries batch_size, handling and parts, and no others"),
    "unknown": ("batch_size: 1\nbatchsize: 1\nparts: []", "and no others"),
    "no-size": ("parts: [{forward: 1, backward: 1}]", "batch_size is a whole number (batch_size: None)"),
    "size-word": ("batch_size: many\nparts: []", "batch_size is a whole number (batch_size: 'many')"),
    "size-broken": ("batch_size: 1.5\nparts: []", "batch_size is a whole number (batch_size: 1.5)"),
    "size-zero": ("batch_size: 0\nparts: [{forward: 1, backward: 1}]", "at least one sample (batch_size: 0)"),
    "handling-word": ("batch_size: 1\nhandling: low\nparts: []", "milliseconds a MB (handling: 'low')"),
    "handling-none": ("batch_size: 1\nhandling: null\nparts: []", "milliseconds a MB (handling: None)"),
    "handling-nan": ("batch_size: 1\nhandling: .nan\nparts: [{forward: 1, backward: 1}]", "a MB (handling: nan)"),
    "handling-negative": ("batch_size: 1\nhandling: -1\nparts: [{forward: 1, backward: 1}]", "a MB (handling: -1)"),
    "no-parts": ("batch_size: 1", "parts is a list of entries with at least forward and backward"),
    "empty-parts": ("batch_size: 1\nparts: []", "at least one part (parts: none)"),
    "parts-mapping": ("batch_size: 1\nparts: {forward: 1}", "parts is a list of entries"),
    "parts-numbers": ("batch_size: 1\nparts: [1, 2]", "parts is a list of entries"),
    "empty-part": ("batch_size: 1\nparts: [{}]", "(part: 0, missing: backward, forward)"),
    "no-backward": ("batch_size: 1\nparts: [{forward: 1, backward: 1}, {forward: 1}]", "(part: 1, missing: backward)"),
    "part-unknown": ("batch_size: 1\nparts: [{forward: 1, back: 1, 7: 1}]", "(part: 0, entries: 7, back); there are:"),
    "nan": ("batch_size: 1\nparts: [{forward: .nan, backward: 1}]", "(forward: nan, part: '0')"),
    "infinite": ("batch_size: 1\nparts: [{forward: 1, backward: .inf}]", "(backward: inf, part: '0')"),
    "negative": ("batch_size: 1\nparts: [{forward: 1, backward: -2, name: fc}]", "(backward: -2, part: 'fc')"),
    "boolean": ("batch_size: 1\nparts: [{forward: true, backward: 1}]", "(forward: True, part: '0')"),
    "word": ("batch_size: 1\nparts: [{forward: 1, backward: '2'}]", "(backward: '2', part: '0')"),
    "tied-list": (
        "batch_size: 1\nparts: [{forward: 1, backward: 1, tied: [w]}]",
        "bytes by name (tied: ['w'], part: '0')",
    ),
    "tied-word": ("batch_size: 1\nparts: [{forward: 1, backward: 1, tied: {w: x}}]", "(tied w: 'x', part: '0')"),
    "not-yaml": ("batch_size: [1", "cannot be read"),
    "key": ("{[1]: 2}", "cannot be read"),
    "object": ("!!python/object/apply:os.getcwd []", "cannot be read"),
    "control": ("\x00", "cannot be read"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_with_its_name_and_what_is_wrong(tmp_path: Path, case: str) -> None:
    text, said = BAD[case]
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        CostTable.read(path)
    assert said in str(refused.value)
    assert f"(costs: {path})" in str(refused.value)


def test_a_file_that_is_missing_or_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xfa")
    for name in ("missing", "binary", "."):
        with pytest.raises(ConfigError, match=re.escape(f"cannot be read (costs: {tmp_path / name})")):
            CostTable.read(tmp_path / name)


def test_a_file_with_an_impossible_date_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        CostTable.read(write(tmp_path, "batch_size: 2020-13-45"))


@pytest.mark.parametrize("entry", ["batch_size: true", "batch_size: 1\nhandling: true"])
def test_booleans_are_no_numbers(tmp_path: Path, entry: str) -> None:
    with pytest.raises(ConfigError):
        CostTable.read(write(tmp_path, f"{entry}\nparts: [{{forward: 1, backward: 1}}]"))


def test_names_written_as_numbers_are_names(tmp_path: Path) -> None:
    text = "batch_size: 1\nparts: [{forward: 1, backward: 1, name: 0}, {forward: 1, backward: 1, name: 1}]"
    stages = CostTable.read(write(tmp_path, text)).cut(2, ["1"])
    assert [stage.name for stage in stages] == ["0", "1"]
