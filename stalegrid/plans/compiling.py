"""Whether stages can be compiled: on this machine, and with what their backwards see.

Does not know: models; whether a given one can be compiled shows its trial.
"""

from stalegrid.data import TrainingSettings
from stalegrid.errors import ConfigError
from stalegrid.programs import Schedule
from stalegrid.stages import View, fault_of_compiler, name_of_view


def check_compiling(training: TrainingSettings, view: type[View], schedule: Schedule) -> None:
    """Refuse to compile where torch cannot, or where a backward would be of another function.

    Args:
        training: whether anything is compiled.
        view: which weights late backwards see.
        schedule: how late they are.

    Raises:
        ConfigError: it is refused.
    """
    if not training.compile:
        return
    # As for casts: whatever a backward makes anew of the weights that it sees has to be what its forward has made.
    if other := [k for k in range(schedule.stages) if view.casts_anew(schedule, k)]:
        raise ConfigError(
            f"compiled backwards make activations anew, of weights that are to be those of their forwards (compile: "
            f"true, view: {name_of_view(view)}, stage: {other[0]}); take view stashed, recomputed or double-buffered, "
            "or leave compile out"
        )
    if (why := fault_of_compiler()) is not None:
        raise ConfigError(
            f"torch compiles nothing here (compile: true): {why}; it needs a compiler of C++ (g++, or what CXX names) "
            "and the headers of Python, and no variable that switches it off; or leave compile out"
        )


def refuse_compiling(training: TrainingSettings, why: str) -> None:
    """Refuse to compile.

    Raises:
        ConfigError: it is asked for.
    """
    if training.compile:
        raise ConfigError(f"{why} (compile: true); leave compile out")
