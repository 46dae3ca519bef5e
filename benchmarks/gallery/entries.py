"""All entries by name, in the order in which they are trained: those that take longest come last."""

from benchmarks.gallery import dsp, fdg, grid, learners, robust, speedup, text

ENTRIES = {module.ENTRY.name: module.ENTRY for module in (robust, speedup, grid, text, dsp, learners, fdg)}
