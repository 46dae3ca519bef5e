"""How a task is made of names: data, model, loss and optimizer of a command line or a file.

Does not know: how it is trained.
"""

from stalegrid.recipes.settings import RunConfig
from stalegrid.recipes.task import make_task

__all__ = ["RunConfig", "make_task"]
