"""The entry of a worker process: ``python -m stalegrid.engines.distributed FOLDER RANK SIZE PORT``."""

from stalegrid.engines.distributed.worker import main

main()
