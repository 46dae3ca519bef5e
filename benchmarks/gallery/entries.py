"""All entries by name, in the order in which they are trained: those that take longest come last."""

from benchmarks.gallery import dsp, fdg, grid, learners, robust, text

ENTRIES = {module.ENTRY.name: module.ENTRY for module in (robust, grid, text, dsp, learners, fdg)}
