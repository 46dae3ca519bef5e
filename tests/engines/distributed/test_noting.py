"""What was noted arrives as it was."""

import pytest

from stalegrid.engines.distributed.noting import as_text, from_text
from stalegrid.errors import ProtocolError
from stalegrid.observe.timeline import Timeline
from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import OBSERVER, Unit, server


def test_a_timeline_is_the_same_after_its_way_as_text() -> None:
    made = Timeline()
    for unit in (Unit(1, 2), server(0), OBSERVER):
        made.executed(unit, Action(Kind.UPDATE, 7), 1 << 60, (1 << 60) + 1)
        made.left(Tag(Edge("report", unit, OBSERVER), 3), 5)
        made.arrived(Tag(Edge("weights", server(1), unit), -1), 6)
    assert from_text(as_text(made)) == made


@pytest.mark.parametrize("text", [b"", b"[]", b'[[[0,0,"?",0,0,0]],[],[]]', b"[" * 100_000])
def test_what_is_no_timeline_is_refused(text: bytes) -> None:
    with pytest.raises(ProtocolError, match="what a process noted cannot be read"):
        from_text(text)
