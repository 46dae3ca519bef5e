"""The entry of a worker process: ``python -P __main__.py FOLDER RANK SIZE JOB``, JOB being an open file's number.

Does not know: what workers do.

Modules are looked for where the starter looked for them, in that order, and nowhere else; so the starter's path is set
before anything of this library, or of torch, is loaded.
"""

import json
import pickle
import sys
from pathlib import Path


def _start() -> None:
    folder, rank = Path(sys.argv[1]), sys.argv[2]
    sys.path[:] = json.loads((folder / "path").read_text())
    try:
        from stalegrid.engines.distributed.worker import main
    except Exception as problem:  # such as no memory left to load libraries into
        text = f"a worker process cannot load what it needs: {type(problem).__name__}: {problem}"
        (folder / f"error-{rank}").write_bytes(pickle.dumps((RuntimeError(text), text)))
        sys.exit(1)
    main()


_start()
