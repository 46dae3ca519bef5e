"""A run in this process alone, all its agents in turn.

Does not know: how a run is planned, what the agents compute.
"""

from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial

from stalegrid.agents import Agent, build_agents
from stalegrid.data import Readers
from stalegrid.engines import Job, computing, kept_by, noted, recorded, simulate, use_device
from stalegrid.observe import Dated, Sink, Timeline, write_trace
from stalegrid.programs import Unit
from stalegrid.seeds import kept
from stalegrid.timing import NANOSECONDS, Clock


def simulated(job: Job, leaving: Callable[[], bool]) -> bool:
    """Run all agents here, in virtual time where costs are known; return whether the run came to its end."""
    device = use_device(job.engine.device, 0)
    program, model, traced = job.plan.program, job.plan.time_model, job.trace
    timeline = Timeline(virtual=model is not None)

    def build(sink: Sink, readers: Readers) -> dict[Unit, Agent]:
        given = sink, readers, job.begins(), job.save_part, job.diagnoses
        return build_agents(job.task, job.plan, program.agents, device, *given)

    noting = partial(noted, folder=job.folder, again=program.saves.since > 0)
    with computing(job.engine.threads), kept(device), closing(job.sink()) as sink, ExitStack() as stack:
        readers = Readers(stack, job.engine.deadline)
        if model is None:
            agents = build(sink, readers)
            with noting(agents) as agents, kept_by(job, agents, device, leaving) as agents:
                simulate(program, recorded(agents, timeline, device) if traced else agents)
            timeline = Timeline.joined([timeline])
        else:
            clock = Clock(program, model, timeline if traced else None)
            dated = Dated(sink, lambda: clock.now / (1000 * NANOSECONDS))
            agents = build(dated, readers)
            with noting(agents) as agents, kept_by(job, agents, device, leaving, clock) as agents:
                simulate(program, agents, before=clock.date)
        if program.left is None:
            sink.finish()
    if traced:
        write_trace(job.traced, timeline)
    return program.left is None
