"""What `as_published = true` in a recipe stands for: the published training code's side of every difference.

Each is an option of its own too; one that the recipe sets stays as it is. `docs/reproduce.md` has the table.
"""

from typing import Any

from avsync_cli.errors import ConfigError
from training.tables import merge

SWITCH = "as_published"

_FOR_ALL: dict[str, Any] = {
    "network": {"dropout": "apart"},
    "data": {"negatives": "clip", "mel": "chunk"},
    "optimiser": {"warm_up_by": "epoch"},
    "validation": {"rule": "published"},
}
_RELATIONS = {"direction": "teacher_student", "clamp_va": True}
_BY_METHOD: dict[str, dict[str, Any]] = {
    "KD": {"softmax": "batch"},
    "FitNets": {"weight": 100.0, "hint": "to_student"},
    "NMTD": _RELATIONS,
    "Last-MTD": _RELATIONS,
    "MiniLM": _RELATIONS,
    "MTD": _RELATIONS,
}


def with_published(table: dict[str, Any], *, where: str) -> dict[str, Any]:
    """A recipe's table without the switch, which has put its options into it. Raises ConfigError."""
    rest = {key: value for key, value in table.items() if key != SWITCH}
    switch = table.get(SWITCH, False)
    if not isinstance(switch, bool):
        raise ConfigError(f"{where}: {SWITCH}: must be bool")
    if not switch:
        return rest
    method = table.get("method")
    name = method.get("name") if isinstance(method, dict) else None
    return merge(_FOR_ALL | {"method": _BY_METHOD.get(str(name), {})}, rest)
