"""Training of the students: needs torch, never shipped with the tool."""

import avsync_cli  # noqa: F401 - which turns telemetry off before anything is imported that sends it
