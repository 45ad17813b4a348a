"""Run the command line as `python -m avsync_cli`."""

import os

try:
    from avsync_cli.cli import main

    main()
except KeyboardInterrupt:  # while it was still being loaded: `main` answers for what comes later
    os._exit(130)  # as in `main`
