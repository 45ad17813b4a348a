"""Zero from lips and sound whose delay is known by construction, and how a student's zero is applied."""

import json
import shutil

import numpy as np
import pytest

from avsync_cli.contract import DEFAULT_STUDENT, read_contract, read_zero
from avsync_cli.errors import ConfigError, ModelError
from avsync_cli.mel import mel_track
from avsync_cli.model import load_student
from avsync_cli.sound import Sound
from avsync_cli.spec import SAMPLE_RATE_HZ, UNKNOWN_ZERO_MS
from training.evaluation.zero import (
    EXPECTED_MS,
    Delay,
    Measured,
    Zero,
    find_closures,
    gather_events,
    join_anchors,
    measure_delays,
    write_zero,
)


def mouth(closures_ms, *, seconds, fps=25):
    """How far lips are apart at every picture: 1, but shut within the closures, with ramps of 40 ms."""
    times_ms = np.arange(round(seconds * fps)) * 1000 / fps
    opening = np.full(len(times_ms), 2.0)
    for shut_ms, open_ms in closures_ms:
        ramp = np.minimum(np.abs(times_ms - shut_ms), np.abs(times_ms - open_ms)) / 40
        inside = (times_ms >= shut_ms) & (times_ms <= open_ms)
        opening = np.where(inside, 0.0, np.minimum(opening, 2.0 * np.minimum(1.0, ramp)))
    return opening


def voice(closures_ms, *, seconds, delay_ms, rng):
    """Noise that is quiet within the closures, so much later."""
    samples = 0.1 * rng.standard_normal(round(seconds * SAMPLE_RATE_HZ))
    times_ms = np.arange(len(samples)) * 1000 / SAMPLE_RATE_HZ - delay_ms
    for shut_ms, open_ms in closures_ms:
        samples[(times_ms >= shut_ms) & (times_ms < open_ms)] *= 0.01
    return samples.astype(np.float32)


def test_closures_are_found_where_they_were_made_to_a_fraction_of_a_picture():
    made = [(500.0, 590.0), (1203.0, 1311.0), (2011.0, 2087.0)]
    found = find_closures(mouth(made, seconds=3), first_tick=0)
    assert len(found) == len(made)
    for closure, (shut_ms, open_ms) in zip(found, made, strict=True):
        # The crossing lies a little outside, where the lips are 15 % open: 6 ms of a ramp of 40 ms, and the
        # ramp is seen at 25 pictures a second.
        assert closure.shut_ms == pytest.approx(shut_ms, abs=25)
        assert closure.open_ms == pytest.approx(open_ms, abs=25)
    moved = find_closures(mouth(made, seconds=3), first_tick=10)
    assert moved[0].shut_ms == pytest.approx(found[0].shut_ms + 400)


def test_a_mouth_that_stays_shut_or_hardly_moves_has_no_closures():
    assert find_closures(mouth([(500, 1500)], seconds=3), 0) == []
    assert find_closures(0.1 * mouth([(500, 590)], seconds=3), 0) == []
    assert find_closures(np.zeros(0), 0) == []


@pytest.mark.parametrize("delay_ms", [-30.0, 0.0, 55.0])
def test_the_delay_of_the_sound_behind_the_lips_is_measured(delay_ms):
    """Whatever lead the student gives, what is left behind its alignment is measured."""
    rng = np.random.default_rng(3)
    clips = []
    for number in range(30):
        times = np.cumsum(rng.uniform(550, 800, 10))
        made = [(time, time + rng.uniform(60, 120)) for time in times]
        seconds, lead_ms = 9.0, float(rng.uniform(-100, 100))
        # The audio leads by `lead_ms` and lags behind the aligned lips by `delay_ms`.
        samples = voice(made, seconds=seconds, delay_ms=delay_ms - lead_ms, rng=rng)
        opening = mouth(made, seconds=seconds)
        clips.append(gather_events(opening, 0, Sound(samples, 0), lead_ms, f"source {number % 2}"))
    everything, *sources = measure_delays(clips)
    assert everything.group == "all"
    assert everything.clips == 30
    assert everything.events > 150
    assert everything.rise_ms == pytest.approx(delay_ms, abs=10)
    assert everything.fall_ms == pytest.approx(delay_ms, abs=10)
    assert everything.low_ms <= everything.mean_ms <= everything.high_ms
    assert [each.group for each in sources] == ["source 0", "source 1"]


def test_closures_outside_speech_do_not_count():
    rng = np.random.default_rng(0)
    made = [(1500.0, 1600.0), (4500.0, 4600.0)]
    samples = voice(made, seconds=6, delay_ms=0, rng=rng)
    samples[4 * SAMPLE_RATE_HZ :] *= 0.001  # nobody speaks any more
    assert gather_events(mouth(made, seconds=6), 0, Sound(samples, 0), 0.0, "s").events == 1


def measured(*, mean_ms=None, medians=()):
    delays = (
        [] if mean_ms is None else [Delay("all", 9, 90, mean_ms + 5, mean_ms - 5, mean_ms - 4, mean_ms + 4)]
    )
    return Measured(delays, {str(place): (value, 9) for place, value in enumerate(medians)})


def test_anchors_are_joined_by_their_errors():
    lips = join_anchors(measured(mean_ms=57.5))
    assert lips.zero_ms == pytest.approx(57.5 - EXPECTED_MS)
    copies = join_anchors(measured(medians=[20.0, 30.0, 500.0]))
    assert copies.zero_ms == pytest.approx(30.0)
    both = join_anchors(measured(mean_ms=57.5, medians=[30.0]))
    assert 30.0 < both.zero_ms < 40.0
    assert both.uncertainty_ms < copies.uncertainty_ms
    with pytest.raises(ConfigError, match="where zero is"):
        join_anchors(measured())


@pytest.fixture
def student_folder(tmp_path):
    return shutil.copytree(DEFAULT_STUDENT, tmp_path / "student")


def test_a_written_zero_moves_what_the_student_says(student_folder):
    written = write_zero(student_folder, Zero(38.0, 6.0, None, None), before_ms=0.0)
    assert written == 37.5  # a multiple of 2.5 ms, by which windows can be moved
    student = load_student(student_folder)
    assert student.zero_ms == 37.5
    assert student.calibration.zero_uncertainty_ms == pytest.approx(9.9)
    assert write_zero(student_folder, Zero(-2.0, 6.0, None, None), before_ms=37.5) == 35.0


def test_an_uncertain_zero_widens_every_answer(student_folder):
    write_zero(student_folder, Zero(0.0, 0.0, None, None), before_ms=0.0)
    sure = load_student(student_folder).calibration
    write_zero(student_folder, Zero(0.0, 30.0, None, None), before_ms=0.0)
    unsure = load_student(student_folder).calibration
    assert unsure.uncertainty_ms(50) == pytest.approx(np.hypot(sure.uncertainty_ms(50), 1.645 * 30), abs=0.1)


@pytest.mark.parametrize("bad", ["38", None, float("inf"), 1e6, True])
def test_a_zero_that_is_no_number_is_refused(student_folder, bad):
    path = student_folder / "model.json"
    declared = json.loads(path.read_text()) | {"version": 3, "zero_ms": bad, "zero_uncertainty_ms": 5.0}
    path.write_text(json.dumps(declared))
    with pytest.raises(ModelError, match="zero_ms"):
        load_student(student_folder)


def test_a_student_of_the_version_before_has_an_unknown_zero(student_folder):
    path = student_folder / "model.json"
    declared = json.loads(path.read_text()) | {"version": 2}
    path.write_text(json.dumps({key: value for key, value in declared.items() if "zero" not in key}))
    assert read_zero(student_folder, read_contract(student_folder)[0]) == (0.0, UNKNOWN_ZERO_MS)
    assert load_student(student_folder).zero_ms == 0.0


@pytest.mark.parametrize("delay_ms", [0.0, 40.0, 37.5, 2.5, -40.0, -15.0])
def test_a_delayed_mel_is_that_of_sound_placed_so_much_later(delay_ms):
    """Against the same samples with another place in time: windows begin within one fifth of a mel step."""
    rng = np.random.default_rng(1)
    sound = Sound(rng.standard_normal(2 * SAMPLE_RATE_HZ).astype(np.float32), 5 * 640)
    moved = Sound(sound.samples, sound.first_sample + round(delay_ms * SAMPLE_RATE_HZ / 1000))
    ours, theirs = mel_track(sound).delayed(delay_ms), mel_track(moved)
    assert abs(ours.first_tick - theirs.first_tick) <= 1
    common = np.intersect1d(ours.all_ticks, theirs.all_ticks)
    assert len(common) >= theirs.ticks - 2
    begins = [
        (track.starts(common) + 3.2 * track.origin_tick) * 12.5 + track.delay_ms for track in (ours, theirs)
    ]
    assert np.abs(begins[0] - begins[1]).max() <= 12.5
    assert np.mean(begins[0] - begins[1]) == pytest.approx(0.0, abs=2.6)
    if delay_ms == 40.0:  # a whole frame: exactly the windows of the frame before
        assert np.array_equal(ours.starts(common), mel_track(sound).starts(common - 1))
