"""Files are written whole or not at all, never through a link, and read only as far as they make sense."""

import json
import math
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stalegrid.errors import DataError, OutputError
from stalegrid.written.files import (
    open_new,
    read_bytes,
    read_text,
    replace,
    replace_all,
    settle,
    sweep,
    to_json,
    write_text,
)
from tests.disks import full_disk


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for text in ("one", "ü"):
        write_text(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_in_the_place_of_a_file_is_replaced_and_its_target_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    for name in ("a", "a.part", ".a.part"):
        (tmp_path / name).symlink_to(target)
    write_text(tmp_path / "a", "new")
    assert (target.read_text(), (tmp_path / "a").read_text()) == ("mine", "new")
    assert not (tmp_path / "a").is_symlink()


def write_all(folder: Path, text: str, names: str = "abc") -> None:
    replace_all(folder, {name: lambda path: path.write_text(text) for name in names})  # type: ignore[misc]


def test_files_are_replaced_together_and_nothing_else_is_left(tmp_path: Path) -> None:
    for text in ("one", "two"):
        write_all(tmp_path, text)
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys("abc", text)


STEPS = ("os.replace", "pathlib.Path.mkdir", "pathlib.Path.touch", "pathlib.Path.chmod", "pathlib.Path.rmdir")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_whenever_the_writer_ends_either_all_files_change_or_none(
    step: str, after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = f"stalegrid.written.files.{step}" if step.startswith("os") else step
    module, name = where.rsplit(".", 1)
    do = getattr(os if module.endswith("os") else Path, name)
    left = ends = 0

    def interrupted(*args: object, **options: object) -> None:
        nonlocal left
        left -= 1
        if left or after:
            do(*args, **options)
        if not left:
            raise KeyboardInterrupt

    for at in range(1, 10):
        folder = tmp_path / str(at)
        folder.mkdir()
        write_all(folder, "old")
        with monkeypatch.context() as patched:
            left = at
            patched.setattr(where, interrupted)
            try:
                write_all(folder, "new")
            except KeyboardInterrupt:
                ends += 1
            else:
                assert (folder / "a").read_text() == "new"
                break
        if (folder / "c").read_text() == "new":  # the last one
            assert {path.read_text() for path in folder.iterdir() if path.is_file()} == {"new"}
        settle(folder)
        texts = {path.name: path.read_text() for path in folder.iterdir()}
        assert set(texts) == set("abc")
        assert len(set(texts.values())) == 1
        write_all(folder, "newer")
        assert {path.read_text() for path in folder.iterdir()} == {"newer"}
    else:
        raise AssertionError("it never came to its end")
    assert ends


def test_files_change_in_their_order_and_not_in_that_of_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved, do = [], os.replace

    def noted(source: Path, target: Path) -> None:
        moved.append(Path(target).name)
        do(source, target)

    monkeypatch.setattr("stalegrid.written.files.os.replace", noted)
    write_all(tmp_path, "new", "".join(map(chr, range(120, 96, -1))))
    assert moved == [".next", *map(chr, range(120, 96, -1))]


def test_a_link_in_the_place_of_files_that_are_ready_is_refused_and_its_target_left_alone(tmp_path: Path) -> None:
    target, folder = tmp_path / "target", tmp_path / "run"
    target.mkdir()
    folder.mkdir()
    write_text(target / "000-a", "mine")
    (folder / ".next").symlink_to(target)
    for do in (settle, lambda path: write_all(path, "new")):
        with pytest.raises(OutputError, match=rf"a link is where .* \(link: {folder}/.next\); remove it"):
            do(folder)  # type: ignore[operator]
    assert [path.name for path in target.iterdir()] == ["000-a"]
    assert [path.name for path in folder.iterdir()] == [".next"]


def test_a_place_that_cannot_be_taken_is_named(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(OutputError, match=rf"{tmp_path}/b\): Is a directory"):
        write_all(tmp_path, "new")


def test_what_killed_writers_have_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".part-1").mkdir()
    for name in (".part-1/a", ".part-2", "part-3", "a"):
        (tmp_path / name).write_text("")
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"part-3", "a"}


def test_of_files_that_change_together_one_that_cannot_be_written_is_named_and_all_stay(tmp_path: Path) -> None:
    write_all(tmp_path, "old")

    def broken(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "no space left")

    with pytest.raises(OutputError, match=rf"{tmp_path}/b\): no space left"):
        replace_all(tmp_path, {"a": lambda path: path.write_text("new"), "b": broken})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys("abc", "old")


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_file_may_be_read_by_whom_the_mask_lets(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "text", "")
        replace(tmp_path / "tensors", lambda part: save_file({"w": torch.zeros(1)}, part))
        open_new(tmp_path / "lines").close()
    finally:
        os.umask(before)
    for name in ("text", "tensors", "lines"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~mask


def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path: Path) -> None:
    text, tensors = tmp_path / "text", tmp_path / "tensors"
    write_text(text, "before")
    replace(tensors, lambda part: save_file({"w": torch.zeros(1)}, part))
    for path, write in (
        (text, lambda part: part.write_text("after")),
        (tensors, lambda part: save_file({"w": torch.ones(1)}, part)),
    ):
        with full_disk(), pytest.raises(OutputError, match=rf"cannot be written \(file: {path}\)") as caught:
            replace(path, write)
        assert "\n" not in str(caught.value)
    assert text.read_text() == "before"
    assert load_file(tensors)["w"] == 0
    assert set(tmp_path.iterdir()) == {text, tensors}


def test_a_new_file_is_none_that_exists(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="File exists"):
        open_new(tmp_path / "a")
    assert not (tmp_path / "elsewhere").exists()


def test_json_is_strict() -> None:
    record = {"a": math.nan, "b": [math.inf, 1.5, (-math.inf,)], "c": {"d": math.nan}, "e": "NaN"}
    assert json.loads(to_json(record), parse_constant=pytest.fail) == {
        "a": None,
        "b": [None, 1.5, [None]],
        "c": {"d": None},
        "e": "NaN",
    }


def test_a_file_is_read_up_to_a_size(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1234")
    assert read_bytes(path, 4) == b"1234"
    with pytest.raises(DataError, match=rf"larger than makes sense here \(file: {path}, bytes: 4, at most: 3\)"):
        read_bytes(path, 3)
    with path.open("r+b") as file:
        file.truncate(100 << 30)  # sparse: takes no room
    with pytest.raises(DataError, match="larger"):
        read_bytes(path, 1 << 30)
    with pytest.raises(DataError, match="larger"):
        read_bytes(Path("/dev/zero"), 1 << 20)


def test_what_cannot_be_read_is_told_with_its_file(tmp_path: Path) -> None:
    latin = tmp_path / "latin"
    latin.write_bytes("ü".encode("latin-1"))
    with pytest.raises(DataError, match=rf"not text in UTF-8 \(file: {latin}\)"):
        read_text(latin, 10)
    for path in (tmp_path, tmp_path / "none", tmp_path / ("x" * 300), Path("a\0b")):
        with pytest.raises(DataError, match="cannot be read"):
            read_bytes(path, 10)
