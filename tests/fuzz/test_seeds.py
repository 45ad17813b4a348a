"""Seeds of the fuzzers again, in processes apart: each is read, or refused in one line."""

import subprocess
import sys
from pathlib import Path

import pytest
from texts import READERS, original

HERE = Path(__file__).parent


def run_seeds(program: str, count: int, first: int = 0) -> str:
    command = [sys.executable, str(HERE / program), str(count), str(first)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "wrong: []" in ran.stdout
    assert "'read'" in ran.stdout
    return ran.stdout


@pytest.mark.parametrize("count", [20, pytest.param(500, marks=[pytest.mark.slow, pytest.mark.repeats])])
def test_mutated_media_end_in_an_answer_or_an_error(count):
    assert "'MediaError'" in run_seeds("mutate.py", count)


@pytest.mark.parametrize("count", [500, pytest.param(4_000, marks=[pytest.mark.slow, pytest.mark.repeats])])
def test_mutated_texts_are_read_or_refused(count):
    ends = run_seeds("texts.py", count)
    assert "'ConfigError'" in ends
    assert "'ModelError'" in ends


@pytest.mark.parametrize("name", READERS)
def test_what_is_mutated_can_be_read_before(name, tmp_path):
    READERS[name][1](original(name), tmp_path)
