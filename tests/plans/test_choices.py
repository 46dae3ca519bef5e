"""What plans of grids and of servers settle alike."""

from typing import Any

import pytest

from stalegrid.data.settings import TrainingSettings
from stalegrid.errors import ConfigError
from stalegrid.methods.settings import MethodSettings
from stalegrid.observe.settings import OutputSettings
from stalegrid.plans.choices import (
    EPOCHS,
    Choices,
    chosen_corrections,
    epochs_of,
    make_watch,
    refuse,
    settled,
    updates_of,
)
from stalegrid.programs.settings import GridSettings, ServerSettings
from stalegrid.stages.corrections.named import Correction


def test_a_group_without_use_must_be_left_out_and_a_usual_one_is() -> None:
    refuse(GridSettings(), "no grid here")
    refuse(ServerSettings(number=1), "no servers here")
    with pytest.raises(ConfigError, match=r"^no grid here \(grid.stages: 2\); leave grid.stages out$"):
        refuse(GridSettings(stages=2), "no grid here")


def test_of_a_group_only_what_is_named_is_refused() -> None:
    asked = MethodSettings(view="current", clip=1.0)
    refuse(asked, "no", ("staleness", "queues"))
    with pytest.raises(ConfigError, match=r"\(method.view: current\)"):
        refuse(asked, "no", ("staleness", "view"))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ("shrink=0.5",)),
        ({"corrections": []}, ()),
        ({"corrections": ["none"]}, ()),
        ({"corrections": ["gap-aware", Correction]}, ("gap-aware", Correction)),
        ({"rule": "constant"}, ()),
        ({"rule": "dc=2"}, ("dc-asgd=2",)),
        ({"clip": 0.1}, ("shrink=0.5", "clip=0.1")),
        ({"corrections": ["none"], "clip": 0.1}, ("clip=0.1",)),
        ({"corrections": [Correction, "clip=2"], "clip": 1 / 3}, (Correction, "clip=2", f"clip={1 / 3}")),
        ({"rule": "gap", "clip": 1}, ("gap-aware", "clip=1")),
    ],
)
def test_corrections_are_the_users_or_the_methods_and_clipping_comes_last(asked: dict[str, Any], expected: Any) -> None:
    assert chosen_corrections(("shrink=0.5",), MethodSettings(**asked)) == expected


def test_a_rule_beside_corrections_is_refused() -> None:
    asked = MethodSettings(rule="dc", corrections=[Correction, "gap-aware"])
    with pytest.raises(
        ConfigError, match=r"\(method.rule: dc, method.corrections: .*:Correction,gap-aware\); name one"
    ):
        chosen_corrections((), asked)


def test_training_is_for_updates_or_epochs_or_as_long_as_usual() -> None:
    assert updates_of(TrainingSettings(updates=7), 100.0) == 7
    assert updates_of(TrainingSettings(updates=7, epochs=3), 100.0) == 7
    assert updates_of(TrainingSettings(epochs=1.26), 10.0) == 13
    assert updates_of(TrainingSettings(), 10.0) == round(EPOCHS * 10)
    assert epochs_of(TrainingSettings(epochs=2)) == 2


@pytest.mark.parametrize("asked", [{"updates": 0}, {"updates": -1}, {"epochs": 0.0}, {"epochs": 0.001}])
def test_a_run_without_an_update_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"the run has no update \(epochs: .*, updates: .*\); train longer"):
        updates_of(TrainingSettings(**asked), 10.0)


def test_a_run_that_never_ends_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"would never end \(epochs: 1e\+300\); train fewer"):
        updates_of(TrainingSettings(epochs=1e300), 10.0)


def test_how_long_to_train_is_written_down_where_nobody_said() -> None:
    assert settled(Choices(), ()).training == TrainingSettings(epochs=EPOCHS)
    for asked in (TrainingSettings(updates=3), TrainingSettings(epochs=2.5)):
        assert settled(Choices(training=asked), ()).training == asked


def test_clipping_is_written_down_as_the_setting_that_it_is() -> None:
    asked = MethodSettings(corrections=["gap-aware"], clip=0.5)
    made = settled(Choices(method=asked), chosen_corrections((), asked), micro_batches=2).method
    assert (made.corrections, made.clip, made.micro_batches) == (["gap-aware"], 0.5, 2)
    alone = MethodSettings(clip=0.5)
    assert settled(Choices(method=alone), chosen_corrections((), alone)).method.corrections == ["none"]


def test_frequencies_without_a_meaning_are_refused() -> None:
    for asked, text in (
        (OutputSettings(log_every=0), "log_every: 0"),
        (OutputSettings(evaluate_every=-0.5), "evaluate_every: -0.5"),
    ):
        with pytest.raises(ConfigError, match=text):
            make_watch(None, asked, 10.0)


def test_evaluations_come_every_so_many_epochs_and_never_oftener_than_updates() -> None:
    assert make_watch(None, OutputSettings(evaluate_every=0.5), 10.0).snapshot_every == 5
    assert make_watch(None, OutputSettings(evaluate_every=0.001), 10.0).snapshot_every == 1
    assert make_watch(None, OutputSettings(evaluate_every=0), 10.0).snapshot_every is None
    assert make_watch(None, OutputSettings(log_every=3), 10.0).report_every == 3


def test_too_few_samples_for_an_update_are_told_as_that() -> None:
    with pytest.raises(ConfigError, match=r"not as many samples as the groups take in one update \(batch_size: 500\)"):
        updates_of(TrainingSettings(batch_size=500), 0)
