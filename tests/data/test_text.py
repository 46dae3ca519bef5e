from pathlib import Path

import pytest
import torch

from stalegrid.data import load
from stalegrid.data.text import Text, load_text
from stalegrid.errors import ConfigError, DataError


def write(folder: Path, text: str) -> Path:
    (folder / "poem.txt").write_text(text, encoding="utf-8")
    return folder


def test_samples_are_characters_and_those_that_follow(tmp_path: Path) -> None:
    train, test = load_text(write(tmp_path, "abcdefghijä" * 5), 4)
    assert train.characters == test.characters == "abcdefghijä"
    assert train.classes == 11
    assert (len(train.codes), len(test.codes)) == (49, 6)
    assert (len(train), len(test)) == (12, 1)
    x, y = train[1]
    assert ["".join(train.characters[i] for i in z) for z in (x, y)] == ["efgh", "fghi"]
    assert x.dtype == torch.int64


def test_every_character_but_the_last_is_in_a_sample_at_most_once() -> None:
    text = Text(torch.arange(23), "x" * 23, 5)
    assert torch.cat([x for x, _ in (text[i] for i in range(len(text)))]).tolist() == list(range(20))
    assert torch.cat([y for _, y in (text[i] for i in range(len(text)))]).tolist() == list(range(1, 21))
    with pytest.raises(IndexError):
        text[4]


@pytest.mark.parametrize(("context", "error"), [(0, ConfigError), (99, DataError)])
def test_impossible_lengths_are_refused(tmp_path: Path, context: int, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"context: {context}"):
        load_text(write(tmp_path, "abcdef"), context)


def test_what_is_no_single_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder \(folder: .*nowhere\)"):
        load("text", tmp_path / "nowhere")
    with pytest.raises(DataError, match="files: none"):
        load("text", tmp_path)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match=r"cannot be read .*a\.txt"):
        load("text", tmp_path)
    write(tmp_path, "abc")
    with pytest.raises(DataError, match=r"files: a\.txt, poem\.txt"):
        load("text", tmp_path)
