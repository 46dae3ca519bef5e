"""Whether pictures can be drawn here.

Does not know: which.
"""

from stalegrid.errors import ConfigError


def check_pictures(what: str) -> None:
    """Check that matplotlib is there and loads.

    Args:
        what: needs it.

    Raises:
        ConfigError: it is not, or does not.
    """
    try:
        import matplotlib  # noqa: F401
    except Exception as problem:  # a package that is broken, or set up wrongly, may raise almost anything
        raise ConfigError(
            f"{what} needs matplotlib, which does not load ({' '.join(str(problem).split())}); pip install "
            "'stalegrid[plot]', and set MPLBACKEND to none but its own"
        ) from problem
