"""Speed of the exported networks with one thread, against the bars that they are made for.

    python tests/benchmarks/bench_encoders.py [--repeats 5] [--only edge]

Weights are random and clips are generated: neither matters to speed. Times are those of the CPU, which others
on the machine lengthen least. "Plain" is the published student exported as it is, pictures and sound in one
fp32 graph with its Conv3d, and run for the 31 candidates of a window, as its authors evaluate it.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import onnxruntime
import torch
from colour_cache import make_colour_cache
from synthetic_cache import make_cache

from avsync_cli.model import Student, load_student
from avsync_cli.session import open_session
from avsync_cli.spec import (
    CANDIDATES,
    CROP_DEFINITION,
    CROP_HEIGHT,
    CROP_WIDTH,
    FACE_CROP_DEFINITION,
    MEL_BINS,
    WINDOW_FRAMES,
    WINDOW_MEL_STEPS,
    Precision,
)
from export.graphs import AnyNet
from export.quantize import quantize_student
from export.student import OPSET, export_student
from export.trained import Trained
from training.data.clips import LoadedClip, load_clips
from training.networks.compact import EDGE, CompactNet
from training.networks.presets import make_network
from training.networks.vocalist import MTDVOCALIST, VocaList
from training.recipe import NetworkConfig

PUBLISHED_VIDEO_MS = 25.0  # a window, in int8
EDGE_VIDEO_MS = 1.0  # a frame
EDGE_PAIRS_MS = 20.0  # the 31 of a window
LEAST_RATIO = 50.0  # of a whole window's scan, plain to edge
FORMS: tuple[Precision, ...] = ("fp32", "int8")


def best_ms(action: Callable[[], object], *, repeats: int) -> float:
    """CPU time of the fastest of so many runs."""
    action()
    times_s = []
    for _ in range(repeats):
        begin = time.process_time()
        action()
        times_s.append(time.process_time() - begin)
    return 1000 * min(times_s)


def tell(what: str, value_ms: float, bar_ms: float) -> None:
    say(f"{what}: {value_ms:.2f} ms (bar {bar_ms:g}: {'holds' if value_ms <= bar_ms else 'does not hold'})")


def say(line: str) -> None:
    """At once, even into a file: the whole takes minutes."""
    print(line, flush=True)


def make_student(net: AnyNet, crop: str, cache: Path, folder: Path) -> dict[Precision, Student]:
    """The student of a network in both forms."""
    quantize_student(export_student(Trained(net.eval(), crop, {}), folder), cache, method="minmax")
    return {form: load_student(folder, precision=form) for form in FORMS}


def video_ms(student: Student, clip: LoadedClip, *, repeats: int) -> float:
    """Of a window, and so of a frame: each frame begins one."""
    lips = clip.lips.astype(np.float32)
    return best_ms(lambda: student.encode_video(clip.crops, lips), repeats=repeats) / (len(clip.crops) - 4)


def audio_ms(student: Student, clip: LoadedClip, *, repeats: int) -> float:
    """Of a window."""
    ticks = clip.mel.all_ticks
    return best_ms(lambda: student.encode_audio(clip.mel, ticks), repeats=repeats) / len(ticks)


def pairs_ms(student: Student, clip: LoadedClip, *, repeats: int) -> float:
    """Of the pairs of a window with all candidates."""
    video = student.encode_video(clip.crops, clip.lips.astype(np.float32))
    audio = student.encode_audio(clip.mel, clip.mel.all_ticks)[:CANDIDATES]
    same = np.repeat(video[:1], len(audio), axis=0)
    return best_ms(lambda: student.score(same, audio), repeats=repeats)


def plain_ms(folder: Path, *, repeats: int) -> float:
    """A window by the published student as it is."""
    net, path = VocaList(MTDVOCALIST).eval(), folder / "plain.onnx"
    frames = torch.zeros(3, WINDOW_FRAMES, 3, CROP_HEIGHT, CROP_WIDTH)
    axis = {0: torch.export.Dim("pairs")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (frames, torch.zeros(3, MEL_BINS, WINDOW_MEL_STEPS)),
            path,
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=["frames", "mels"],
            dynamic_shapes=(axis, axis),
            verbose=False,
        )
    inputs = {"frames": list(frames.shape[1:]), "mels": [MEL_BINS, WINDOW_MEL_STEPS]}
    session = open_session(path, threads=1, inputs=inputs)
    rng = np.random.default_rng(0)
    given = {
        name: rng.random((CANDIDATES, *shape), np.float32) for name, shape in inputs.items()
    }  # as many copies of the window as candidates
    return best_ms(lambda: session.run(None, given), repeats=repeats)


def bench_published(folder: Path, *, repeats: int) -> None:
    cache = make_colour_cache(folder / "colour", clips=6, frames=40)
    net = make_network(NetworkConfig(MTDVOCALIST.name))
    forms = make_student(net, FACE_CROP_DEFINITION, cache, folder / "published")
    clip = load_clips(cache, split="val")[0]
    for form, student in forms.items():
        window = video_ms(student, clip, repeats=repeats)
        tell(f"published student, video, a window, {form}", window, PUBLISHED_VIDEO_MS)


def bench_edge(folder: Path, *, repeats: int) -> None:
    cache = make_cache(folder / "grey", clips=6, frames=60)
    forms = make_student(CompactNet(EDGE), CROP_DEFINITION, cache, folder / "edge")
    clip = load_clips(cache, split="val")[0]
    scans_ms = {}
    for form, student in forms.items():
        video = video_ms(student, clip, repeats=repeats)
        pairs = pairs_ms(student, clip, repeats=repeats)
        tell(f"edge student, video, a frame, {form}", video, EDGE_VIDEO_MS)
        tell(f"edge student, {CANDIDATES} pairs, {form}", pairs, EDGE_PAIRS_MS)
        scans_ms[form] = video + audio_ms(student, clip, repeats=repeats) + pairs
    plain = plain_ms(folder, repeats=max(1, repeats // 3))
    say(f"published student, plain, a window with its {CANDIDATES} candidates: {plain:.0f} ms")
    for form, scan in scans_ms.items():
        ratio = plain / scan
        verdict = "holds" if ratio >= LEAST_RATIO else "does not hold"
        found = f"{scan:.1f} ms, {ratio:.0f} times as fast (bar {LEAST_RATIO:g}: {verdict})"
        say(f"edge student, the same, {form}: {found}")


PARTS = {"published": bench_published, "edge": bench_edge}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=PARTS)
    options = parser.parse_args()
    torch.manual_seed(0)
    say(f"ONNX Runtime {onnxruntime.__version__}, 1 thread, {options.repeats} repeats")
    with tempfile.TemporaryDirectory() as folder:
        for name in [options.only] if options.only else PARTS:
            PARTS[name](Path(folder), repeats=options.repeats)


if __name__ == "__main__":
    main()
