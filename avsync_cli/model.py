"""The student as an artefact: three ONNX graphs and a `model.json` that says what they expect.

N frames and T mel steps of a clip; V, A, P: video windows, audio windows, pairs; D, E: numbers that a video
and an audio window are encoded into: one embedding, or the tokens of 5 frames and of 16 mel steps.

    video   frames [N, 48, 96] in 0..255 (RGB faces: [N, 48, 96, 3]), lips [N, 120] -> [N - 4 - 2r, D]
    audio   mel [T, 80], starts [A] -> [A, E]
    pair    video [P, D], audio [P, E] -> score [P]

Both encoders run once on each stretch of a clip, so windows share what they have in common, and the pair
scorer on each pair. An encoder may look r frames or s mel steps beyond its window: row i of `video` stands
for frames r + i .. r + i + 4, and `starts` says where the s steps before each audio window begin. A student
made for another sample rate, mel, crop or window is refused, because it would answer, and wrongly.

Beside `graphs` there may be `int8`, with entries of the same kind for some of the graphs: the same functions
in 8 bits, nearly. A graph that has no such form runs as it is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from avsync_cli import spec
from avsync_cli.confidence import Calibration, read_calibration
from avsync_cli.contract import (
    CONTRACT_FILE,
    DEFAULT_STUDENT,
    Layout,
    graph_entries,
    identity_of,
    name_of,
    read_contract,
    read_layout,
    read_zero,
)
from avsync_cli.errors import ModelError, first_line
from avsync_cli.mel import MelTrack
from avsync_cli.pulse import beat
from avsync_cli.session import open_session
from avsync_cli.spec import Precision

_PAIR_NUMBERS = 1 << 19  # in a batch of pairs, 2 MB: larger batches are no faster on small CPUs

Floats = NDArray[np.float32]


class Student:
    """A loaded student; the module says what its graphs take and give."""

    def __init__(
        self,
        name: str,
        sha256: str,
        calibration: Calibration | None,
        layout: Layout,
        sessions: Mapping[str, ort.InferenceSession],
        *,
        precision: Precision = "fp32",
        zero_ms: float = 0.0,
    ) -> None:
        self.name = name
        self.sha256 = sha256
        self.precision = precision
        self.calibration = calibration
        self.layout = layout
        self.zero_ms = zero_ms  # the audio lead that the graphs see where all is in sync
        self._sessions = sessions

    def encode_video(self, crops: NDArray[np.uint8], lips: Floats) -> Floats:
        """Crops [N, 48, 96] (RGB faces: [N, 48, 96, 3]) and lip geometry [N, 40, 3] -> [N - 4, D].

        Row i stands for the window of frames i .. i + 4. Beyond the ends the first and the last frame are
        repeated where the encoder looks there.
        """
        encoded = [np.zeros((0, self.layout.video_width), np.float32)]
        for count, inputs in video_inputs(self.layout, crops, lips):
            encoded.append(self._run("video", inputs, [count, self.layout.video_width]))
        return np.concatenate(encoded)

    def encode_audio(self, mel: MelTrack, ticks: NDArray[np.int64]) -> Floats:
        """The audio windows of consecutive ticks [A] that have one -> [A, E].

        Beyond the ends of the mel its first and last step are repeated where the encoder looks there.
        """
        encoded = [np.zeros((0, self.layout.audio_width), np.float32)]
        for count, inputs in audio_inputs(self.layout, mel, ticks):
            encoded.append(self._run("audio", inputs, [count, self.layout.audio_width]))
        return np.concatenate(encoded)

    def score(self, video: Floats, audio: Floats) -> Floats:
        """Scores [P] of the pairs video [P, D], audio [P, E]: higher = more in sync."""
        size = max(1, _PAIR_NUMBERS // (self.layout.video_width + self.layout.audio_width))
        scores = [np.zeros(0, np.float32)]
        for first in range(0, len(video), size):
            part = slice(first, first + size)
            inputs = {"video": video[part], "audio": audio[part]}
            scores.append(self._run("pair", inputs, [len(video[part])]))
        return np.concatenate(scores)

    def _run(self, graph: str, inputs: Mapping[str, NDArray[Any]], shape: list[int]) -> Floats:
        try:
            beat()
            output: Floats = self._sessions[graph].run(None, dict(inputs))[0]
        except Exception as error:  # ONNX Runtime's errors share no public base class
            raise ModelError(f"{self.name}: its {graph} graph failed: {first_line(error)}") from error
        if list(output.shape) != shape:
            raise ModelError(f"{self.name}: its {graph} graph gave {list(output.shape)}, expected {shape}")
        return output


def video_inputs(
    layout: Layout, crops: NDArray[np.uint8], lips: Floats
) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    """What the video graph is given for crops and lips as of `Student.encode_video`: windows and inputs."""
    windows, r = max(0, len(crops) - spec.WINDOW_FRAMES + 1), layout.reach_frames
    flat = lips.reshape(len(lips), spec.LIP_NUMBERS)
    for first in range(0, windows, layout.chunk_windows):
        count = min(layout.chunk_windows, windows - first)
        frames = np.arange(first - r, first + count + spec.WINDOW_FRAMES - 1 + r)
        rows = frames.clip(0, len(crops) - 1)
        yield count, {"frames": crops[rows].astype(np.float32), "lips": flat[rows]}


def audio_inputs(
    layout: Layout, mel: MelTrack, ticks: NDArray[np.int64]
) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    """What the audio graph is given for the ticks of `Student.encode_audio`: windows and inputs."""
    steps, s = mel.starts(ticks), layout.reach_mel_steps
    for first in range(0, len(steps), layout.chunk_windows):
        part = steps[first : first + layout.chunk_windows]
        rows = np.arange(part[0] - s, part[-1] + spec.WINDOW_MEL_STEPS + s).clip(0, len(mel.mel) - 1)
        yield len(part), {"mel": mel.mel[rows].astype(np.float32), "starts": part - part[0]}


def load_student(
    folder: str | Path | None = None, *, threads: int = 1, precision: Precision = "fp32"
) -> Student:
    """Load a student's folder, the bundled one by default.

    Raises ModelError where a file is missing, is not what `model.json` says, or was made for another
    contract, and where int8 is asked of a student that has no graph in it.
    """
    folder = Path(folder) if folder is not None else DEFAULT_STUDENT
    declared, data = read_contract(folder)
    layout = read_layout(folder, declared)
    entries = graph_entries(folder, declared, precision)
    sessions = {
        graph: open_session(folder / file, threads=threads, inputs=layout.inputs()[graph], sha256=sha256)
        for graph, (file, sha256) in entries.items()
    }
    calibration = read_calibration(declared.get("calibration"), folder / CONTRACT_FILE)
    zero_ms, zero_uncertainty_ms = read_zero(folder, declared)
    if calibration is not None:
        calibration = replace(calibration, zero_uncertainty_ms=zero_uncertainty_ms)
    name, sha256 = name_of(folder, declared), identity_of(data, precision)
    return Student(name, sha256, calibration, layout, sessions, precision=precision, zero_ms=zero_ms)
