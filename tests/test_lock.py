"""The lock file pins all that the tool needs at run time, each with hashes, in versions that are allowed."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PINS = re.findall(
    r"^([\w.-]+)==([\w.]+)([^\n]*\\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
    (ROOT / "requirements.lock").read_text(),
    flags=re.MULTILINE,
)


def test_every_dependency_is_pinned_with_hashes_in_an_allowed_version():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for requirement in map(Requirement, declared):
        versions = [version for name, version, _ in PINS if name == requirement.name]
        assert versions, requirement
        assert all(requirement.specifier.contains(version) for version in versions), requirement


def test_nothing_in_it_is_without_a_hash():
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line]
    assert len([line for line in lines if not line.startswith("#")]) == len(PINS)
