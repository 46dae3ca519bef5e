"""The entry of a worker process: ``python -P __main__.py FOLDER RANK SIZE JOB``, JOB being an open file's number.

Does not know: what workers do.

Modules are looked for where the starter looked for them, in that order, and nowhere else; so the starter's path is set
before anything of this library, or of torch, is loaded.
"""

import json
import pickle
import sys
import traceback
from pathlib import Path


def _start() -> None:
    folder, rank = Path(sys.argv[1]), sys.argv[2]
    sys.path[:] = json.loads((folder / "path").read_text())
    try:
        from stalegrid.engines.distributed.worker import main
    except Exception as problem:  # such as no memory left to load libraries into
        text = f"a worker process cannot load what it needs: {type(problem).__name__}: {problem}"
        _tell(folder / f"error-{rank}", RuntimeError(text))
        sys.exit(1)
    main(lambda error: _tell(folder / f"error-{rank}", error))


def _tell(path: Path, error: BaseException) -> None:
    """Write the error at hand where the starter looks for it, whole as soon as it is there."""
    text = traceback.format_exc()
    try:
        told = pickle.dumps((error, text))
        pickle.loads(told)  # an error whose class cannot be rebuilt is told as text
    except Exception:
        told = pickle.dumps((RuntimeError(f"{type(error).__name__}: {error}"), text))
    part = path.with_name(f"part-{path.name}")
    part.write_bytes(told)
    part.replace(path)


_start()
