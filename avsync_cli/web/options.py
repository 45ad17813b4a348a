"""How the page of `avsync web` is served, apart from what is asked of each video (`avsync_cli.options`)."""

from dataclasses import dataclass
from pathlib import Path

from avsync_cli.batch.limits import DEFAULT_MEMORY_MB
from avsync_cli.errors import ConfigError
from avsync_cli.sandbox import Bounds

DEFAULT_UPLOAD_MB = 20_000
LINGER_S = 300.0


@dataclass(frozen=True)
class WebOptions:
    """Raises ConfigError where that cannot be done.

    `port` 0 is any that is free. `root` is a folder whose videos are shown too. `timeout_s` and
    `memory_mb` are for one video, None for what grows with its duration. `linger_s` after the last tab
    of the page has gone, which may only be loaded anew, all files are erased. `browse` opens a browser.
    """

    port: int = 0
    root: Path | None = None
    max_upload_mb: int = DEFAULT_UPLOAD_MB
    timeout_s: float | None = None
    memory_mb: int = DEFAULT_MEMORY_MB
    linger_s: float = LINGER_S
    browse: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port {self.port}: must be 0 to 65535")
        if self.max_upload_mb < 1:
            raise ConfigError(f"--max-upload-mb {self.max_upload_mb}: must be 1 or more")
        Bounds(self.timeout_s, self.memory_mb)
