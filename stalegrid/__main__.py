"""``python -m stalegrid``."""

from stalegrid.cli import main

raise SystemExit(main())
