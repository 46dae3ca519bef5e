import pytest

from stalegrid.codecs import Chosen, CodecSettings, chosen
from stalegrid.codecs.bf16 import Bf16
from stalegrid.codecs.int8 import Int8
from stalegrid.codecs.topk import TopK
from stalegrid.errors import ConfigError


def found(text: str) -> Chosen | None:
    return chosen(CodecSettings(gradient=text)).get("gradient")


@pytest.mark.parametrize(
    ("text", "due"),
    [
        ("none", None),
        ("bf16", Chosen(Bf16())),
        ("int8,feedback", Chosen(Int8(), True)),
        ("topk=0.01", Chosen(TopK(0.01))),
        ("topk=1, feedback", Chosen(TopK(1.0), True)),
    ],
)
def test_names(text: str, due: Chosen | None) -> None:
    assert found(text) == due
    if due is not None:
        assert found(str(due)) == due


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int7", r"unknown codec.gradient.*'int7'.*did you mean int8.*none, bf16, int8, topk=FRACTION"),
        ("int8=3", r"int8 takes no number \(codec.gradient: 'int8=3'\); leave it out"),
        ("int8,feedbak", r"may have feedback \(codec.gradient: 'int8,feedbak'\); write it as in int8,feedback"),
        ("int8,feedback,feedback", "may have feedback"),
        ("topk", r"above 0 and at most 1 \(codec.gradient: 'topk'\), as in topk=0.01"),
        ("topk=0", "above 0 and at most 1"),
        ("topk=1.5", "above 0 and at most 1"),
        ("topk=nan", "above 0 and at most 1"),
        ("topk=a", "above 0 and at most 1"),
        ("none,feedback", r"nothing is lost without a codec.*leave feedback out"),
        ("", "unknown codec.gradient"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        found(text)


def test_one_setting_a_kind_of_edge() -> None:
    assert chosen(CodecSettings(activation="bf16", all_reduce="int8")) == {
        "activation": Chosen(Bf16()),
        "all_reduce": Chosen(Int8()),
    }
