"""Makes the files in avsync_cli/assets: `python -m export --help`."""

import avsync_cli  # noqa: F401 - which turns telemetry off before anything is imported that sends it
