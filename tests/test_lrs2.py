"""LRS2 as it is released and as it is prepared by others: what is read, what is refused, what is reported."""

import json
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from talking import write_talking_head
from toy_lrs2 import write_toy
from typer.testing import CliRunner

from avsync_cli.errors import ConfigError
from avsync_cli.faces import FaceModels
from avsync_cli.mel import mel_spectrogram
from training.__main__ import app
from training.config import MatchConfig
from training.data.cache import GREY, PUBLISHED, PUBLISHED_OWN_BOXES, open_cache, read_crop, read_manifest
from training.data.clips import load_clips
from training.data.facecrops import longest_run, read_face_folder
from training.data.lrs2 import read_lists
from training.data.prepare import crop_kind, run_task
from training.loops.match import train

SPEAKER = "6330311066473698535"


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """ROOT/main and ROOT/pretrain with two videos that show a face, one damaged, and the lists."""
    root = tmp_path_factory.mktemp("lrs2")
    for folder in ("main", "pretrain"):
        (root / folder / SPEAKER).mkdir(parents=True)
    head = write_talking_head(root / "main" / SPEAKER / "00001.mp4", seconds=1.2, side=160)
    (root / "pretrain" / SPEAKER / "00001.mp4").write_bytes(head.read_bytes())
    (root / "main" / SPEAKER / "00002.mp4").write_bytes(b"nothing")
    (root / "train.txt").write_text(f"{SPEAKER}/00002\n\n{SPEAKER}/00003\n")
    (root / "pretrain.txt").write_text(f"{SPEAKER}/00001\n")
    (root / "test.txt").write_text(f"{SPEAKER}/00001 NF\n")
    return root


def colour_of(number):
    """A colour that tells the frame, by its red, and the order of the channels."""
    return np.array([10 + 8 * number, 128, 40])


@pytest.fixture
def prepared(tmp_path):
    """ROOT/SPEAKER/CLIP of faces of many sizes, of which frames 0, 1 and 15 have none, and their sound."""
    folder = tmp_path / "prepared" / SPEAKER / "00007"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in set(range(25)) - {0, 1, 15}:
        face = np.full((*rng.integers(60, 140, 2), 3), 255.0)
        face[len(face) // 2 :] = colour_of(number)
        bgr = face[:, :, ::-1].astype(np.uint8)
        cv2.imwrite(str(folder / f"{number}.jpg"), bgr, [cv2.IMWRITE_JPEG_QUALITY, 100])
    samples = 0.3 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000) * np.linspace(0, 1, 16_000)
    soundfile.write(folder / "audio.wav", samples, 16_000, subtype="FLOAT")
    (tmp_path / "prepared" / "val.txt").write_text(f"{SPEAKER}/00007\n")
    return tmp_path / "prepared"


def command(*words):
    return CliRunner().invoke(app, ["prepare", *map(str, words), "--layout", "lrs2", "--jobs", "1"])


def resized(face):
    """The crop [48, 96, 3] of a face [H, W, 3], by torch."""
    picture = torch.from_numpy(face.copy()).permute(2, 0, 1)[None].float()
    whole = F.interpolate(picture, (96, 96), mode="bilinear", align_corners=False, antialias=False)
    return whole[0, :, 48:].permute(1, 2, 0).numpy()


def test_lists_say_where_a_clip_lies_and_for_what(released):
    lists = [released / name for name in ("train.txt", "pretrain.txt", "test.txt")]
    tasks = {task.entry.file: task.entry for task in read_lists(released, lists)}
    found = {file: (entry.split, entry.reason) for file, entry in tasks.items()}
    assert found == {
        f"main/{SPEAKER}/00002.mp4": ("train", None),
        f"main/{SPEAKER}/00003": ("train", "train.txt, line 3: no such video or folder"),
        f"pretrain/{SPEAKER}/00001.mp4": ("train", None),
        f"main/{SPEAKER}/00001.mp4": ("test", None),
    }
    assert {(entry.domain, entry.source, entry.lead_frames) for entry in tasks.values()} == {
        ("lrs2", "lrs2", 0.0)
    }


@pytest.mark.slow
def test_the_toy_is_laid_out_as_the_release(tmp_path):
    root = write_toy(tmp_path, seconds=0.4)
    tasks = read_lists(root, [root / f"{name}.txt" for name in ("pretrain", "val", "test")])
    assert [task.entry.split for task in tasks] == ["train"] * 12 + ["val"] * 2 + ["test"] * 2
    assert not any(task.entry.reason for task in tasks)
    assert len({task.path.read_bytes() for task in tasks}) == 16


def test_lists_that_cannot_be_used_are_refused(released, tmp_path):
    def read(name, text):
        (tmp_path / name).write_text(text)
        return read_lists(released, [released / "test.txt", tmp_path / name])

    with pytest.raises(ConfigError, match="another split"):
        read("val.txt", f"{SPEAKER}/00001\n")
    for line in ("../../etc/passwd", "/etc/passwd", "one", "a/b/c", "../x"):
        with pytest.raises(ConfigError, match=r"line 2: .* is not SPEAKER/CLIP"):
            read("val.txt", f"{SPEAKER}/00009\n{line}\n")
    with pytest.raises(ConfigError, match="must begin with"):
        read("clips.txt", "")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_lists(released, [tmp_path / "train.txt"])


def test_one_file_is_not_taken_for_the_clips_of_two_folders(tmp_path):
    (tmp_path / SPEAKER).mkdir()
    (tmp_path / SPEAKER / "00001.mp4").write_bytes(b"one")
    for name in ("pretrain.txt", "train.txt"):
        (tmp_path / name).write_text(f"{SPEAKER}/00001\n")
    lists = [Path("pretrain.txt"), Path("train.txt")]
    with pytest.raises(ConfigError, match=r"train.txt, line 1: .* of main and pretrain would be one "):
        read_lists(tmp_path, lists)
    (tmp_path / "main" / SPEAKER).mkdir(parents=True)
    (tmp_path / "main" / SPEAKER / "00001.mp4").write_bytes(b"another")
    files = [task.entry.file for task in read_lists(tmp_path, lists)]
    assert files == [f"{SPEAKER}/00001.mp4", f"main/{SPEAKER}/00001.mp4"]
    # Two lists of one folder may share a clip.
    (tmp_path / "train-more.txt").write_text(f"{SPEAKER}/00001\n")
    assert len(read_lists(tmp_path, [Path("train.txt"), Path("train-more.txt")])) == 1


def test_faces_that_were_cut_out_come_before_the_video(tmp_path):
    for folder in ("main", "."):
        (tmp_path / folder / SPEAKER).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / SPEAKER / "00001.mp4").write_bytes(b"")
    (tmp_path / "val.txt").write_text(f"{SPEAKER}/00001\n")
    for folder in (".", "main"):
        faces = tmp_path / folder / SPEAKER / "00001"
        faces.mkdir()
        assert [task.path for task in read_lists(tmp_path, [Path("val.txt")])] == [faces]


def test_a_bare_name_is_a_list_of_the_root(released, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("test.txt").write_text(f"{SPEAKER}/00009\n")
    Path("val.txt").write_text(f"{SPEAKER}/00002\n")
    (Path("lists")).mkdir()
    Path("lists/train.txt").write_text(f"{SPEAKER}/00008\n")

    def clips(name):
        return [task.path.stem for task in read_lists(released, [Path(name)])]

    assert clips("test.txt") == ["00001"]
    assert clips("val.txt") == ["00002"]  # which the root has not
    assert clips("lists/train.txt") == ["00008"]


def test_the_release_becomes_a_cache_of_what_can_be_read(released, tmp_path):
    lists = [word for name in ("train", "pretrain", "test") for word in ("--list", f"{name}.txt")]
    result = command(released, "-o", tmp_path / "cache", *lists)
    assert result.exit_code == 0, result.output
    assert "2 clips, 0.0 minutes; 2 left out" in result.output
    assert "train: 1 clips, 0.0 minutes; 2 left out" in result.output
    assert read_crop(tmp_path / "cache") == GREY
    reasons = [entry.reason for entry in read_manifest(tmp_path / "cache")]
    assert [reason is None for reason in reasons] == [True, False, False, True]
    clip = load_clips(tmp_path / "cache", split="test")[0]
    assert clip.crops.shape == (30, 48, 96)
    assert clip.lips.any()
    assert clip.windows == 26
    openings = clip.lips[:, 20:, 1].astype(float).std(axis=1)
    loudness = clip.mel.mel[np.arange(30) * 80 // 25].mean(axis=1)
    assert np.corrcoef(openings, loudness)[0, 1] > 0.3


def test_faces_of_others_keep_their_frames_and_colours(prepared, tmp_path):
    result = command(prepared, "-o", tmp_path / "cache", "--list", "val.txt")
    assert result.exit_code == 0, result.output
    assert read_crop(tmp_path / "cache") == PUBLISHED
    [clip] = load_clips(tmp_path / "cache", split="val")
    assert (clip.first_tick, clip.crops.shape, clip.crops.dtype) == (2, (13, 48, 96, 3), np.uint8)
    assert not clip.lips.any()
    for number, crop in enumerate(clip.crops, 2):
        # Below the line between the halves, every pixel is of the lower half's colour.
        assert np.abs(crop[4:].astype(int) - colour_of(number)).max() <= 6
        jpg = cv2.imread(str(prepared / SPEAKER / "00007" / f"{number}.jpg"))[:, :, ::-1]
        assert np.abs(crop - resized(jpg)).max() <= 1
    samples, _ = soundfile.read(prepared / SPEAKER / "00007" / "audio.wav", dtype="float32")
    assert np.allclose(clip.mel.mel, mel_spectrogram(samples), atol=4e-3)
    assert clip.run == (2, 11)


def test_videos_can_give_colour_crops_too(released, tmp_path):
    task = read_lists(released, [released / "test.txt"])[0]
    cache = tmp_path / "cache"
    open_cache(cache.mkdir() or cache, crop=PUBLISHED_OWN_BOXES)
    entry = run_task(task, cache, crop_kind([task], wanted="published"))
    assert (entry.frames, entry.reason) == (30, None)
    with np.load(cache / f"{entry.file}.video.npz") as part:
        crops = part["crops"]
    models = FaceModels()
    with av.open(str(task.path)) as container:
        for crop, frame in zip(crops, container.decode(video=0), strict=True):
            picture = frame.to_ndarray(format="rgb24")
            x0, y0, x1, y1 = models.detect(picture)[0].box.astype(int)
            assert np.abs(crop - resized(picture[y0:y1, x0:x1])).mean() < 1.5


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda folder: (folder / "audio.wav").unlink(), "audio.wav"),
        (lambda folder: (folder / "audio.wav").write_bytes(b"RIFF"), "audio.wav"),
        (lambda folder: (folder / "5.jpg").write_bytes(b"nothing"), "5.jpg: not a picture"),
        (lambda folder: (folder / "5.jpg").write_bytes(b""), "5.jpg: not a picture"),
        (lambda folder: [(folder / f"{n}.jpg").unlink() for n in (6, 10, 19, 22)], "no face in 5 frames"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], "no face in 5 frames"),
    ],
)
def test_a_damaged_folder_is_left_out_with_a_reason(prepared, tmp_path, harm, reason):
    harm(prepared / SPEAKER / "00007")
    task = read_lists(prepared, [prepared / "val.txt"])[0]
    assert reason in run_task(task, tmp_path, PUBLISHED).reason


def test_kinds_of_crops_are_not_mixed(released, prepared, tmp_path):
    video = read_lists(released, [released / "test.txt"])[0]
    folder = read_lists(prepared, [prepared / "val.txt"])[0]
    missing = replace(folder, entry=replace(folder.entry, reason="not there"))
    assert crop_kind([video], wanted=None) == crop_kind([video], wanted="grey") == GREY
    assert crop_kind([folder], wanted=None) == crop_kind([folder], wanted="published") == PUBLISHED
    assert crop_kind([video, missing], wanted="published") == PUBLISHED_OWN_BOXES
    with pytest.raises(ConfigError, match="two caches"):
        crop_kind([video, folder], wanted=None)
    with pytest.raises(ConfigError, match="leave out --crop grey"):
        crop_kind([folder], wanted="grey")
    open_cache(tmp_path, crop=PUBLISHED)
    with pytest.raises(ConfigError, match="holds published crops, not grey ones"):
        open_cache(tmp_path)


def test_matching_refuses_colour(prepared, tmp_path):
    command(prepared, "-o", tmp_path / "cache", "--list", "val.txt")
    with pytest.raises(ConfigError, match="RGB faces"):
        train(MatchConfig(cache=str(tmp_path / "cache"), steps=1), tmp_path / "run")


def test_caches_from_before_there_were_kinds_hold_grey_crops(tmp_path):
    open_cache(tmp_path)
    content = json.loads((tmp_path / "manifest.json").read_text())
    del content["crop"]
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    assert (read_crop(tmp_path), read_manifest(tmp_path)) == (GREY, [])


def test_options_of_the_other_layout_are_refused(released, tmp_path):
    runner = CliRunner()
    for words in (["--list", "train.txt"], ["--layout", "lrs2"]):
        result = runner.invoke(app, ["prepare", str(released), "-o", str(tmp_path), *words])
        assert isinstance(result.exception, ConfigError)


def test_the_longest_run_is_the_first_of_the_longest():
    assert longest_run([0, 1, 2, 3, 4]) == (0, 5)
    assert longest_run([3, 4, 9, 10, 11, 12, 13, 20, 21, 22, 23, 24]) == (9, 5)
    with pytest.raises(ValueError, match="5 frames in a row"):
        longest_run([0, 1, 2, 3, 5, 6, 7, 8])


def test_other_files_of_a_folder_do_not_count(prepared):
    folder = prepared / SPEAKER / "00007"
    (folder / "cover.jpg").write_bytes(b"nothing")
    assert read_face_folder(folder).first_tick == 2


def test_numbers_of_faces_may_begin_with_zeros(prepared):
    folder = prepared / SPEAKER / "00007"
    expected = read_face_folder(folder)
    for path in sorted(folder.glob("*.jpg")):
        path.rename(folder / f"{int(path.stem):05d}.jpg")
    found = read_face_folder(folder)
    assert found.first_tick == expected.first_tick
    np.testing.assert_array_equal(found.crops, expected.crops)
    (folder / "7.jpg").write_bytes((folder / "00007.jpg").read_bytes())
    with pytest.raises(ValueError, match=r"00007.jpg and 7.jpg are the same frame"):
        read_face_folder(folder)
