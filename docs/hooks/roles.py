"""Names that docstrings mark, such as :func:`stalegrid.train`, as links where the site has them.

Does not know: which names there are.
"""

import re
from typing import Any

_ROLE = re.compile(r":(?:func|class|mod|meth|attr):<code>~?([\w.]+)</code>")


def on_page_content(html: str, **_: Any) -> str:
    """Rewrite the marks, which Markdown does not know."""
    return _ROLE.sub(r'<autoref optional identifier="\1"><code>\1</code></autoref>', html)
