"""What callbacks, checkpoints, lost groups and what a run begins with make of its plan.

Does not know: how the plan was made, the machine.
"""

from stalegrid.errors import ConfigError
from stalegrid.plans import Plan, ServedPlan, cast_model, check_measured, make_test
from stalegrid.programs import DELIVERIES, Saves
from stalegrid.runs.asked import Asked


def fitted(asked: Asked, plan: Plan | ServedPlan) -> Plan | ServedPlan:
    """Return the plan, for a run that may end early where a callback may ask for it.

    Raises:
        ConfigError: a callback lacks something that it needs.
    """
    for callback in asked.callbacks:
        if callback.writes and asked.settings.output.folder is None:
            name = type(callback).__name__
            raise ConfigError(f"{name} writes into the folder of the run, and there is none; name one (out)")
        if callback.by is not None:
            training = asked.settings.training
            model, test = asked.task.tried(cast_model(asked.task, training)), make_test(asked.task, training)
            check_measured(asked.task, model, test, callback.by)
    return _kept(asked, plan, stops=any(callback.stops for callback in asked.callbacks))


def _kept(asked: Asked, plan: Plan | ServedPlan, *, stops: bool) -> Plan | ServedPlan:
    """Return the plan, for a run that is saved where that is asked for, and goes on where it was saved."""
    checkpoint, source = asked.settings.checkpoint, asked.source
    plan = _begun(asked, plan)
    if asked.kept:
        if asked.settings.output.folder is None:
            raise ConfigError("checkpoints lie in the folder of the run, and there is none; name one (out)")
        if isinstance(plan, ServedPlan):
            plan = _served(asked, plan)
        plan = plan.saved(Saves(checkpoint.every, 0 if source is None else source.version))
    if asked.settings.engine.on_loss == "continue":
        _check_losing(asked, plan)
    plan = plan.among(asked.membership)
    if checkpoint.minutes is not None and not plan.askable:
        raise ConfigError(
            f"runs with a mixing of your own or in pairs, or that repeat how learners were lost, are saved at versions "
            f"that are known beforehand (checkpoint.minutes: {checkpoint.minutes}, method: {plan.method.name}); take "
            "checkpoint.every"
        )
    asks = checkpoint.wanted and plan.askable
    if stops or asks:
        plan = plan.stoppable(ends=stops, asks=asks)
    return plan if source is None else plan.ended_at(source.end)


def _check_losing(asked: Asked, plan: Plan | ServedPlan) -> None:
    """Check that a run can go on without a group that it loses.

    Raises:
        ConfigError: it cannot.
    """
    if isinstance(plan, ServedPlan):
        raise ConfigError(
            f"a run with servers goes on without lost learners by itself (engine.on_loss: continue, method: "
            f"{plan.method.name}); leave it out"
        )
    plan.check_losing()
    if not asked.kept:
        raise ConfigError(
            "a run goes on without a lost group from its last checkpoint (engine.on_loss: continue, checkpoint: "
            "none); say how often there is one (checkpoint)"
        )


def _served(asked: Asked, plan: ServedPlan) -> ServedPlan:
    """Return the plan of a run with servers, which goes on in the order of deliveries that there was.

    Raises:
        ConfigError: it would not.
    """
    if asked.source is None:
        return plan
    live = asked.source.manifest["settings"]["engine"]["kind"] == "processes"
    return plan.after(asked.source.run / DELIVERIES, asked.source.version, live=live)


def _begun(asked: Asked, plan: Plan | ServedPlan) -> Plan | ServedPlan:
    """Return the plan of a run that begins later than with the first batch, or began so."""
    if asked.source is None:
        placed = asked.start.placed(plan)
        asked.start.check(asked.task, placed)
        return placed
    begins = asked.source.manifest["begins"]
    return plan.begun(begins) if begins and isinstance(plan, Plan) else plan
