import json
from pathlib import Path

import pytest

from benchmarks import hosts, rows
from benchmarks.__main__ import main
from benchmarks.measure import Row, Skipped, ratio
from stalegrid.errors import ConfigError


def quick(turns: int) -> Row:
    figures = {"a": [2.0] * turns, "b": [1.0] * turns}
    return Row(figures, [ratio(figures, "a", "b", at_least=1.5)], ["a note"])


def impossible(turns: int) -> Row:
    raise Skipped("there is no such machine")


def trained(folder: Path, turns: int) -> Row:
    raise Skipped(f"no data in {folder}")


@pytest.fixture(autouse=True)
def _rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "ROWS", {"quick": quick, "other": quick, "impossible": impossible})
    monkeypatch.setattr(rows, "TRAINED", {"trained": trained})


def test_rows_are_printed_and_written_and_others_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "results.json"
    rows.bench(["quick"], 2, out, tmp_path)
    rows.bench(["other", "impossible"], 3, out, tmp_path)
    found = json.loads(out.read_text())
    assert list(found) == ["quick", "other", "impossible"]
    assert (found["quick"]["turns"], found["other"]["turns"]) == (2, 3)
    assert found["impossible"]["skipped"] == "there is no such machine"
    said = capsys.readouterr().out
    assert "a / b" in said
    assert ">= 1.5" in said
    assert "a note" in said
    assert "impossible: skipped: there is no such machine" in said


def test_all_rows_are_measured_if_none_is_named(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    rows.bench([], 1, out, tmp_path)
    assert list(json.loads(out.read_text())) == ["quick", "other", "impossible", "trained"]


@pytest.mark.parametrize("content", ["no json", "[]", '{"a": 1}'])
def test_a_file_of_something_else_is_not_overwritten(tmp_path: Path, content: str) -> None:
    out = tmp_path / "results.json"
    out.write_text(content)
    with pytest.raises(ConfigError, match="something else than results"):
        rows.bench(["quick"], 1, out, tmp_path)
    assert out.read_text() == content


def test_what_cannot_be_measured_is_refused_before_anything_is(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    with pytest.raises(ConfigError, match=r"no such row \(rows: fast\); there are: quick, other, impossible, trained"):
        rows.bench(["quick", "fast"], 1, out, tmp_path)
    with pytest.raises(ConfigError, match=r"at least once \(turns: 0\)"):
        rows.bench(["quick"], 0, out, tmp_path)
    assert not out.exists()


def test_the_command_line_measures_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results.json"
    assert main(["quick", "--turns", "1", "--out", str(out)]) == 0
    assert main(["fast", "--out", str(out)]) == 2
    assert "no such row" in capsys.readouterr().err
    assert list(json.loads(out.read_text())) == ["quick"]


def test_a_row_on_real_data_is_told_where_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, folder = tmp_path / "results.json", tmp_path / "files"
    assert main(["trained", "--out", str(out), "--data-dir", str(folder)]) == 0
    assert f"trained: skipped: no data in {folder}" in capsys.readouterr().out.replace("\n", "")


def test_hosts_are_skipped_with_the_reason_where_they_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts.shutil, "which", lambda command: None)
    with pytest.raises(Skipped, match="iproute2"), hosts.hosts(2, 100):
        pass


def test_hosts_that_may_not_be_made_are_skipped_and_none_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    class Refused:
        returncode, stderr = 1, "Operation not permitted\n"

    def run(command: tuple[str, ...], **kept: object) -> Refused:
        asked.append(tuple(command))
        return Refused()

    monkeypatch.setattr(hosts.shutil, "which", lambda command: command)
    monkeypatch.setattr(hosts.subprocess, "run", run)
    with pytest.raises(Skipped, match="Operation not permitted"), hosts.hosts(2, 100):
        pass
    assert sum("delete" in command for command in asked) == 3
