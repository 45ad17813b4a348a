"""A student's folder is replaced whole or not at all, whatever the system refuses."""

import pytest
from students import write_student
from typer.testing import CliRunner

from avsync_cli.errors import ConfigError
from avsync_cli.model import load_student
from export.__main__ import app
from export.student import made_whole
from training.whole_file import write_contract


def test_a_folder_that_cannot_be_replaced_is_put_back(tmp_path):
    folder = write_student(tmp_path / "student")
    with pytest.raises(ConfigError, match="No such file"), made_whole(folder) as made:
        made.rmdir()  # so that the old folder can be moved away, and nothing moved in
    assert load_student(folder).name == "lips-and-loudness"
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


@pytest.mark.parametrize("place", ["file", "file/student"])
def test_a_file_in_the_way_is_refused(tmp_path, place):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ConfigError, match=place), made_whole(tmp_path / place) as made:
        (made / "model.json").touch()
    assert (tmp_path / "file").read_text() == "precious"


def test_the_folder_one_stands_in_is_replaced(tmp_path, monkeypatch):
    folder = write_student(tmp_path / "student")
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(app, ["quantize", ".", "--storage", "fp16"])
    assert result.exit_code == 0, result.output
    assert f"{folder / 'model.json'}  " in result.output.replace("\n", "  ")
    assert "known_answer" in (folder / "model.json").read_text()


def test_model_json_is_replaced_and_not_written_over(tmp_path):
    path = write_student(tmp_path / "student") / "model.json"
    before = path.read_text()
    with path.open() as held:  # the old file, as an interrupted write would leave it
        write_contract(path.parent, {"name": "new"})
        assert held.read() == before
    assert path.read_text() == '{\n "name": "new"\n}\n'
    assert not path.with_suffix(".part").exists()
