"""Every number of the method, each with one name, one home and one unit.

The rates and windows are those of VocaLiST and MTDVocaLiST (arXiv:2210.15563), so that a window
of ours is a window of theirs: 5 video frames at 25 fps against 0.2 s of sound at 16 kHz.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Literal

from avsync_cli.errors import ConfigError

# --- clock -------------------------------------------------------------------------------------
VIDEO_FPS = 25  # frames per second of the grid that every video is resampled to
SAMPLE_RATE_HZ = 16_000
FRAME_MS = 1000 // VIDEO_FPS  # 40 ms
SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // VIDEO_FPS  # 640
if FRAME_MS * VIDEO_FPS != 1000 or SAMPLES_PER_FRAME * VIDEO_FPS != SAMPLE_RATE_HZ:
    raise ValueError("a video frame must last a whole number of milliseconds and of samples")

# --- mel ---------------------------------------------------------------------------------------
N_FFT = 800  # samples; the window is as long
HOP_SAMPLES = 200
MEL_BINS = 80
MEL_MIN_HZ = 55.0
MEL_MAX_HZ = 7600.0
MEL_FLOOR = 1e-5  # amplitude
MEL_REFERENCE_DB = 20.0
MEL_RANGE_DB = 100.0
MEL_LIMIT = 4.0  # features lie in -4..4
MEL_STEPS_PER_SECOND = SAMPLE_RATE_HZ // HOP_SAMPLES  # 80

# --- windows and offsets -----------------------------------------------------------------------
WINDOW_FRAMES = 5
WINDOW_MEL_STEPS = WINDOW_FRAMES * MEL_STEPS_PER_SECOND // VIDEO_FPS  # 16
RANGE_FRAMES = 15  # offsets of -15..15 frames are scanned
MAX_RANGE_FRAMES = 100  # that may be asked for
CANDIDATES = 2 * RANGE_FRAMES + 1  # 31
SAME_OFFSET_FRAMES = 1  # offsets that differ by no more are the same: in scores, in answers and in figures
SOUND_REACH_TICKS = 35  # of sound around pictures that encoders may look at, beyond the offsets
EVERY_S = 10.0  # from one point of the timeline to the next
MIN_EVERY_S = 1.0  # less is too short to be answered from
MIN_NO_MATCH_WINDOWS = 3 * VIDEO_FPS  # of a face that moves with a voice, before it is said to be not its own
MIN_USABLE_FRAMES = VIDEO_FPS  # less than 1 s of one face is too little to answer from
SPEECH_FLOOR_DB = -55.0  # dBFS; below it a frame is silent
MIN_SPEECH_FRAMES = 10  # frames that must not be silent
SPEECH_MIN_SWING_DB = 2.0  # between the 5th and the 95th percentile; hum and tones swing less

# --- mouth crop and lip geometry ---------------------------------------------------------------
CROP_HEIGHT = 48  # rows
CROP_WIDTH = 96  # columns
CROP_WIDTH_EYE_DISTANCES = 1.8  # crop width over the distance between the eye centres (3-D)
SMOOTHING_FRAMES = 7  # Hann window over the landmarks that place the crop
LIP_POINTS = 40
LIP_NUMBERS = 3 * LIP_POINTS  # x, y, z of each point: numbers per frame
LIP_SCALE = 8.0  # brings eye distances to about unit variance
CROP_DEFINITION = "grey-mouth-48x96-eye1.8-hann7"
FACE_CROP_DEFINITION = "rgb-lower-face-48x96-box"  # as the published networks take it
LIPS_DEFINITION = "mediapipe468-lips40-faceframe-trackmean-x8"

# --- faces -------------------------------------------------------------------------------------
MAX_PICTURE_SIDE = 1280  # pixels; larger pictures are scaled down while they are converted,
MAX_WHOLE_SIDE = 1920  # but these, whose scaling would take four times the conversion
DETECT_EVERY_FRAMES = 25  # while faces are tracked
DETECT_EVERY_FRAMES_IDLE = 5  # while there is none
MAX_TRACK_FRAMES = 60 * VIDEO_FPS  # longer tracks are handed on in pieces: bounded memory
MIN_PRESENCE = 0.5  # the mesh's own probability that its input is a face
MAX_HOLD_S = Fraction(1, 2)  # a picture stands for the ticks at most this far from it

# --- long videos -------------------------------------------------------------------------------
WHOLE_S = 32.0  # what is no longer is looked at as a whole
PASSAGE_TICKS = 60  # 2.4 s, looked at in each place of a longer one
MIN_PASSAGES = 3  # with a face and speech that agree, before an answer is taken as final
ENOUGH_CONFIDENCE = 0.99

# --- the artefact ------------------------------------------------------------------------------
ARTEFACT_FORMAT = "avsync-student"
ARTEFACT_VERSION = 3
OLD_ARTEFACT_VERSIONS = (2,)  # these say nothing of zero
MAX_ZERO_MS = 200.0  # what lies further off is a mistake
UNKNOWN_ZERO_MS = 40.0  # of such a student: it may be a frame off
Precision = Literal["fp32", "int8"]  # the student's arithmetic
Wanted = Literal["auto", "fp32", "int8"]  # and what a user may ask for
REPORT_SCHEMA_VERSION = 3
WATCH_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Tolerance:
    """Limits of what counts as in sync, in ms of audio lead: `latest_ms` < 0 < `earliest_ms`."""

    latest_ms: float
    earliest_ms: float

    def contains(self, audio_lead_ms: float) -> bool:
        return self.latest_ms <= audio_lead_ms <= self.earliest_ms


TOLERANCES = MappingProxyType(
    {
        "itu-detect": Tolerance(-125.0, 45.0),  # ITU-R BT.1359-1, detectability
        "itu-accept": Tolerance(-185.0, 90.0),  # ITU-R BT.1359-1, acceptability
        "ebu-r37": Tolerance(-60.0, 40.0),  # EBU R37, end to end
        "atsc-is191": Tolerance(-45.0, 15.0),  # ATSC IS-191, encoder input
        "film": Tolerance(-83.0, 42.0),  # ITU-R BS.1204 practice: one frame early, two late
    }
)
DEFAULT_TOLERANCE = "itu-detect"


def parse_tolerance(value: str | Tolerance) -> Tolerance:
    """Limits as they are written: the name of a preset or how it begins, or numbers of ms.

    "LAG,LEAD" is by how much audio may lag and lead; a lag may be written below 0, as it is in reports. One
    number counts for both. Raises ConfigError.
    """
    if isinstance(value, Tolerance):
        return value
    names = [name for name in TOLERANCES if value and name.startswith(value.lower())]
    if value.lower() in TOLERANCES or len(names) == 1:
        return TOLERANCES[value.lower() if value.lower() in TOLERANCES else names[0]]
    if names:
        raise ConfigError(f"tolerance {value!r}: may be {' or '.join(names)}")
    try:
        numbers = [float(part) for part in value.split(",")]
        lag_ms, lead_ms = numbers * 2 if len(numbers) == 1 else numbers
    except ValueError:
        raise ConfigError(
            f"tolerance {value!r}: neither one of {', '.join(TOLERANCES)} nor LAG,LEAD in ms, such as 60,40"
        ) from None
    if not (0 < abs(lag_ms) < math.inf and 0 < lead_ms < math.inf):
        raise ConfigError(f"tolerance {value!r}: LAG must not be 0 and LEAD be above it, both finite")
    return Tolerance(-abs(lag_ms), lead_ms)
