import json
import re
import sys
from pathlib import Path

import pytest

from stalegrid.config import Settings
from stalegrid.errors import ConfigError
from stalegrid.observe.timeline import Span, Timeline
from stalegrid.observe.trace import write_trace
from stalegrid.programs.actions import Edge, Kind
from stalegrid.programs.grid import OBSERVER, Unit, learner, server
from stalegrid.report.figures import MOST_POINTS, ON_PAGE, Curve, bars, curves, histogram
from stalegrid.report.gantt import MOST_BARS, gantt, steady
from stalegrid.report.report import write_report
from tests.cases import make_task, plan_of
from tests.report.cases import (
    CONFIG,
    METRICS,
    SERVED,
    TAKEN,
    A,
    B,
    Record,
    evaluated,
    folder_of,
    page_of,
    reported,
    span,
)


def test_a_finished_run(tmp_path: Path) -> None:
    page = page_of(folder_of(tmp_path))
    assert page.facts == {
        "method": "pham-ahn",
        "groups x stages": "1 x 2",
        "test accuracy": "87.50%",
        "test loss": "0.75",
        "training loss": "1.5",
        "updates": "10",
        "time": "3 min 21 s",
        "samples/s": "1,234",
    }
    assert page.of("h1") == ["pham-ahn on digits"]
    assert page.of("p")[0] == "1 x 2 (groups x stages), mlp. 2 of 2 epochs."
    assert page.of("h2") == ["Learning", "Staleness", "Gap", "Configuration"]
    assert page.of("figcaption") == [
        "Loss over epochs",
        "Accuracy over epochs",
        "stage 0: mean 1.25",
        "stage 1: mean 0",
        "Gap over epochs",
    ]
    assert page.tags.count("svg") == 5


def test_a_finished_run_of_learners(tmp_path: Path) -> None:
    page = page_of(folder_of(tmp_path, SERVED, TAKEN))
    assert page.of("h1") == ["softsync on digits"]
    assert page.of("p")[0] == "3 learners, 2 servers, n = 1, mlp. 2 of 2 epochs."
    facts = {"method": "softsync", "learners": "3", "servers": "2", "n": "1", "test accuracy": "87.50%"}
    assert facts.items() <= page.facts.items()
    assert not {"groups x stages", "lost"} & page.facts.keys()
    assert page.of("h2") == ["Learning", "Staleness", "Configuration"]
    assert any("staleness tau = i - j" in note for note in page.of("p"))
    assert page.of("figcaption")[2:] == [
        "all learners: mean 1.1, maximum 3, 10% above 2n = 2",
        "learner 0: mean 0.5",
        "learner 2: mean 2.5",
        "learner 10: mean 1",
    ]
    whole = "Staleness of all learners: mean 1.1, maximum 3, 10% above 2n = 2"
    assert histogram(whole, [2, 6, 1, 1], ("2n", 2), "staleness", "gradients") in page.source
    for picture in (
        bars("Staleness of learner 0: mean 0.5", [2, 2], 3),
        bars("Staleness of learner 2: mean 2.5", [0, 0, 1, 1], 3),
        bars("Staleness of learner 10: mean 1", [0, 4], 3),
    ):
        assert picture in page.source


def test_what_exchanges_measure_is_drawn_by_stage(tmp_path: Path) -> None:
    def told(update: int, *numbers: float | None) -> Record:
        units = ("(0,0)", "(1,0)", "(0,1)", "(1,1)")
        return reported(
            update, 1.0 * update, 1.0, 2, told={u: {"rho_1": n} for u, n in zip(units, numbers, strict=True)}
        )

    metrics = [told(1, None, None, None, None), told(2, 0.5, 0.25, None, None), told(3, 1.0, 1.0, -1.0, None)]
    page = page_of(folder_of(tmp_path, metrics=metrics))
    assert "Exchange" in page.of("h2")
    lines = [Curve("stage 0", [(2.0, 0.375), (3.0, 1.0)]), Curve("stage 1", [(3.0, -1.0)])]
    assert curves("rho 1 over epochs", lines, "epochs", "rho 1") in page.source


@pytest.mark.parametrize(("method", "splits"), [("hardsync", 1), ("asgd", 3)])
def test_where_n_follows_from_the_method(tmp_path: Path, method: str, splits: int) -> None:
    asked = Settings.of({"method": method, "learners": 3, "batch_size": 4, "updates": 2})
    settled = plan_of(make_task(), asked).settled(asked).plain()
    assert "number" not in settled["servers"]
    page = page_of(folder_of(tmp_path, SERVED | settled, TAKEN))
    assert page.of("p")[0].startswith(f"3 learners, 1 server, n = {splits}, ")
    assert page.facts["n"] == str(splits)
    assert page.of("figcaption")[2].endswith(f" above 2n = {2 * splits}")


def test_learners_that_have_reported_nothing(tmp_path: Path) -> None:
    page = page_of(folder_of(tmp_path, SERVED, []))
    assert page.of("h2") == ["Configuration"]
    assert page.of("p")[0] == "3 learners, 2 servers, n = 1, mlp. Nothing has been reported yet."
    assert set(page.facts) == {"method", "learners", "servers", "n"}


def test_it_needs_nothing_but_itself(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    write_trace(folder / "trace.json", Timeline([span(A, "F0", 0, 10)]))
    page = page_of(folder)
    assert not {"script", "link", "img", "iframe", "object", "image"} & set(page.tags)
    assert not re.search(r"https?:|//[a-z]|@import|src=", page.source)
    assert page.tags.count("style") == 1
    links = [value for _, name, value in page.attributes if "href" in name]
    assert all(value.startswith("#") for value in links)
    assert {match[0] for match in re.findall(r"url\((.)", page.source)} <= {"#"}
    assert "default-src 'none'" in page.source


def test_names_are_unique_and_all_that_are_used_exist(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    write_trace(folder / "trace.json", Timeline([span(A, "F0", 0, 10), span(A, "B0", 10, 30)]))
    page = page_of(folder)
    names = [value for _, name, value in page.attributes if name == "id"]
    used = re.findall(r'(?:url\(|href=")#([^)"]+)', page.source)
    assert names
    assert len(set(names)) == len(names)
    assert set(used) == set(names)


def test_the_configuration_is_escaped(tmp_path: Path) -> None:
    named = {**CONFIG["method"], "name": "<script>alert(1)</script>"}
    page = page_of(folder_of(tmp_path, CONFIG | {"method": named}))
    cells = page.of("td")
    settings = dict(zip(cells[::2], cells[1::2], strict=True))
    assert settings["method.name"] == "<script>alert(1)</script>"
    assert settings["method.staleness"] == "[2, 0]"
    assert settings["grid.cuts"] == json.dumps(CONFIG["grid"]["cuts"])
    assert page.of("title") == ["<script>alert(1)</script> on digits: report"]
    assert not re.search("<b>|<script", page.source)


def test_several_groups_have_a_consensus(tmp_path: Path) -> None:
    metrics = [reported(5, 1.0, 2.0, groups=2), evaluated(5, 1.0, 0.5)]
    page = page_of(folder_of(tmp_path, CONFIG | {"grid": {"groups": 2, "stages": 2}}, metrics))
    assert "Consensus" in page.of("h2")
    assert "Consensus" not in page_of(folder_of(tmp_path, CONFIG, metrics)).of("h2")


def test_virtual_time_has_curves_of_its_own(tmp_path: Path) -> None:
    metrics = [reported(5, 1.0, 2.0, virtual_seconds=5.0), evaluated(5, 1.0, 0.5, virtual_seconds=7400.0)]
    page = page_of(folder_of(tmp_path, metrics=metrics))
    assert page.facts["virtual time"] == "2 h 3 min"
    captions = page.of("figcaption")
    assert {"Loss over virtual seconds", "Accuracy over virtual seconds", "Loss over epochs"} <= set(captions)


def test_what_was_not_measured_is_left_out(tmp_path: Path) -> None:
    metrics = [reported(5, 1.0, 2.0, train_accuracy=None)]
    for seen_by_unit in metrics[0]["staleness"].values():
        seen_by_unit["gap"] = None
    page = page_of(folder_of(tmp_path, {k: v for k, v in CONFIG.items() if k not in ("data", "model")}, metrics))
    assert page.of("h1") == ["pham-ahn"]
    assert page.of("h2") == ["Learning", "Staleness", "Configuration"]
    assert page.of("figcaption")[0:2] == ["Loss over epochs", "stage 0: mean 1.25"]
    assert "test accuracy" not in page.facts


def test_a_run_that_goes_on_is_told_so_far(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, metrics=METRICS[:3])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(METRICS[3])[:-20])
    page = page_of(folder)
    assert page.facts["test accuracy"] == "50.00%"
    assert page.facts["updates"] == "10"
    half = page_of(folder_of(tmp_path, metrics=METRICS[:2]))
    assert half.of("p")[0].endswith("1 of 2 epochs.")
    counted = page_of(folder_of(tmp_path, CONFIG | {"training": {"updates": 1000}}, METRICS))
    assert counted.of("p")[0].endswith("10 of 1,000 updates.")


def test_a_run_that_has_reported_nothing(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "metrics.jsonl").unlink()
    page = page_of(folder)
    assert page.of("h2") == ["Configuration"]
    assert page.of("p")[0].endswith("Nothing has been reported yet.")
    assert set(page.facts) == {"method", "groups x stages"}


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    path = folder / "metrics.jsonl"
    path.write_text("{\n" + path.read_text())
    with pytest.raises(ConfigError, match=r"is damaged \(file: .*metrics\.jsonl, line 1\)"):
        write_report(folder)


@pytest.mark.parametrize("content", [None, "", "- a list", "{", "a: b: c", b"\xff\xfe\x00"])
def test_a_folder_of_no_run_is_refused(tmp_path: Path, content: str | bytes | None) -> None:
    path = tmp_path / "config.yaml"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=rf"not the folder of a run \(folder: {re.escape(str(tmp_path))}"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_foreign_trace_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "trace.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"no trace that can be read"):
        write_report(folder)


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'stalegrid\[plot\]'"):
        write_report(folder_of(tmp_path))


def test_a_trace_is_drawn_and_summed_up(tmp_path: Path) -> None:
    spans = [span(A, "F0", 0, 20), span(A, "B0", 60, 100), span(B, "F0", 30, 90), span(OBSERVER, "E0", 0, 900)]
    edge = Edge("gradient", B, A)
    timeline = Timeline(spans, {(edge, 0): 50}, {(edge, 0): 60}, virtual=True)
    folder = folder_of(tmp_path)
    write_trace(folder / "trace.json", timeline)
    page = page_of(folder)
    assert "Timeline" in page.of("h2")
    assert page.of("td")[:8] == ["(0,0)", "60.0%", "30.0%", "10.0%", "(0,1)", "60.0%", "40.0%", "0.0%"]
    note = next(p for p in page.of("p") if p.startswith("What every unit"))
    assert "in virtual time" in note
    assert "first" not in note
    classes = [value for tag, name, value in page.attributes if (tag, name) == ("div", "class")]
    assert classes[-3:] == ["wide", "narrow", "scroll"]
    assert "F0" in page.of("text")
    timeline.virtual = False
    write_trace(folder / "trace.json", timeline)
    assert "in real time" in page_of(folder).source


def test_a_trace_of_learners_is_drawn_and_summed_up_servers_first(tmp_path: Path) -> None:
    spans = [span(OBSERVER, "E0", 0, 90), span(learner(10), "F0", 0, 50), span(learner(2), "B0", 0, 100)]
    spans += [span(server(1), "T0", 0, 25), span(server(0), "A0", 0, 100)]
    folder = folder_of(tmp_path, SERVED, TAKEN)
    write_trace(folder / "trace.json", Timeline(spans, virtual=True))
    page = page_of(folder)
    names = ["server 0", "server 1", "learner 2", "learner 10"]
    cells = page.of("td")
    assert cells[:16:4] == names
    assert cells[1:16:4] == ["100.0%", "25.0%", "100.0%", "50.0%"]
    assert [text for text in page.of("text") if text in names] == names * 2
    assert next(p for p in page.of("p") if p.startswith("What every server and learner did"))


def test_of_a_large_grid_the_first_units_are_drawn(tmp_path: Path) -> None:
    units = [Unit(s, k) for s in range(3) for k in range(8)]
    folder = folder_of(tmp_path)
    write_trace(folder / "trace.json", Timeline([span(unit, "F0", 0, 10) for unit in units], virtual=True))
    page = page_of(folder)
    assert "The first 16 of 24 units." in page.source
    assert page.of("td")[: 24 * 4 : 4] == [str(unit) for unit in units]
    rows = [text for text in page.of("text") if text.startswith("(")]
    assert rows == [str(unit) for unit in units[:16]] * 2


@pytest.mark.parametrize("spans", [[], [span(OBSERVER, "E0", 0, 9)], [span(A, "F0", 0, 0)]])
def test_a_trace_in_which_nothing_took_time_is_left_out(tmp_path: Path, spans: list[Span]) -> None:
    folder = folder_of(tmp_path)
    write_trace(folder / "trace.json", Timeline(spans, virtual=True))
    assert "Timeline" not in page_of(folder).of("h2")


def rounds(unit: Unit, count: int, micro: int = 1) -> list[Span]:
    """A round takes 10 a batch and 5 for the update."""
    found, time = [], 0
    for n in range(count):
        for b in range(n * micro, (n + 1) * micro):
            found.append(span(unit, f"B{b}", time, time + 10))
            time += 10
        found.append(span(unit, f"U{n}", time, time + 5))
        time += 5
    return found


def test_the_window_lies_in_the_middle_of_the_run() -> None:
    nothing = span(A, "L5", 100, 100)
    window = steady(Timeline([*rounds(A, 11), nothing, *rounds(B, 11), *rounds(OBSERVER, 30)]), rounds=3)
    assert (window.start, window.end) == (5 * 15, 8 * 15)  # ends of updates 4 and 7
    assert window.units == [A, B]
    assert [s.index for s in window.spans if s.unit == A] == [5, 5, 6, 6, 7, 7]


def test_a_short_run_is_shown_whole() -> None:
    window = steady(Timeline(rounds(A, 3)), rounds=3)
    assert (window.start, window.end, len(window.spans)) == (0, 45, 6)
    window = steady(Timeline(rounds(A, 4)), rounds=3)
    assert (window.start, window.end, len(window.spans)) == (15, 60, 6)


def test_actions_at_the_edge_of_the_window_are_in_it() -> None:
    window = steady(Timeline([*rounds(A, 4), span(B, "F0", 0, 31), span(B, "F1", 31, 44), span(B, "F2", 45, 60)]), 1)
    assert (window.start, window.end) == (30, 45)
    assert [s.index for s in window.spans if s.unit == B] == [0, 1]


def test_rounds_are_those_of_servers_where_learners_make_no_updates() -> None:
    busy = [span(learner(0), f"F{b}", 9 * b, 9 * b + 9) for b in range(30)]
    units = [OBSERVER, server(1), server(0)]
    window = steady(Timeline([*busy, *(s for unit in units for s in rounds(unit, 11))]), rounds=3)
    assert window.units == [server(0), server(1), learner(0)]
    assert (window.start, window.end) == (5 * 15, 8 * 15)
    alone = steady(Timeline([*busy, *rounds(learner(1), 11)]), rounds=3)
    assert alone.units == [learner(0), learner(1)]
    assert (alone.start, alone.end) == (5 * 15, 8 * 15)


def test_a_run_in_which_nobody_makes_an_update_is_shown_whole() -> None:
    window = steady(Timeline([span(learner(0), "F0", 3, 9), span(learner(1), "B0", 9, 40)]))
    assert (window.start, window.end, len(window.spans)) == (0, 40, 2)


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_action_has_a_bar_and_a_name(kind: Kind) -> None:
    timeline = Timeline([Span(A, kind, 7, 0, 10)])
    assert f">{kind.value}7<" in gantt("picture", timeline, steady(timeline))


def test_fewer_rounds_are_shown_where_there_are_many_actions() -> None:
    micro = MOST_BARS // 2 - 1
    window = steady(Timeline(rounds(A, 9, micro)))
    assert len(window.spans) == 2 * (micro + 1)
    huge = steady(Timeline(rounds(A, 5, MOST_BARS)))
    assert len(huge.spans) == MOST_BARS + 1


def test_messages_between_drawn_stages_are_lines() -> None:
    def lines(edge: Edge, width: int = 1000) -> int:
        spans = [*rounds(A, 3), *rounds(B, 3), *rounds(Unit(1, 1), 3)]
        times = [(31, 37), (29, 33), (44, 46)]  # of which the window from 30 to 45 has one whole
        timeline = Timeline(spans, {(edge, i): left for i, (left, _) in enumerate(times)})
        timeline.departures[edge, 3] = 32
        timeline.arrivals = {(edge, i): arrived for i, (_, arrived) in enumerate(times)}
        return gantt("picture", timeline, steady(timeline, 1), width).count("stroke-opacity: 0.5")

    assert lines(Edge("activation", A, Unit(0, 2))) == 0
    assert lines(Edge("activation", A, B)) == 2  # the message and its entry in the legend
    assert lines(Edge("gradient", B, A)) == 2
    assert lines(Edge("parameters", B, Unit(1, 1))) == 0
    assert lines(Edge("activation", A, B), width=360) == 0


def test_pictures_take_the_colours_of_the_page() -> None:
    for picture in (curves("t", [Curve("one", [(0, 1), (1, 2)])], "x", "y"), bars("t", [1, 2], 3)):
        assert "currentColor" in picture
        assert "var(--blue)" in picture
        assert not any(colour in picture.lower() for colour in ON_PAGE)
        assert set(re.findall(r"#[0-9a-f]{6}\b", picture)) == set()


def test_pictures_scale_and_have_a_name() -> None:
    picture = curves('<&"title">', [Curve("one", [(0, 1)])], "x", "y")
    head = picture[: picture.index(">") + 1]
    assert head == '<svg role="img" aria-label="&lt;&amp;&quot;title&quot;&gt;" viewBox="0 0 360 210">'
    assert picture.startswith("<svg")
    assert picture.endswith("</svg>")
    assert "<!--" not in picture


def test_the_same_numbers_are_drawn_alike() -> None:
    assert bars("t", [1, 2], 3) == bars("t", [1, 2], 3)


def test_long_curves_are_thinned_to_means(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [(float(i), float(i % 3)) for i in range(3 * MOST_POINTS)]
    means = [(3.0 * i + 1, 1.0) for i in range(MOST_POINTS)]
    assert curves("t", [Curve("one", points)], "x", "y") == curves("t", [Curve("one", means)], "x", "y")


def test_shares_are_percentages() -> None:
    lines = [Curve("one", [(0, 0.5), (1, 1.0)])]
    assert ">100%<" in curves("t", lines, "x", "y", percent=True)
    assert "%<" not in curves("t", lines, "x", "y")


def labels(picture: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", picture)


def test_orders_of_magnitude_are_labelled_as_numbers() -> None:
    far = labels(curves("t", [Curve("one", [(0, 1e-3), (1, 0.0), (2, 2.0)])], "x", "y", log=True))
    assert {"0.001", "0.01", "0.1", "1"} <= set(far)
    near = labels(curves("t", [Curve("one", [(0, 0.03), (1, 0.3)])], "x", "y", log=True))
    assert {"0.05", "0.1", "0.2"} <= set(near)
    assert not any("$" in label for label in (*far, *near))


def test_what_has_no_order_of_magnitude_is_drawn_all_the_same() -> None:
    assert curves("t", [Curve("one", [(0, 0.0)])], "x", "y", log=True) == curves(
        "t", [Curve("one", [(0, 0.0)])], "x", "y"
    )


@pytest.mark.parametrize(
    ("names", "height"),
    [
        (["rate"], 210),
        (["training", "test"], 226),
        ([f"stage {k}" for k in range(4)], 226),
        (["rate", "limit of all stages", *(f"limit of stage {k}" for k in range(3))], 258),
        (["a name that takes up most of the width", "another one that takes up most of it"], 242),
        (["one", "", "two", ""], 226),
    ],
)
def test_a_legend_has_as_many_rows_as_it_needs_room(names: list[str], height: int) -> None:
    picture = curves("t", [Curve(name, [(0, 1)]) for name in names], "x", "y")
    assert f'viewBox="0 0 360 {height}"' in picture
    places = {name: float(x) for x, name in re.findall(r'<text[^>]* x="([-0-9.]+)"[^>]*>([^<]*)</text>', picture)}
    assert all(0 < places[name] < 360 for name in names if name and len(names) > 1)


def test_bars_are_shares() -> None:
    assert bars("t", [1, 3], 3) == bars("t", [10, 30], 3)
    assert bars("t", [1, 3], 3) != bars("t", [3, 1], 3)


def test_where_nothing_is_stale_the_one_bar_is_labelled_0() -> None:
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", bars("t", [5], 0))
    assert texts == ["0", "0%", "50%", "100%"]


def test_what_is_above_a_limit_has_another_colour() -> None:
    def coloured(limit: int) -> list[str]:
        picture = histogram("t", [1, 3, 2, 2], ("2n", limit), "x", "y")
        assert ">2n<" in picture
        return re.findall(r'"fill: var\(--(blue|red)\)', picture)

    assert coloured(1) == ["blue", "blue", "red", "red"]
    assert coloured(3) == coloured(9) == ["blue"] * 4


def test_text_is_text_and_formulas_stay_as_they_are() -> None:
    picture = curves("t", [Curve("$x_1$ <&>", [(0, 1)]), Curve("two", [(0, 1)])], "epochs", "loss")
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", picture)
    assert {"$x_1$ &lt;&amp;&gt;", "two", "epochs", "loss"} <= set(texts)


def test_the_numbers_of_a_run_are_drawn(tmp_path: Path) -> None:
    metrics = [
        reported(5, 1.0, 2.0, groups=2, virtual_seconds=3.0),
        evaluated(5, 1.0, 0.5, virtual_seconds=4.0),
        reported(10, 2.0, 1.5, groups=2, virtual_seconds=6.0),
    ]
    source = page_of(folder_of(tmp_path, CONFIG | {"grid": {"groups": 2, "stages": 2}}, metrics)).source
    for picture in (
        curves(
            "Loss over epochs",
            [Curve("training", [(1, 2.0), (2, 1.5)]), Curve("test", [(1, 0.75)])],
            "epochs",
            "loss",
        ),
        curves(
            "Accuracy over virtual seconds",
            [Curve("training", [(3, 0.5), (6, 0.5)]), Curve("test", [(4, 0.5)])],
            "virtual seconds",
            "accuracy",
            percent=True,
        ),
        curves("Gap over epochs", [Curve("stage 0", [(1, 1.0), (2, 1.0)])], "epochs", "gap"),
        curves("Consensus distance over epochs", [Curve("x", [(1, 0.25)])], "epochs", "consensus distance"),
        bars("Staleness of stage 0: mean 1.25", [4, 4, 8], 2),
        bars("Staleness of stage 1: mean 0", [16, 0, 0], 2),
    ):
        assert picture in source
