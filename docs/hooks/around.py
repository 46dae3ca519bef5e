"""Pages of the site whose text lies beside docs/: they are read there, and not written twice.

Does not know: what they say.
"""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""File of the project -> page."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, whose links are those of files in docs/."""
    root = Path(config.config_file_path).parent
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=moved((root / source).read_text())))
    return files


def moved(text: str) -> str:
    """Return a text as if its file lay in docs/: what is there is near, what is not is a folder up."""
    for source, page in PAGES.items():
        text = text.replace(f"]({source}", f"]({page}")
    near = text.replace("](docs/", "](")
    for name in ("examples", "CITATION.cff"):
        near = near.replace(f"]({name}", f"](../{name}")
    return near
