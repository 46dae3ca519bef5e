"""How a run is saved, and what its manifests say of it for runs that go on.

Does not know: how it is planned and carried out.
"""

import warnings
from pathlib import Path

import torch

from stalegrid.checkpoints import DEALT, FOLDER, ORIGIN
from stalegrid.config import Settings
from stalegrid.data import is_stream, opened
from stalegrid.engines import Keeping, Measured, use_device
from stalegrid.observe import Record
from stalegrid.plans import Plan, ServedPlan, cast_model, dealt_by, origin_of
from stalegrid.runs.asked import Asked
from stalegrid.transfer import Position, facts_of
from stalegrid.version import __version__


def keeping(asked: Asked, plan: Plan | ServedPlan, folder: Path, written: Record) -> Keeping | None:
    """Return how a run is saved and what it goes on from, and say what does not go on; None where it is not saved."""
    settings, source = asked.settings.checkpoint, asked.source
    if not settings.wanted and source is None:
        return None
    virtual = asked.settings.engine.virtual and plan.time_model is not None
    if virtual and source is not None and not source.manifest.get("virtual"):
        warnings.warn(
            f"virtual time begins at 0 (checkpoint: {source.folder}): the run has had none before", stacklevel=4
        )
    if source is not None and is_stream(opened(asked.task.data)):
        warnings.warn(
            f"the stream is gone through once more, from its beginning to version {source.version}, without training",
            stacklevel=4,
        )
    dealt = dealt_by(plan)
    told = {
        "virtual": virtual,
        **bits(asked.settings),
        "settings": written,
        ORIGIN: origin_of(asked.given or asked.task),
        "measured": Measured.of(plan).text().decode(),
        **_reads(asked, plan),
        DEALT: None if dealt is None else dealt.digest,
        "hosts": asked.hosts,
        **asked.membership.plain(),
    }
    return Keeping(folder / FOLDER, settings, told, source)


def _reads(asked: Asked, plan: Plan | ServedPlan) -> Record:
    """Return what a manifest says for runs that go on in another shape."""
    start = asked.begun_with(plan)
    if not isinstance(plan, Plan):
        return {"begins": 0, "start": start}
    return {
        "begins": plan.schedule.begins,
        "start": start,
        "position": Position.of(plan).plain(),
        "model": facts_of(cast_model(asked.task, plan.training), plan.stages),
    }


def bits(settings: Settings) -> Record:
    """Return that on which the last bits of numbers may depend."""
    device = use_device(settings.engine.device, 0).type
    versions = {"stalegrid": __version__, "torch": torch.__version__}
    return {**versions, "device": device, "threads": settings.engine.threads}
