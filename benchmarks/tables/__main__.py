"""``python -m benchmarks.tables`` writes the tables of README.md and docs anew, in place."""

from benchmarks.tables import PAGES, filled

for path in PAGES:
    path.write_text(filled(path))
