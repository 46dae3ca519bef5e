"""Which codec the messages of each kind of edge have.

Does not know: what codecs do, which edges there are.
"""

from dataclasses import dataclass
from typing import ClassVar

from stalegrid.written import Group


@dataclass(frozen=True, kw_only=True)
class CodecSettings(Group):
    """How messages are made smaller, by the kind of edge.

    Each is none, bf16, int8 or topk=FRACTION; with ``,feedback`` behind it what was lost of a message is added to the
    next one of its edge.

    Args:
        activation: from stage to stage; feedback there, of one batch to the next, is an experiment.
        gradient: back from stage to stage.
        parameters: between groups that average them; what Q is in CHOCO.
        all_reduce: gradients between groups that all-reduce them.
    """

    NAME: ClassVar[str] = "codec"

    activation: str = "none"
    gradient: str = "none"
    parameters: str = "none"
    all_reduce: str = "none"
