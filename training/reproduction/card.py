"""`python -m training card`: a model card from what a run folder holds."""

import json
from pathlib import Path
from typing import Any

from avsync_cli.errors import ConfigError
from training.data.cache import sha256_of
from training.loops.journal import COMMANDS
from training.loops.loop import BEST, CONFIG, LAST
from training.reproduction.against import table
from training.reproduction.runs import METRICS, best_f1
from training.whole_file import whole_file

_HASHES = {
    "cache_manifest_sha256": "the data's manifest, or the index of their shards",
    "teacher_sha256": "the teacher's weights",
    "start_sha256": "the weights that it started from",
}


def write_card(run: Path, path: Path) -> None:
    """Write the card of a run as Markdown, whole or not at all. Raises ConfigError."""
    text = describe_run(run)
    try:
        with whole_file(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error


def describe_run(run: Path) -> str:
    """The card's text: what the network is, its figures, what it is made of, and by which commands."""
    config = _read(run / CONFIG)
    metrics = _read(run / METRICS) if (run / METRICS).exists() else None
    origin = config.pop("origin", {})
    parts = [
        f"# {config.get('name') or run.name}",
        _what_it_is(config, metrics, origin),
        "## Figures",
        *_figures(run, metrics),
        "## Made of",
        _made_of(run, origin),
        "## Commands",
        _commands(run, metrics),
        "## Recipe",
        f"```json\n{json.dumps(config, indent=1)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _what_it_is(config: dict[str, Any], metrics: dict[str, Any] | None, origin: dict[str, Any]) -> str:
    network, method = config.get("network"), config.get("method")
    lines = {
        "network": network.get("preset") if isinstance(network, dict) else network,
        "method": method.get("name") if isinstance(method, dict) else method,
        "experiment": " ".join(str(config.get(key) or "") for key in ("experiment", "label")).strip(),
        "parameters": f"{metrics['parameters']:,}" if metrics and "parameters" in metrics else None,
        "seed": config.get("seed"),
        "steps of the weights that were measured": metrics.get("steps") if metrics else None,
        "crops": origin.get("crop"),
    }
    return "\n".join(f"- {name}: {value}" for name, value in lines.items() if value not in (None, ""))


def _figures(run: Path, metrics: dict[str, Any] | None) -> list[str]:
    best = best_f1(run / "val.csv") if (run / "val.csv").exists() else None
    parts = [] if best is None else [f"Best F1 on the validation pairs: {best:.4f}."]
    if metrics is None or not metrics.get("protocol"):
        return [*parts, "Not measured by the protocol; `python -m training evaluate` does it."]
    names = list(dict.fromkeys(name for row in metrics["protocol"] for name in row["percent"]))
    heads = tuple("whole clip" if name == "clip" else f"K={name}" for name in names)
    rows = [
        [row["group"], str(row["clips"]), *(_percent(row["percent"].get(name)) for name in names)]
        for row in metrics["protocol"]
    ]
    said = f"Percent right by the paper's protocol, split `{metrics.get('split')}`:"
    return [*parts, said, table(("group", "clips", *heads), rows)]


def _made_of(run: Path, origin: dict[str, Any]) -> str:
    lines = [f"- commit of the code: `{origin.get('commit', 'unknown')}`"]
    lines += [f"- SHA-256 of {what}: `{origin[key]}`" for key, what in _HASHES.items() if origin.get(key)]
    lines += [
        f"- SHA-256 of `{name}`: `{sha256_of(run / name)}`" for name in (BEST, LAST) if (run / name).exists()
    ]
    return "\n".join(lines)


def _commands(run: Path, metrics: dict[str, Any] | None) -> str:
    lines = (run / COMMANDS).read_text(encoding="utf-8").splitlines() if (run / COMMANDS).exists() else []
    if metrics is not None and metrics.get("command"):
        lines.append(f"python -m training {metrics['command']}")
    return "```console\n" + "".join(f"$ {line}\n" for line in dict.fromkeys(lines)) + "```"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path.parent}: has no {path.name}; is it a run folder?") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must hold a table")
    return content
