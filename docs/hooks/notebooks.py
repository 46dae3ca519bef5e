"""Notebooks of docs/ as pages: each is run, from its first cell to its last, and shown with what came of it.

Does not know: what they are about.
"""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient

_LINK = re.compile(r"(\]\([^):]*)\.ipynb\b")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each notebook, which stays beside it, to be taken along.

    Raises:
        CellExecutionError: a cell failed.
    """
    for path in sorted(Path(config.docs_dir).glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(notebook, timeout=300, kernel_name="python3", coalesce_streams=True).execute()
        text = "\n\n".join(part for cell in notebook.cells for part in _parts(cell))
        taken = f'<a href="{path.name}" download>This page as a notebook</a>'
        files.append(File.generated(config, f"{path.stem}.md", content=f"{text}\n\n{taken}\n"))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to notebooks lead to their pages."""
    return _LINK.sub(r"\1.md", markdown)


def _parts(cell: Any) -> Iterator[str]:
    """Yield what of a cell is shown, in Markdown."""
    if cell.cell_type == "markdown":
        yield cell.source
        return
    yield f"```python\n{cell.source}\n```"
    for output in cell.outputs:
        if output.output_type == "stream":
            yield f"```text\n{output.text.rstrip()}\n```"
        elif "image/svg+xml" in output.data:
            drawn = base64.b64encode(output.data["image/svg+xml"].encode()).decode()
            yield f"![{cell.metadata['alt']}](data:image/svg+xml;base64,{drawn})"
