"""What a graph of a stranger may compute with, read from its ONNX file without building it.

Loops take as long, and branches and functions grow as large, as a few bytes of a file say. None of our graphs
has any, so that all that is computed is in proportion to the file and to what is put in.
"""

from collections.abc import Iterator

MOST_NODES = 10_000
_REFUSED = frozenset((b"Loop", b"Scan", b"If", b"SequenceMap"))
_DOMAINS = frozenset((b"", b"ai.onnx", b"com.microsoft"))  # of operators that ONNX Runtime brings
_MODEL_GRAPH, _MODEL_FUNCTIONS, _GRAPH_NODE, _NODE_KIND, _NODE_DOMAIN = 7, 25, 1, 4, 7  # fields in onnx.proto


class OperatorError(ValueError):
    """A graph that is not run; the text says why."""


def refuse_operators(data: bytes) -> None:
    """Raises OperatorError for a graph with loops, branches, functions, foreign operators or too many."""
    nodes = 0
    for field, part in _read_fields(memoryview(data)):
        if field == _MODEL_FUNCTIONS:
            raise OperatorError("has functions of its own")
        if field == _MODEL_GRAPH:
            for name, node in _read_fields(part):
                if name == _GRAPH_NODE:
                    nodes += 1
                    _refuse_operator(node)
    if nodes > MOST_NODES:
        raise OperatorError(f"has {nodes} operators, more than {MOST_NODES}")


def _refuse_operator(node: memoryview) -> None:
    kind = domain = b""
    for name, part in _read_fields(node):
        if name == _NODE_KIND:
            kind = bytes(part)
        elif name == _NODE_DOMAIN:
            domain = bytes(part)
    if kind in _REFUSED or domain not in _DOMAINS:
        raise OperatorError(f"has the operator {kind[:40]!r} of {domain[:40]!r}")


def _read_fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and bytes of each field that has bytes. Raises OperatorError where it is no protocol buffer."""
    place = 0
    while place < len(data):
        key, place = _read_varint(data, place)
        match key & 7:
            case 0:  # a number
                _, place = _read_varint(data, place)
            case 1:
                place += 8
            case 2:  # bytes
                size, place = _read_varint(data, place)
                if size > len(data) - place:
                    raise OperatorError("is cut off")
                yield key >> 3, data[place : place + size]
                place += size
            case 5:
                place += 4
            case _:
                raise OperatorError("is no graph")


def _read_varint(data: memoryview, place: int) -> tuple[int, int]:
    """A number of up to 64 bits, and the place behind it."""
    number = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise OperatorError("is cut off")
        number |= (data[place] & 0x7F) << shift
        place += 1
        if data[place - 1] < 0x80:
            return number, place
    raise OperatorError("is no graph")
