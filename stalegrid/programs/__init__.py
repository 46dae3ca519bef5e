"""What is due, and which messages tie it together: programs of units, learners and servers, as data.

Does not know: tensors' values, time, ranks.
"""

from stalegrid.programs.actions import Action, Edge, Hoped, Kind, Tag
from stalegrid.programs.agenda import Agenda
from stalegrid.programs.deliveries import DELIVERIES, first_updates, order_before, read_order
from stalegrid.programs.encounters import Encountering
from stalegrid.programs.grid import MOST, OBSERVER, Grid, Unit, learner, server
from stalegrid.programs.lateral import Lateral, NoLateral
from stalegrid.programs.led import Led
from stalegrid.programs.live import Live
from stalegrid.programs.looking import LOOK, Looks
from stalegrid.programs.meetings import ANSWER, QUESTION, Askers, InStep, Order, Question, Recorded
from stalegrid.programs.messages import ALIGNMENT, END, Layout, Message, TensorSpec, aligned, flat_layout, layout_of
from stalegrid.programs.pipeline import Back, Program
from stalegrid.programs.record import MEETINGS, line_of, record_of
from stalegrid.programs.record import read_order as read_meetings
from stalegrid.programs.saving import LEAVE, SAVE, Saves
from stalegrid.programs.schedules import Schedule, gpipe, one_f_one_b, stale
from stalegrid.programs.serving import DOOR, GONE, Ordered, Served, in_turn
from stalegrid.programs.settings import GridSettings, ServerSettings
from stalegrid.programs.shared import PART, WHOLE, Shared
from stalegrid.programs.softsync import Delivery, Rules
from stalegrid.programs.stopping import ASKED, END_RUN, VERDICT, Stoppable
from stalegrid.programs.table import closed_form, ticks, tied_form
from stalegrid.programs.through import LENT, MEAN, MEASURED, REPLICA, TAKEN, TESTED, Lent, Through
from stalegrid.programs.ties import GRADIENT, WEIGHTS, Tie, Ties
from stalegrid.programs.watch import Watch

__all__ = [
    "ALIGNMENT",
    "ANSWER",
    "ASKED",
    "DELIVERIES",
    "DOOR",
    "END",
    "END_RUN",
    "GONE",
    "GRADIENT",
    "LEAVE",
    "LENT",
    "LOOK",
    "MEAN",
    "MEASURED",
    "MEETINGS",
    "MOST",
    "OBSERVER",
    "PART",
    "QUESTION",
    "REPLICA",
    "SAVE",
    "TAKEN",
    "TESTED",
    "VERDICT",
    "WEIGHTS",
    "WHOLE",
    "Action",
    "Agenda",
    "Askers",
    "Back",
    "Delivery",
    "Edge",
    "Encountering",
    "Grid",
    "GridSettings",
    "Hoped",
    "InStep",
    "Kind",
    "Lateral",
    "Layout",
    "Led",
    "Lent",
    "Live",
    "Looks",
    "Message",
    "NoLateral",
    "Order",
    "Ordered",
    "Program",
    "Question",
    "Recorded",
    "Rules",
    "Saves",
    "Schedule",
    "Served",
    "ServerSettings",
    "Shared",
    "Stoppable",
    "Tag",
    "TensorSpec",
    "Through",
    "Tie",
    "Ties",
    "Unit",
    "Watch",
    "aligned",
    "closed_form",
    "first_updates",
    "flat_layout",
    "gpipe",
    "in_turn",
    "layout_of",
    "learner",
    "line_of",
    "one_f_one_b",
    "order_before",
    "read_meetings",
    "read_order",
    "record_of",
    "server",
    "stale",
    "ticks",
    "tied_form",
]
