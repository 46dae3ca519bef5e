"""What a run says of itself before it begins.

Does not know: how it is carried out.
"""

from pathlib import Path

from stalegrid.observe import announce, tell
from stalegrid.plans import Plan, ServedPlan, headline
from stalegrid.runs.asked import Asked
from stalegrid.transfer import sentence


def announce_run(asked: Asked, plan: Plan | ServedPlan, folder: Path) -> None:
    """Tell what is trained and what that begins with, and write it to the folder of the run."""
    settings = asked.settings
    line = headline(plan, settings.engine.kind, settings.engine.threads)
    bears = plan.bears if isinstance(plan, Plan) else None
    announce(line, plan.settled(settings).plain(), bears, folder, asked.quiet)
    if not asked.quiet and (gain := plan.devices.gain) is not None:
        tell(str(gain))
    if asked.source is None and not asked.quiet and (begun := asked.start.told(plan)):
        tell(sentence(begun))
