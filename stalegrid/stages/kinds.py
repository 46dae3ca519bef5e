"""Which kind of stage a unit of a program has.

Does not know: what the kinds do.
"""

from stalegrid.programs import Program
from stalegrid.stages.frozen import FrozenStage
from stalegrid.stages.recomputing import RecomputingStage
from stalegrid.stages.stage import Stage


def kind_of_stage(program: Program, stage: int) -> type[Stage]:
    """Return the class of a stage."""
    if stage < program.frozen:
        return FrozenStage
    return RecomputingStage if program.recomputes(stage) else Stage
