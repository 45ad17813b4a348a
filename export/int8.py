"""Graphs in 8 bits: encoders with calibrated scales, pair scorers with scales made as they run.

Weights take 7 of their 8 bits. On x86 CPUs without dot-product instructions two products of full 8-bit
numbers are added up in 16 bits and cut off there without notice: the numbers would depend on the CPU.
"""

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from export.stretches import Inputs

Method = Literal["percentile", "entropy", "minmax"]
METHODS: dict[Method, CalibrationMethod] = {
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
    "minmax": CalibrationMethod.MinMax,
}
_PRODUCTS = ("MatMul", "Gemm")


def has_convolutions(path: Path) -> bool:
    return any(node.op_type == "Conv" for node in onnx.load(path).graph.node)


def has_products(path: Path) -> bool:
    """Whether a graph multiplies matrices: that of a cross-modal student does, a dot product does not."""
    return any(node.op_type in _PRODUCTS for node in onnx.load(path).graph.node)


def quantize_encoder(path: Path, inputs: list[Inputs], *, method: Method) -> onnx.ModelProto:
    """A graph whose convolutions and products with constants run in int8: u8 activations and s8 weights by
    channel, QDQ.

    Ranges of activations are those of the given inputs, by the method. Convolutions of 1 x 1 stay as they
    are: in the published networks they are the last, and tokens whose channel 0 is 0 lose their position.
    """
    with _quiet(), tempfile.TemporaryDirectory() as scratch:
        prepared, made = Path(scratch) / "prepared.onnx", Path(scratch) / "int8.onnx"
        _prepare(path, prepared)
        quantize_static(
            prepared,
            made,
            _Reader(inputs),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", *_PRODUCTS],
            nodes_to_exclude=_single_places(prepared),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=METHODS[method],
            # One input at a time: all outputs of all of them would fill gigabytes.
            extra_options={"CalibTensorRangeSymmetric": False, "CalibStridedMinMax": 1},
        )
        return _trimmed(onnx.load(made))


def quantize_products(path: Path) -> onnx.ModelProto:
    """A graph whose products with constant matrices run in int8, with scales made from each input."""
    with _quiet(), tempfile.TemporaryDirectory() as scratch:
        prepared, made = Path(scratch) / "prepared.onnx", Path(scratch) / "int8.onnx"
        _prepare(path, prepared)
        model = onnx.load(prepared)
        del model.graph.value_info[:]  # of matrices that are about to be transposed, too
        onnx.save(model, prepared)
        quantize_dynamic(
            prepared,
            made,
            op_types_to_quantize=list(_PRODUCTS),
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
        return _trimmed(onnx.load(made))


def _prepare(path: Path, prepared: Path) -> None:
    """Constants folded and shapes inferred, and nothing that ties the graph to one CPU."""
    # The symbolic inference knows fewer operators than ONNX's own and fails at some of ours.
    quant_pre_process(path, prepared, skip_symbolic_shape=True)


def _trimmed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the operator sets that ONNX Runtime declares whether they are used or not."""
    used = [
        entry for entry in model.opset_import if entry.domain in {node.domain for node in model.graph.node}
    ]
    declared = [onnx.helper.make_opsetid(entry.domain, entry.version) for entry in used]
    del model.opset_import[:]
    model.opset_import.extend(declared)
    return model


def _single_places(path: Path) -> list[str]:
    """The names of the convolutions whose kernel is 1 x 1."""
    graph = onnx.load(path).graph
    sizes = {weights.name: list(weights.dims)[2:] for weights in graph.initializer}
    return [n.name for n in graph.node if n.op_type == "Conv" and set(sizes[n.input[1]]) == {1}]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands ONNX Runtime the inputs to calibrate on."""

    def __init__(self, inputs: list[Inputs]) -> None:
        self._inputs = inputs
        self._coming: Iterator[Inputs] = iter(inputs)

    def __len__(self) -> int:
        return len(self._inputs)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._coming, None)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._coming = iter(self._inputs[start_index:end_index])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantiser's own prints and log lines."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
