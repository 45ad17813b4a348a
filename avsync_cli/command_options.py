"""Options that several commands take alike."""

from pathlib import Path
from typing import Annotated

import typer

from avsync_cli.spec import Wanted

Model = Annotated[Path | None, typer.Option(help="Folder of another model than the bundled one.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 uses every core.")]
RangeFrames = Annotated[
    int, typer.Option("--range", help="Frames of 40 ms to try on both sides, as for check.")
]
Speaker = Annotated[str, typer.Option(help="Whom to listen to, as for check.")]
Tolerance = Annotated[str, typer.Option(help="What counts as in sync, as for check.")]
Precision = Annotated[Wanted, typer.Option(help="Arithmetic of the model, as for check.")]
FollowPlaylists = Annotated[
    bool, typer.Option("--follow-playlists", help="Read HLS playlists, from files in their folder alone.")
]
