"""What of a configuration was chosen."""

from pathlib import Path

import pytest

from stalegrid.report.chosen import chosen
from tests.report.cases import CONFIG, trained


def test_what_nobody_chose_is_not_listed(tmp_path: Path) -> None:
    found = chosen(trained(tmp_path / "run", "--updates", "2").config)
    assert found == {
        "method.name": "pham-ahn",
        "method.staleness": [2, 0],
        "grid.groups": 2,
        "grid.stages": 2,
        "grid.cuts": found["grid.cuts"],
        "training.updates": 2,
        "output.log_every": 5,
        "engine.kind": "simulator",
        "model.name": "mlp",
        "data.name": "digits",
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--seed", "3", "--batch-size", "16"), {"training.seed": 3, "training.batch_size": 16}),
        (("--view", "current", "--mixing.period", "2"), {"method.view": "current", "mixing.period": 2}),
        (("--topology", "complete", "--method.clip", "1"), {"mixing.topology": "complete", "method.clip": 1.0}),
        (("--mixing", "all-reduce"), {"mixing.kind": "all-reduce"}),
        (("--corrections", "stability-rate"), {"method.corrections": ["stability-rate"]}),
    ],
)
def test_what_was_chosen_is_listed_and_nothing_else(
    tmp_path: Path, arguments: tuple[str, ...], expected: dict[str, object]
) -> None:
    usual = ("--stages", "1", "--groups", "2", "--updates", "2")
    bare = chosen(trained(tmp_path / "bare", *usual).config)
    assert chosen(trained(tmp_path / "run", *usual, *arguments).config) == bare | expected


def test_learners_have_what_their_method_says(tmp_path: Path) -> None:
    config = trained(tmp_path / "run", "--method", "asgd", "--learners", "3", "--updates", "4").config
    assert {"servers.learners": 3}.items() <= chosen(config).items()
    assert not {"servers.softsync", "servers.number", "method.corrections"} & chosen(config).keys()


def test_what_a_file_names_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.py").write_text("raise SystemExit")
    named = {"method": {"name": "mine:method"}, "mixing": {"kind": "mine:mixing", "topology": "ring"}}
    for config in (CONFIG | named, CONFIG | {"mixing": named["mixing"]}):
        found = chosen(config)
        assert {"mixing.kind": "mine:mixing", "mixing.topology": "ring"}.items() <= found.items()
