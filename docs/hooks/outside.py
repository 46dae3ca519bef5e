"""Links to files of the project that are no pages: to the repository, if it says where it is, and otherwise plain text.

Does not know: which files there are.
"""

import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig

_LINK = re.compile(r"\[([^\]]+)\]\(\.\./([^)]+)\)")


def on_page_markdown(markdown: str, config: MkDocsConfig, **_: Any) -> str:
    """Rewrite what leads out of docs/."""
    return _LINK.sub(rf"[\1]({config.repo_url}/blob/HEAD/\2)" if config.repo_url else r"\1", markdown)
