"""Which codec a text names.

Does not know: edges, messages.
"""

from dataclasses import dataclass

from stalegrid.codecs.bf16 import Bf16
from stalegrid.codecs.codec import Codec
from stalegrid.codecs.int8 import Int8
from stalegrid.codecs.settings import CodecSettings
from stalegrid.codecs.topk import TopK
from stalegrid.errors import ConfigError
from stalegrid.written import unknown

NAMES = ("none", "bf16", "int8", "topk=FRACTION")


@dataclass(frozen=True)
class Chosen:
    """What was chosen for a kind of edge.

    Args:
        codec: of its messages.
        feedback: whether what was lost of a message is added to the next one.
    """

    codec: Codec
    feedback: bool = False

    def __str__(self) -> str:
        return f"{self.codec}{',feedback' if self.feedback else ''}"


def chosen(settings: CodecSettings) -> dict[str, Chosen]:
    """Return the codecs of those kinds of edges that have one.

    Raises:
        ConfigError: there is no such codec, or it takes another number.
    """
    found = {kind: find_codec(text, f"{settings.NAME}.{kind}") for kind, text in vars(settings).items()}
    return {kind: codec for kind, codec in found.items() if codec is not None}


def find_codec(text: str, what: str) -> Chosen | None:
    """Return what a text chooses; None for messages as they are.

    Args:
        text: such as ``topk=0.01,feedback``.
        what: was asked for it, such as ``codec.gradient``, for the error.

    Raises:
        ConfigError: there is no such codec, or it takes another number.
    """
    named, *more = (part.strip() for part in text.split(","))
    if more not in ([], ["feedback"]):
        raise ConfigError(
            f"a codec is a name, and may have feedback ({what}: {text!r}); write it as in int8,feedback or "
            "topk=0.01,feedback"
        )
    name, equals, number = named.partition("=")
    if name == TopK.name:
        return Chosen(TopK(_fraction(number, f"{what}: {text!r}")), bool(more))
    if name not in NAMES:
        raise ConfigError(unknown(what, name, NAMES))
    if equals:
        raise ConfigError(f"{name} takes no number ({what}: {text!r}); leave it out")
    if name == "none":
        if more:
            raise ConfigError(f"nothing is lost without a codec ({what}: {text!r}); leave feedback out")
        return None
    return Chosen(Bf16() if name == Bf16.name else Int8(), bool(more))


def _fraction(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise ConfigError(f"topk takes the fraction that travels, above 0 and at most 1 ({what}), as in topk=0.01")
    return value
