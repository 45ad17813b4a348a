"""Makes the files in avsync_cli/assets: `python -m export --help`."""
