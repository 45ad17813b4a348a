"""Run the command line as `python -m avsync_cli`."""

from avsync_cli.cli import main

main()
