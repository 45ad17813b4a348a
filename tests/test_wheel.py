"""The wheel: what is in it, how large it is, and that it runs alone."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_WHEEL_MB = 20


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_tool_and_its_models_and_no_more(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"avsync_cli"}
    for asset in (
        "face_detector.onnx",
        "face_mesh.onnx",
        "student/model.json",
        "NOTICE",
        "web/page.html",
        "web/page.css",
        "web/page.js",
    ):
        assert f"avsync_cli/assets/{asset}" in names
    assert "avsync_cli/py.typed" in names
    assert wheel.stat().st_size < MAX_WHEEL_MB * 10**6


def read_metadata(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith("METADATA"))
        return archive.read(metadata).decode().splitlines()


def test_the_wheel_tells_the_licences_of_code_and_weights(wheel):
    """The student's too, which is not the code's; README and the model card say the same."""
    lines = read_metadata(wheel)
    assert "License-Expression: Apache-2.0 AND CC-BY-NC-4.0" in lines
    files = {line.removeprefix("License-File: ") for line in lines if line.startswith("License-File: ")}
    assert {"LICENSE", "avsync_cli/assets/LICENSE-STUDENT.txt", "avsync_cli/assets/NOTICE"} == files
    names = zipfile.ZipFile(wheel).namelist()
    assert all(any(name.endswith(f".dist-info/licenses/{file}") for name in names) for file in files)
    for page in ("README.md", "avsync_cli/assets/MODEL_CARD.md"):
        assert "CC BY-NC 4.0" in (ROOT / page).read_text(encoding="utf-8")


def test_the_wheel_does_not_ask_for_torch(wheel):
    required = [line for line in read_metadata(wheel) if line.startswith("Requires-Dist")]
    always = [line for line in required if "extra ==" not in line]
    assert len(always) == 9
    assert not any(word in line for line in always for word in ("torch", "onnx>", "mediapipe", "scipy"))


@pytest.mark.network
def test_the_wheel_runs_alone(wheel, tmp_path, heads):
    venv.create(tmp_path / "alone", with_pip=True)
    scripts = tmp_path / "alone" / "bin"
    subprocess.run([scripts / "pip", "install", "--quiet", wheel], check=True)
    result = subprocess.run(
        [scripts / "avsync", "check", heads[0]], capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode in (0, 1, 3), result.stderr
    assert "head0.mp4: " in result.stdout
    assert result.stderr == ""
