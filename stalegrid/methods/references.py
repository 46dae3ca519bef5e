"""What to cite for each published method, as BibTeX.

Does not know: what the methods do.
"""

import re
from importlib.resources import files


def bibtex() -> dict[str, str]:
    """Return the entry of every method by the method's name, as ``references.bib`` has them."""
    text = files("stalegrid.methods").joinpath("references.bib").read_text("utf-8")
    entries = re.findall(r"^@.*?^}$", text, flags=re.MULTILINE | re.DOTALL)
    return {re.split("[{,]", entry, maxsplit=2)[1]: entry for entry in entries}
