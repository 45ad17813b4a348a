"""How fast this device is at each stage of a check, and in which arithmetic and on how many threads.

No picture of a face comes with avsync, so the clip is made of moving stripes, and the face models are run
where a face would be: they take as long there as on a face. What is counted is one face that is followed, in
25 pictures a second; what is not: loading, the search for the first face, and cutting the mouth out.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from numpy.typing import NDArray

from avsync_cli import spec
from avsync_cli.contract import identify_student, precisions_of
from avsync_cli.errors import ConfigError
from avsync_cli.faces import FaceModels, Roi
from avsync_cli.machine import Cpu, count_cores, read_cpu
from avsync_cli.media import open_media
from avsync_cli.mel import mel_track
from avsync_cli.model import Student, load_student
from avsync_cli.offsets import score_offsets
from avsync_cli.precision import choose_precision
from avsync_cli.sound import Sound
from avsync_cli.spec import Precision

BENCH_SCHEMA_VERSION = 1
CLIP_WIDTH, CLIP_HEIGHT = 1280, 720
REPEATS = 5  # of each measurement, of which the median counts; one more before them warms up
FACE_PICTURES = 25  # on which the face models are timed
MAX_THREADS_PER_CORE = 4
GAIN = 1.1  # what more threads must at least be faster, to be worth it

Floats = NDArray[np.float32]
Stages = dict[str, float]


@dataclass(frozen=True)
class Speed:
    """Milliseconds for one frame of 40 ms, of each stage and of all, which `real_time_factor` puts over 40.

    `detect` runs on one frame of 25 and counts so.
    """

    precision: Precision
    threads: int
    decode_ms: float
    detect_ms: float
    mesh_ms: float
    encode_ms: float
    score_ms: float
    total_ms: float
    real_time_factor: float


@dataclass(frozen=True)
class Benchmark:
    """All measurements, and which of them a check should be run like."""

    cpu: Cpu
    student: str
    clip: str
    auto: Precision
    speeds: tuple[Speed, ...]
    recommended: Speed

    def to_json(self) -> dict[str, Any]:
        """Schema 1 as plain JSON values."""
        values = asdict(self) | {"speeds": [asdict(speed) for speed in self.speeds]}
        return {"schema_version": BENCH_SCHEMA_VERSION, **values}


def bench_device(
    student: str | Path | None = None, *, seconds: float = 4.0, threads: Sequence[int] = ()
) -> Benchmark:
    """Time a student, the bundled one by default, in all its precisions, on 1, 2, 4 ... threads by default.

    `seconds` is the length of the clip. Raises ConfigError or ModelError.
    """
    if not 1 <= seconds <= 600 or any(count < 1 for count in threads):
        raise ConfigError("a benchmark needs a clip of 1 to 600 s, and at least one thread")
    most = MAX_THREADS_PER_CORE * count_cores()
    if max(threads, default=1) > most:
        raise ConfigError(f"{max(threads)} threads: more than {most} make no sense on this device")
    counts = sorted(set(threads)) or thread_counts(count_cores())
    try:
        temporary = tempfile.TemporaryDirectory(prefix="avsync-")
    except OSError as error:
        raise ConfigError(f"no temporary folder can be written to; set TMPDIR: {error.strerror}") from error
    with temporary as folder:
        clip = write_clip(Path(folder) / "clip.mp4", seconds=seconds)
        speeds = []
        for count in counts:
            shared = time_decoding(clip, threads=count) | time_faces(clip, threads=count)
            for precision in precisions_of(student):
                loaded = load_student(student, threads=count, precision=precision)
                speeds.append(_add_up(precision, count, shared | time_student(loaded, seconds=seconds)))
    return Benchmark(
        cpu=read_cpu(),
        student=identify_student(student)[0],
        clip=f"{seconds:g} s of {CLIP_WIDTH} x {CLIP_HEIGHT} at {spec.VIDEO_FPS} pictures a second",
        auto=choose_precision("auto", student),
        speeds=tuple(speeds),
        recommended=recommend(speeds),
    )


def thread_counts(cores: int) -> list[int]:
    """1, 2, 4 ... and all cores."""
    return sorted({cores, *(1 << power for power in range(cores.bit_length()) if 1 << power <= cores)})


def recommend(speeds: Sequence[Speed]) -> Speed:
    """The fastest, or one of fewer threads, or in floats, that is hardly slower."""
    fastest = min(speed.total_ms for speed in speeds)
    close = [speed for speed in speeds if speed.total_ms <= GAIN * fastest]
    return min(close, key=lambda speed: (speed.threads, speed.precision != "fp32"))


def write_clip(path: Path, *, seconds: float) -> Path:
    """Stripes and grain that move, so that there is something to decode, and a tone."""
    rng = np.random.default_rng(0)
    stripes = 100 + 60 * np.sin(np.add.outer(np.arange(CLIP_HEIGHT), np.arange(CLIP_WIDTH)) / 20)
    picture = (stripes + rng.integers(0, 40, stripes.shape)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        video = cast(VideoStream, container.add_stream(_video_codec(), rate=spec.VIDEO_FPS))
        video.width, video.height, video.pix_fmt = CLIP_WIDTH, CLIP_HEIGHT, "yuv420p"
        audio: AudioStream = container.add_stream("aac", rate=spec.SAMPLE_RATE_HZ, layout="mono")
        for number in range(round(seconds * spec.VIDEO_FPS)):
            moved = np.roll(picture, (number, 3 * number), axis=(0, 1))
            frame = av.VideoFrame.from_ndarray(np.repeat(moved[:, :, None], 3, axis=2), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, spec.VIDEO_FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = round(seconds * spec.SAMPLE_RATE_HZ)
        tone = 0.1 * np.sin(np.arange(samples) / 10).astype(np.float32)
        for first in range(0, samples, 1024):
            sound = av.AudioFrame.from_ndarray(tone[None, first : first + 1024], format="fltp", layout="mono")
            sound.sample_rate, sound.pts = spec.SAMPLE_RATE_HZ, first
            sound.time_base = Fraction(1, spec.SAMPLE_RATE_HZ)
            container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    return path


def time_decoding(clip: Path, *, threads: int) -> Stages:
    """Reading pictures and sound as a check does."""

    def decode() -> int:
        with open_media(clip, threads=threads) as media:
            pictures = sum(1 for _ in media.pictures())
            media.sound()
        return pictures

    pictures = decode()
    return {"decode_ms": _time(decode) / pictures}


def time_faces(clip: Path, *, threads: int) -> Stages:
    """The face detector on whole pictures, the mesh in their middle."""
    with open_media(clip, threads=threads) as media:
        pictures = [p.rgb for p, _ in zip(media.pictures(), range(FACE_PICTURES), strict=False)]
    models = FaceModels(threads=threads)
    height, width = pictures[0].shape[:2]
    middle = Roi(width / 2, height / 2, height / 2, 0.1)

    def detect() -> None:
        for picture in pictures:
            models.detect(picture)

    def follow() -> None:
        for picture in pictures:
            models.mesh(picture, [middle])

    detect_ms, mesh_ms = _time(detect) / len(pictures), _time(follow) / len(pictures)
    return {"detect_ms": detect_ms / spec.DETECT_EVERY_FRAMES, "mesh_ms": mesh_ms}


def time_student(student: Student, *, seconds: float) -> Stages:
    """Encoding a face and the sound of a clip, and scoring every window against 31 offsets."""
    rng, frames = np.random.default_rng(0), round(seconds * spec.VIDEO_FPS)
    crops = rng.integers(0, 256, (frames, *student.layout.frame_shape)).astype(np.uint8)
    lips = rng.standard_normal((frames, spec.LIP_POINTS, 3)).astype(np.float32)
    noise = 0.1 * rng.standard_normal(frames * spec.SAMPLES_PER_FRAME, np.float32)

    def encode() -> tuple[Floats, Floats]:
        mel = mel_track(Sound(noise, 0))
        return student.encode_video(crops, lips), student.encode_audio(mel, mel.all_ticks)

    video, audio = encode()

    def score() -> Floats:
        return score_offsets(video, audio, first_tick_video=0, first_tick_audio=0, score=student.score)

    return {"encode_ms": _time(encode) / frames, "score_ms": _time(score) / frames}


def _add_up(precision: Precision, threads: int, stages: Stages) -> Speed:
    total_ms = sum(stages.values())
    return Speed(precision, threads, **stages, total_ms=total_ms, real_time_factor=total_ms / spec.FRAME_MS)


def _time(work: Callable[[], object]) -> float:
    """Milliseconds: the median of some runs, after one that warms up."""
    taken = []
    for _ in range(REPEATS + 1):
        begin = perf_counter()
        work()
        taken.append(1000 * (perf_counter() - begin))
    return median(taken[1:])


def _video_codec() -> str:
    """H.264 where it can be written, as most videos are in it."""
    return "libx264" if "libx264" in av.codecs_available else "mpeg4"
