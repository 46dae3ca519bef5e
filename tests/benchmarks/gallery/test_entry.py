import pytest

from benchmarks.gallery.entries import ENTRIES
from benchmarks.gallery.entry import RATE, Claim, Entry, Record, difference, itself, quotient
from stalegrid.cli import make_parser
from stalegrid.commands import expanded
from stalegrid.commands.options import config_of

NAMED = pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))


def seeds(*errors: tuple[float, float]) -> list[dict[str, Record]]:
    return [{"a": {"error": one}, "b": {"error": other}} for one, other in errors]


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ([], "not run"),
        ([(5.0, 5.0)], "one seed: no verdict"),
        ([(5.0, 4.9), (6.0, 5.9)], "agrees"),  # 0.1 more with both seeds, however far seeds are apart
        ([(5.0, 4.7), (5.0, 4.9)], "not decided by these seeds"),  # 0.2 in the mean, with an error of 0.1
        ([(5.0, 5.2), (5.0, 5.3)], "agrees"),  # 0.25 less, with an error of 0.05
        ([(5.0, 4.0), (5.0, 4.9)], "not decided by these seeds"),  # 0.55 with an error of 0.45
        ([(5.0, 4.0), (5.0, 4.1)], "missed"),  # 0.95 with an error of 0.05
    ],
)
def test_a_verdict_goes_by_differences_seed_by_seed(found: list[tuple[float, float]], verdict: str) -> None:
    claim = Claim("at most 0.2 more", ("a", "b"), difference("error"), at_most=0.2)
    assert claim.verdict(claim.estimate(seeds(*found))) == verdict


def test_a_bound_from_below() -> None:
    claim = Claim("at least twice", ("a", "b"), quotient("error"), at_least=2.0)
    assert claim.verdict(claim.estimate(seeds((5.0, 2.0), (5.2, 2.0)))) == "agrees"
    assert claim.verdict(claim.estimate(seeds((3.0, 2.0), (3.1, 2.0)))) == "missed"


def test_seeds_with_which_not_all_was_trained_do_not_count() -> None:
    one, two = seeds((4.0, 3.0), (4.0, 2.0))
    del two["b"]
    claim = Claim("", ("a", "b"), difference("error"), at_most=0.0)
    found = claim.estimate([one, two])
    assert found is not None
    assert (found.mean, found.error, found.seeds) == (1.0, None, 1)
    assert Claim("", ("a",), itself("loss")).estimate([one]) is None  # not measured at that scale


@NAMED
def test_every_claim_is_about_ways_that_some_scale_trains(entry: Entry) -> None:
    trained = [{way.name for way in scale.ways} for scale in entry.scales.values()]
    assert all(any(names.issuperset(claim.ways) for names in trained) for claim in entry.claims)
    assert all((claim.at_most is None) != (claim.at_least is None) for claim in entry.claims)


@NAMED
def test_the_command_line_takes_every_trial(entry: Entry) -> None:
    parser, known = make_parser()
    for scale in entry.scales:
        trials = entry.trials(scale)
        assert len({trial.name for trial in trials}) == len(trials)
        for trial in trials:
            config = config_of(parser.parse_args(["train", *expanded(trial.options, known["train"])]))
            assert config.training.seed == trial.seed


@NAMED
def test_what_is_all_in_virtual_time_has_no_larger_scale(entry: Entry) -> None:
    assert ("full" not in entry.scales) is (entry.figures == (RATE,))


@NAMED
def test_the_first_seed_of_all_ways_comes_first(entry: Entry) -> None:
    scale = entry.scales["cpu"]
    trials = entry.trials("cpu")
    assert scale.seeds == 3
    assert [trial.seed for trial in trials] == [seed for seed in range(3) for _ in scale.ways]
