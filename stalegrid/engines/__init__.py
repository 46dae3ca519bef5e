"""When and where the actions of a program happen: in this process, or in many.

Does not know: what the actions compute.
"""

from stalegrid.engines.devices import profile_devices
from stalegrid.engines.distributed import torchrun
from stalegrid.engines.distributed.greeting import Greeting
from stalegrid.engines.distributed.job import Job
from stalegrid.engines.distributed.launch import launch
from stalegrid.engines.distributed.links import Link
from stalegrid.engines.distributed.peers import Measured, layout_of_state
from stalegrid.engines.distributed.private import private_folder
from stalegrid.engines.distributed.secret import given_secret
from stalegrid.engines.distributed.survey import Survey, Surveyed, survey, survey_alone
from stalegrid.engines.distributed.warm import KEPT
from stalegrid.engines.distributed.worker import kept_by
from stalegrid.engines.distributed.world import homes
from stalegrid.engines.machine import computing, use_device
from stalegrid.engines.noting import noted
from stalegrid.engines.profiling import profile
from stalegrid.engines.recording import recorded
from stalegrid.engines.saving import Keeping
from stalegrid.engines.settings import EngineSettings
from stalegrid.engines.signals import ending_in_order, leaving_in_order
from stalegrid.engines.simulator import simulate
from stalegrid.engines.surroundings import Surroundings, refuse_contexts

__all__ = [
    "KEPT",
    "EngineSettings",
    "Greeting",
    "Job",
    "Keeping",
    "Link",
    "Measured",
    "Surroundings",
    "Survey",
    "Surveyed",
    "computing",
    "ending_in_order",
    "given_secret",
    "homes",
    "kept_by",
    "launch",
    "layout_of_state",
    "leaving_in_order",
    "noted",
    "private_folder",
    "profile",
    "profile_devices",
    "recorded",
    "refuse_contexts",
    "simulate",
    "survey",
    "survey_alone",
    "torchrun",
    "use_device",
]
