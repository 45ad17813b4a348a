"""A file that others write to while it is looked at: that is said, and a mixture of two is no answer."""

import os
import shutil
from functools import partial

import pytest

from avsync_cli.check import check_file
from avsync_cli.errors import MediaError
from avsync_cli.fix import FixOptions, fix_file


def grow(path):
    with path.open("ab") as file:
        file.write(bytes(1000))


def cut_off(path):
    os.truncate(path, path.stat().st_size // 2)


def replace(path):
    shutil.copy2(path, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def overwrite(path):
    begin = path.read_bytes()[:100]
    with path.open("r+b") as file:
        file.write(begin)


def check_while(path, deed, engine):
    """Check a file to which something is done after its first second."""
    done = []

    def meddle(looked_at_s, total_s):
        del total_s
        if looked_at_s >= 1 and not done:
            done.append(looked_at_s)
            deed(path)

    try:
        return check_file(path, engine=engine, progress=meddle)
    finally:
        assert done


@pytest.fixture
def path(heads, tmp_path):
    return shutil.copy(heads[160], tmp_path / "head.mp4")


@pytest.mark.parametrize("deed", [cut_off, replace, overwrite])
def test_what_became_another_file_has_no_answer(path, engine, deed):
    with pytest.raises(MediaError, match=r"head\.mp4: .*written to while it was looked at") as caught:
        check_while(path, deed, engine)
    assert caught.value.reason == "changed"


def test_of_what_grew_it_is_said_with_its_answer(path, engine):
    still = check_file(path, engine=engine)
    grown = check_while(path, grow, engine)
    words = "the file grew while it was looked at, and what came is not in this"
    assert grown.message == f"{still.message}; {words}"
    assert (grown.status, grown.audio_lead_ms) == (still.status, still.audio_lead_ms)


def test_what_is_gone_was_read_whole(path, engine):
    still = check_file(path, engine=engine)
    assert check_while(path, os.unlink, engine).message == still.message


def test_no_copy_is_kept_of_what_grew_meanwhile(path, engine):
    checked = []

    def check(file):
        if file != path:  # the copy is there, and is to get its name
            checked.append(file)
            grow(path)
        return check_file(file, engine=engine)

    with pytest.raises(MediaError, match="written to while it was read"):
        fix_file(path, check, FixOptions())
    assert checked
    assert [each.name for each in path.parent.iterdir()] == ["head.mp4"]
    assert fix_file(path, partial(check_file, engine=engine), FixOptions()).status == "fixed"
