"""What several tests share: made once, read by all."""

import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from students import write_student
from talking import STREAM_SECONDS, write_talking_head

from avsync_cli.check import Engine, load_engine

# A busy machine is no fault, and each run tries the same: what only other examples would show is looked for
# with --hypothesis-profile=searching, not by chance while something else is tested.
settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile("searching", settings.get_profile("patient"), derandomize=False)
settings.load_profile("patient")


def pytest_configure() -> None:
    """A shell's background job ignores interrupts, one under `nohup` the end of its terminal, and what they
    start would too: not what is tested."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def handmade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the hand-made student (see `students`)."""
    return write_student(tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="session")
def engine(handmade: Path) -> Engine:
    return load_engine(handmade, threads=1)


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Talking heads by the ms their sound is early."""
    folder = tmp_path_factory.mktemp("heads")
    leads_ms = (0, 160, -280, 600)
    return {lead: write_talking_head(folder / f"head{lead}.mp4", audio_lead_ms=lead) for lead in leads_ms}


@pytest.fixture(scope="session")
def streams(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Talking heads as MPEG-TS by the ms their sound is early."""
    folder = tmp_path_factory.mktemp("streams")
    return {
        lead: write_talking_head(folder / f"head{lead}.ts", audio_lead_ms=lead, seconds=STREAM_SECONDS)
        for lead in (0, 160)
    }


@pytest.fixture(scope="session")
def teacher_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a tiny teacher (see `recipes`)."""
    from recipes import save_teacher

    return save_teacher(tmp_path_factory.mktemp("teacher") / "best.pt")


@pytest.fixture
def teacher(teacher_weights: Path) -> dict[str, Any]:
    """What a recipe says of it."""
    from recipes import TEACHER

    return TEACHER | {"weights": str(teacher_weights)}
