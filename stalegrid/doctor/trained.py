"""Whether what is to be trained is the same on all hosts: settings, files, model, data.

Does not know: how it is made, how it is trained.
"""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

from stalegrid.doctor.rows import Hosts, Row, at, differing, told
from stalegrid.engines import layout_of_state
from stalegrid.errors import StalegridError
from stalegrid.observe import Record
from stalegrid.plans import Task, fingerprint

Making = Callable[[], tuple[str, Task]]
"""Returns the settings as text, and makes what is trained."""

_WHAT = ("settings", "files", "model", "data")


def look(make: Making | None) -> Record:
    """Return digests of what is trained, or why it cannot be made; nothing where nobody has said what."""
    if make is None:
        return {}
    before = set(sys.modules)
    try:
        settings, task = make()
        found = [settings, _files(set(sys.modules) - before), layout_of_state(task.model), fingerprint(task)]
    except StalegridError as problem:
        return {"problem": str(problem)}
    return {name: hashlib.sha256(text.encode()).hexdigest()[:8] for name, text in zip(_WHAT, found, strict=True)}


def _files(names: set[str]) -> str:
    """Return digests of the user's files that were imported: those in the current folder and below."""
    found = {}
    for name in names:
        path = Path(getattr(sys.modules[name], "__file__", None) or "/")
        if path.is_relative_to(Path.cwd()) and not path.is_relative_to(sys.prefix) and path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return str(sorted(found.items()))


def rows(hosts: Hosts) -> list[Row]:
    """Judge what is trained."""
    if not any(host.told for host in hosts):
        return []
    able = [host for host in hosts if "problem" not in host.told]
    unable = [host for host in hosts if host not in able]
    found = [
        Row(name, told(able, lambda h, name=name: h.told.get(name)), _same(able, name))  # type: ignore[misc]
        for name in _WHAT
        if able
    ]
    for host in unable:
        problem = host.told["problem"]
        found.append(Row("what is trained", problem, at([host], lambda _: True, f"mend what is said of it: {problem}")))
    return found


_REMEDIES = {
    "settings": "give all hosts the same options and the same file",
    "files": "copy your own files that the model or the data are made of to all hosts",
    "model": "let the model's factory do the same on all hosts",
    "data": "copy the same data to all hosts, and seed what their factory draws",
}


def _same(hosts: Hosts, name: str) -> tuple[str, ...]:
    return differing(hosts, lambda h: h.told.get(name), _REMEDIES[name])
