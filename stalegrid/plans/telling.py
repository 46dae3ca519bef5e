"""What a plan says of itself: in a line for people, and as plain values for the summary.

Does not know: engines, files.
"""

import dataclasses
import os

from stalegrid.data import Dealt, Owned
from stalegrid.observe import TOTAL, Record
from stalegrid.plans.plan import Plan
from stalegrid.plans.served import ServedPlan
from stalegrid.plans.traffic import mean_traffic
from stalegrid.stages import name_of_view
from stalegrid.written import text_of


def headline(plan: Plan | ServedPlan, engine: str, threads: int) -> str:
    """Describe a run in a line.

    Args:
        plan: of the run.
        engine: what it is called.
        threads: of each process.
    """
    what = _served(plan, engine) if isinstance(plan, ServedPlan) else _grid(plan, engine)
    types = ", ".join(sorted({str(stage.dtype).removeprefix("torch.") for stage in plan.stages}))
    return (
        f"{plan.method.name}: {what}; {plan.program.updates} updates in {types}, {threads} of {os.cpu_count()} threads "
        "a process"
    )


def _served(plan: ServedPlan, engine: str) -> str:
    rules = plan.rules
    bound = "not bounded" if rules.bound is None else f"at most {rules.bound} updates"
    corrections = ", ".join(text_of(plan.corrections)) or "none"
    return (
        f"learners: {rules.learners}, servers: {plan.program.servers}, on {engine}; {rules.gather} gradients an "
        f"update, staleness {bound}, corrections {corrections}"
    )


def _grid(plan: Plan, engine: str) -> str:
    gap = "" if plan.spectral_gap is None else f", spectral gap {plan.spectral_gap:.4g}"
    part = plan.partition
    cuts = f", captured by {part.captured}, cut before {', '.join(part.names)}" if part.names else ""
    held = ", ".join(f"{nbytes / 1e6:.3g}" for nbytes in plan.held)
    frozen = "" if not plan.program.frozen else f"; forward only before stage {plan.program.frozen}"
    bounds = ", ".join(map(str, plan.bounds))
    return (
        f"{plan.grid.groups} x {plan.grid.stages} (groups x stages) on {engine}{cuts}{_tied(plan)}{frozen}; staleness "
        f"at most {bounds} updates, view {name_of_view(plan.view)}, holding at most {held} MB; mixing "
        f"{plan.mixing.text}{gap}{_coded(plan)}"
    )


def _coded(plan: Plan) -> str:
    """Say which messages are coded, and what is kept of those that are past."""
    codecs = ", ".join(f"{kind} {one}" for kind, one in plan.codecs.items())
    kept = [plan.messages.remembered(stage) for stage in range(plan.grid.stages)]
    shown = ", ".join(f"{nbytes / 1e6:.3g}" for nbytes in kept)
    remembering = f"; of what is held {shown} MB for messages that are past" if any(kept) else ""
    return (f"; codecs {codecs}" if codecs else "") + remembering


SHOWN = 3
"""Tied parameters that a line names."""


def _tied(plan: Plan) -> str:
    ties = plan.program.ties.each
    named = [*map(str, ties[:SHOWN]), *([f"{len(ties) - SHOWN} more"] if len(ties) > SHOWN else [])]
    return f", tied: {'; '.join(named)}" if ties else ""


def facts(plan: Plan | ServedPlan) -> Record:
    """Return what the summary of a run says of its plan."""
    if isinstance(plan, ServedPlan):
        return {
            "method": plan.method.name,
            "learners": plan.rules.learners,
            "servers": plan.program.servers,
            "softsync": plan.splits,
            "gradients_an_update": plan.rules.gather,
            "max_staleness": plan.rules.bound,
            "corrections": text_of(plan.corrections),
            **_dealt(plan),
            **_sent(plan),
        }
    return {
        "method": plan.method.name,
        "groups": plan.grid.groups,
        "stages": plan.grid.stages,
        "view": name_of_view(plan.view),
        "mixing": plan.mixing.text,
        "cuts": list(plan.partition.names),
        "captured": plan.partition.captured or None,
        "places": plan.partition.places or None,
        "capture_notes": list(plan.partition.notes),
        "shares": [dataclasses.asdict(share) for share in plan.partition.shares],
        "tied": {tie.names[0]: list(tie.stages) for tie in plan.program.ties.each},
        "spectral_gap": plan.spectral_gap,
        **plan.membership.plain(),
        "staleness_at_most": list(plan.bounds),
        "held_at_most": list(plan.held),
        "codecs": {kind: str(one) for kind, one in plan.codecs.items()},
        "remembered_at_most": [plan.messages.remembered(stage) for stage in range(plan.grid.stages)],
        **_dealt(plan),
        **_sent(plan),
    }


def _sent(plan: Plan | ServedPlan) -> Record:
    """Return the bytes that units send each other for an update of whole batches and for a sample, on average."""
    found = mean_traffic(plan)
    total = sum(found.values())
    sizes = plan.training.sizes(plan.grid.groups)
    samples = plan.rules.gather * sizes[0] if isinstance(plan, ServedPlan) else sum(sizes)
    return {"bytes_per_update": {**found, TOTAL: total}, "bytes_per_sample": total / samples}


def dealt_by(plan: Plan | ServedPlan) -> Dealt | None:
    """Return which samples groups, or learners, have for their own; None where they share out each epoch."""
    return plan.numbers.dealt if isinstance(plan.numbers, Owned) else None


def _dealt(plan: Plan | ServedPlan) -> Record:
    """Return who has how many samples of which label, where groups have samples of their own."""
    dealt = dealt_by(plan)
    if dealt is None:
        return {}
    return {"dealt": {"labels": list(dealt.labels), "groups": [list(counts) for counts in dealt.counts]}}
