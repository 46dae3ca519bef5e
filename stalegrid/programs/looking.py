"""When units show the observer what a diagnosis is made of.

Does not know: what a diagnosis says, what a look shows.

A version is diagnosed where its number is a multiple of E.  Of a stage whose updates are late by m, the weights m
updates before it count too, and of groups that mix those one update before it; so units show themselves at these
versions as well.  Nothing depends on how long the run is.  A version of which something earlier was never shown, since
the run had not begun, is diagnosed without it.
"""

from dataclasses import dataclass

LOOK = "look"
"""The name of the edges on which units show themselves."""

LONG = 1000
"""For how many steps of a unit others may wait for one diagnosis: some hundred backwards of the model, or more."""


@dataclass(frozen=True, slots=True)
class Looks:
    """When units show themselves.

    Args:
        every: E, updates between two versions that are diagnosed.
        ago: for each stage, by how many updates the versions that count are before the one that is diagnosed.
    """

    every: int
    ago: tuple[tuple[int, ...], ...]

    def diagnosed(self, version: int) -> bool:
        """Return whether a version is diagnosed."""
        return version % self.every == 0

    def shown(self, stage: int, version: int) -> bool:
        """Return whether units of a stage show themselves at a version."""
        return any(self.diagnosed(version + ago) for ago in self.ago[stage])
