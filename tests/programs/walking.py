"""Walks programs to what tests compare."""

from stalegrid.programs.actions import Action, Edge, Tag
from stalegrid.programs.agenda import Agenda


def needed(program: Agenda, edge: Edge) -> list[Tag]:
    """Return what the target of an edge takes from it, from first to last."""
    actions = (action for action in program.actions(edge.target) if isinstance(action, Action))
    return [tag for action in actions for tag in action.needs if tag.edge == edge]
