"""JSON Schema of what is printed and written, made from the dataclasses that it is made of.

`python -m avsync_cli.schema` writes the files of `avsync_cli/assets/schema`, which a test compares.
"""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from avsync_cli.batch.records import FailureReason
from avsync_cli.fix import Fix
from avsync_cli.report import NOT_WRITTEN, ModelId, Reason, Report
from avsync_cli.spec import REPORT_SCHEMA_VERSION

Schema = dict[str, Any]

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_PLAIN: Mapping[Any, str] = MappingProxyType(
    {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}
)


def report_schema() -> Schema:
    """The schema of an object of `avsync check --json`."""
    return _document("check --json", _schema_of(Report))


def result_schema() -> Schema:
    """The schema of a line of the results of `avsync scan`."""
    schema = _schema_of(Report)
    own = {
        "path": {"type": "string"},
        "size": {"type": ["integer", "null"]},
        "mtime": {"type": ["number", "null"]},
    }
    reasons = {*get_args(Reason), *get_args(FailureReason)}
    schema["properties"]["reason"] = {"enum": [*sorted(reasons), None]}
    schema["properties"]["model"] = _schema_of(ModelId)
    schema["properties"] |= own
    schema["required"] += own
    return _document("a line of the results of scan", schema)


def fix_schema() -> Schema:
    """The schema of the object of `avsync fix --json`."""
    return _document("fix --json", _schema_of(Fix))


def read_schema(name: Literal["report", "result", "fix"]) -> Schema:
    """The schema as it is published."""
    text = files("avsync_cli").joinpath(f"assets/schema/{name}.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def write_schemas(folder: Path) -> None:
    schemas = {"report": report_schema(), "result": result_schema(), "fix": fix_schema()}
    for name, schema in schemas.items():
        (folder / f"{name}.json").write_text(json.dumps(schema, indent=1) + "\n", encoding="utf-8")


def _document(title: str, schema: Schema) -> Schema:
    definitions: Schema = {}
    _collect(schema, definitions)
    schema.pop("$name")
    return {"$schema": _DRAFT, "title": f"avsync {title}", **schema, "$defs": definitions}


def _collect(schema: Any, definitions: Schema) -> None:  # noqa: ANN401 - any part of a schema
    """Move the dataclasses inside a schema to its definitions."""
    parts = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    for part in list(parts):
        _collect(part, definitions)
        name = part.pop("$name", None) if isinstance(part, dict) else None
        if name is not None:
            definitions[name] = dict(part)
            part.clear()
            part["$ref"] = f"#/$defs/{name}"


def _schema_of(kind: Any) -> Schema:  # noqa: ANN401 - any type of a field
    """The schema of the values of a type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, UnionType):
        return _union_schema(arguments)
    if origin is list or (origin is tuple and arguments[-1] is ...):
        return {"type": "array", "items": _schema_of(arguments[0])}
    if origin is tuple:
        items = [_schema_of(each) for each in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if is_dataclass(kind) and isinstance(kind, type):
        return _fields_schema(kind)
    raise TypeError(f"{kind}: has no schema")


def _union_schema(kinds: tuple[Any, ...]) -> Schema:
    schemas = [_schema_of(kind) for kind in kinds]
    if all(schema.keys() == {"type"} for schema in schemas):
        return {"type": [schema["type"] for schema in schemas]}
    if all(schema.keys() <= {"type", "enum"} and schema.get("type", "null") == "null" for schema in schemas):
        return {"enum": [value for schema in schemas for value in schema.get("enum", [None])]}
    return {"anyOf": schemas}


def _fields_schema(kind: type) -> Schema:
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind) if kind is not Report or field.name not in NOT_WRITTEN]
    version = {"schema_version": {"const": REPORT_SCHEMA_VERSION}} if kind in (Report, Fix) else {}
    properties = version | {name: _schema_of(hints[name]) for name in names}
    return {
        "$name": kind.__name__,
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


if __name__ == "__main__":
    write_schemas(Path(__file__).parent / "assets" / "schema")
