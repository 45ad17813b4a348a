"""Mutated results files, contracts of models, configurations and manifests, each from one number.

`python tests/fuzz/texts.py COUNT [FIRST_SEED]` reads COUNT of them in a process apart.
"""

import random
import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from mutate import mutate, run
from students import write_student

from avsync_cli.batch.journal import read_answers
from avsync_cli.batch.records import Item, encode_record, make_record
from avsync_cli.batch.summary import print_summary, summarise
from avsync_cli.batch.tables import write_csv, write_faces
from avsync_cli.contract import CONTRACT_FILE
from avsync_cli.model import load_student
from avsync_cli.report import ModelId, Report, Status, TrackReport
from avsync_cli.spec import TOLERANCES
from training.config import read_config
from training.data.cache import CachedClip, read_manifest, write_manifest
from training.data.corpus import read_corpus

CONFIG = Path(__file__).parents[2] / "training" / "configs" / "match.toml"
TOKENS = (  # what takes the place of a value
    *(b"{}", b"[]", b"[" * 5_000, b"-1", b"0", b"1e999", b"-1e-999", b"nan", b"NaN", b"null", b"true", b'""'),
    *(b"1" * 400, b"9" * 5_000, b'"\\u0000"', b'"\\ud800"', b'"/dev/zero"', b"\xff\xfe", b"\0"),
    *(b"'", b'"', b"\n", b",", b"="),
)
_VALUE = re.compile(rb'"[^"]*"|[-\w.]+')


def change(data: bytes, seed: int) -> bytes:
    """The bytes with some of them changed, or some of the values in them."""
    rng = random.Random(seed)
    if rng.random() < 0.3:
        return mutate(data, seed)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        start, end = rng.choice([value.span() for value in _VALUE.finditer(data)])
        data = data[:start] + rng.choice(TOKENS) + data[end:]
    return data


def read_results(data: bytes, folder: Path) -> None:
    """As `scan --resume`, its summary and its table do. Raises ConfigError."""
    path = folder / "results.jsonl"
    path.write_bytes(data)
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        print_summary(summarise(read_answers(path)))
    write_csv(read_answers(path), folder / "results.csv")
    write_faces(read_answers(path), folder / "faces.csv")


def read_model(data: bytes, folder: Path) -> None:
    """Raises ModelError."""
    student = folder / "student"
    if not student.exists():
        write_student(student)
    (student / CONTRACT_FILE).write_bytes(data)
    load_student(student)


def read_toml(data: bytes, folder: Path) -> None:
    """Raises ConfigError."""
    path = folder / "config.toml"
    path.write_bytes(data)
    read_config(path)


def read_cache(data: bytes, folder: Path) -> None:
    """Raises ConfigError."""
    (folder / "manifest.json").write_bytes(data)
    read_manifest(folder)


def read_table(data: bytes, folder: Path) -> None:
    """Raises ConfigError."""
    (folder / "manifest.csv").write_bytes(data)
    read_corpus(folder, corrections=None)


def _results() -> bytes:
    limits, lines = TOLERANCES["itu-detect"], []
    span_ms = (limits.latest_ms, limits.earliest_ms)
    for number, lead_ms in enumerate((1.0, 300.0)):
        status: Status = "out_of_sync" if number else "in_sync"
        track = TrackReport(0.0, 2.0, [0.0, 0.0, 9.0, 9.0], lead_ms, 0.5, True, 0.1, [0.5, None, 1.0])
        report = Report(f"{number}.mp4", status, "level", span_ms, audio_lead_ms=lead_ms, tracks=(track,))
        item = Item(f"{number}.mp4", f"/{number}.mp4", 1, 2.0)
        record = make_record(item, report.to_json(), limits=limits, model=ModelId("m", "0"))
        lines.append(encode_record(record))
    return b"".join(lines)


def _model() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return (write_student(Path(folder) / "student") / CONTRACT_FILE).read_bytes()


def _cache() -> bytes:
    clips = [CachedClip(f"{number}.mp4", "train", "s", "lab", False, 0.5, 25) for number in range(2)]
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(Path(folder), clips)
        return (Path(folder) / "manifest.json").read_bytes()


def _table() -> bytes:
    columns = {
        **{"file": "lab/a.mp4", "split": "train", "source": "s", "machine_made": "no", "seconds": "1.24"},
        **{"audio_rate": "44100", "source_lead_frames": "-0.5", "clip_lead_frames": "1", "origin": "o"},
        "clip_confidence": "0.5",
    }
    rows = [columns | {"file": f"lab/{name}.mp4"} for name in "ab"]
    return "\n".join([",".join(columns), *(",".join(row.values()) for row in rows), ""]).encode()


READERS: dict[str, tuple[Callable[[], bytes], Callable[[bytes, Path], None]]] = {
    "results": (_results, read_results),
    "model": (_model, read_model),
    "configuration": (CONFIG.read_bytes, read_toml),
    "cache": (_cache, read_cache),
    "table": (_table, read_table),
}


@cache
def original(name: str) -> bytes:
    """What is read without a complaint."""
    data: bytes = READERS[name][0]()
    return data


def try_seed(seed: int, folder: Path) -> None:
    """Read the text of one seed. Raises AvsyncError."""
    name = list(READERS)[seed % len(READERS)]
    READERS[name][1](change(original(name), seed), folder)


if __name__ == "__main__":
    first, *more = map(int, sys.argv[1:])
    sys.exit(run(first, more[0] if more else 0, try_seed))
