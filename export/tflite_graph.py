"""Rebuild a TensorFlow Lite graph as an ONNX graph.

A tflite file is one flatbuffer: tensors, operators in execution order, constants (TensorFlow's schema.fbs).
Its images are NHWC, ONNX wants NCHW: every 4-D activation is [N, C, H, W] here, weights are transposed once,
and the layout goes back to NHWC only where a reshape or an output depends on it. Half-precision constants
become float32. The batch dimension is left free. Only the operators of MediaPipe's face models are known;
anything else is refused by name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx
import tflite
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Table: TypeAlias = Any  # an object of the flatbuffer classes, which carry no types
Attribute: TypeAlias = int | Sequence[int]
Window: TypeAlias = dict[str, list[int]]

OPSET = 17
IR_VERSION = 8  # the one of opset 17, so that older runtimes load the file too
NHWC_TO_NCHW = (0, 3, 1, 2)
NCHW_TO_NHWC = (0, 2, 3, 1)
DTYPES = {
    tflite.TensorType.FLOAT32: np.float32,
    tflite.TensorType.FLOAT16: np.float16,
    tflite.TensorType.INT32: np.int32,
}
OPERATOR_NAMES = {code: name for name, code in vars(tflite.BuiltinOperator).items() if isinstance(code, int)}


class UnsupportedGraphError(Exception):
    """The tflite file uses something this converter does not know."""


@dataclass(frozen=True)
class Output:
    """How a tflite output leaves the ONNX graph: its new name and its shape, -1 first for a free batch."""

    name: str
    shape: tuple[int, ...]


@dataclass
class Graph:
    """What has been read from the tflite side and what has been written on the ONNX side so far."""

    model: Table
    subgraph: Table
    constants: dict[int, NDArray[Any]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Shape as tflite has it (NHWC)."""
        return tuple(int(n) for n in self.subgraph.Tensors(tensor).ShapeAsNumpy())

    def constant(self, tensor: int) -> NDArray[Any]:
        """Value of a constant, in tflite's layout."""
        if tensor not in self.constants:
            name = self.subgraph.Tensors(tensor).Name().decode()
            raise UnsupportedGraphError(f"tensor {name} is not a constant")
        return self.constants[tensor]

    def node(self, op_type: str, inputs: Sequence[str], output: str, **attributes: Attribute) -> str:
        """Append one ONNX node with one output; returns the output's name."""
        node = helper.make_node(op_type, list(inputs), [output], name=output)
        node.attribute.extend(helper.make_attribute(key, attributes[key]) for key in sorted(attributes))
        self.nodes.append(node)
        return output

    def initializer(self, name: str, value: NDArray[Any]) -> str:
        """Store a constant of the ONNX graph; returns its name."""
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name


@dataclass(frozen=True)
class Operator:
    """One tflite operator: tensor numbers (-1 for an absent input) and its raw options table."""

    code: int
    inputs: tuple[int, ...]
    output: int
    table: Table

    def options(self, kind: type) -> Table:
        """The options read as `kind`, one of the generated flatbuffer classes."""
        parsed = kind()
        parsed.Init(self.table.Bytes, self.table.Pos)
        return parsed


def convert(model: bytes, *, name: str, input_name: str, outputs: Mapping[str, Output]) -> onnx.ModelProto:
    """ONNX model of a one-input tflite model.

    The input becomes [N, C, H, W] float32; each output listed in `outputs` by its tflite name is reshaped, in
    NHWC order, to the shape given there.
    """
    parsed = tflite.Model.GetRootAsModel(model, 0)
    if parsed.SubgraphsLength() != 1 or parsed.Subgraphs(0).InputsLength() != 1:
        raise UnsupportedGraphError(f"{name}: one subgraph with one input expected")
    graph = Graph(parsed, parsed.Subgraphs(0))
    _read_constants(graph)
    source = int(graph.subgraph.Inputs(0))
    graph.names[source] = input_name
    for index in range(graph.subgraph.OperatorsLength()):
        operator = _operator(graph, index)
        handler = HANDLERS.get(operator.code)
        if handler is None:
            unknown = OPERATOR_NAMES.get(operator.code, operator.code)
            raise UnsupportedGraphError(f"{name}: operator {unknown} is not known")
        handler(graph, operator)
    for tensor in graph.subgraph.OutputsAsNumpy():
        _write_output(graph, int(tensor), outputs)
    return _onnx_model(graph, name, input_name, source, outputs)


def _read_constants(graph: Graph) -> None:
    for index in range(graph.subgraph.TensorsLength()):
        tensor = graph.subgraph.Tensors(index)
        buffer = graph.model.Buffers(tensor.Buffer())
        if buffer.DataLength() == 0:
            continue
        dtype = DTYPES.get(tensor.Type())
        if dtype is None or tensor.Sparsity() is not None:
            name = tensor.Name().decode()
            raise UnsupportedGraphError(f"tensor {name}: sparse, or of type {tensor.Type()}")
        values = np.frombuffer(buffer.DataAsNumpy().tobytes(), dtype)
        graph.constants[index] = values.reshape(graph.shape(index))


def _operator(graph: Graph, index: int) -> Operator:
    raw = graph.subgraph.Operators(index)
    code = graph.model.OperatorCodes(raw.OpcodeIndex())
    if raw.OutputsLength() != 1:
        raise UnsupportedGraphError(f"operator {index} has {raw.OutputsLength()} outputs")
    # Codes above 127 live in the newer field; files written before it existed have only the older one.
    return Operator(
        code=max(code.BuiltinCode(), code.DeprecatedBuiltinCode()),
        inputs=tuple(int(i) for i in raw.InputsAsNumpy()),
        output=int(raw.Outputs(0)),
        table=raw.BuiltinOptions(),
    )


def _emit(
    graph: Graph, operator: Operator, op_type: str, inputs: Sequence[str], **attributes: Attribute
) -> None:
    graph.names[operator.output] = graph.node(op_type, inputs, f"t{operator.output}", **attributes)


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Padding before and after for TensorFlow's SAME: the odd pixel goes after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _window(graph: Graph, operator: Operator, options: Table, kernel: tuple[int, int]) -> Window:
    """Attributes shared by convolution and pooling: kernel, strides, explicit pads."""
    if options.FusedActivationFunction() != tflite.ActivationFunctionType.NONE:
        raise UnsupportedGraphError(f"fused activation {options.FusedActivationFunction()}")
    strides = (int(options.StrideH()), int(options.StrideW()))
    pads = ((0, 0), (0, 0))
    if options.Padding() == tflite.Padding.SAME:
        _, height, width, _ = graph.shape(operator.inputs[0])
        pads = (_same_padding(height, kernel[0], strides[0]), _same_padding(width, kernel[1], strides[1]))
    (top, bottom), (left, right) = pads
    return {"kernel_shape": list(kernel), "strides": list(strides), "pads": [top, left, bottom, right]}


def _convolution(
    graph: Graph, operator: Operator, options: Table, *, weights: NDArray[Any], groups: int
) -> None:
    """Emit a Conv; weights are [O, I/groups, H, W]."""
    if (options.DilationHFactor(), options.DilationWFactor()) != (1, 1):
        raise UnsupportedGraphError("dilated convolution")
    inputs = [graph.names[operator.inputs[0]], graph.initializer(f"t{operator.output}_weight", weights)]
    if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
        inputs.append(graph.initializer(f"t{operator.output}_bias", graph.constant(operator.inputs[2])))
    window = _window(graph, operator, options, weights.shape[2:])
    _emit(graph, operator, "Conv", inputs, group=groups, **window)


def _conv_2d(graph: Graph, operator: Operator) -> None:
    weights = graph.constant(operator.inputs[1]).transpose(NHWC_TO_NCHW)  # [O, H, W, I] -> [O, I, H, W]
    _convolution(graph, operator, operator.options(tflite.Conv2DOptions), weights=weights, groups=1)


def _depthwise_conv_2d(graph: Graph, operator: Operator) -> None:
    options = operator.options(tflite.DepthwiseConv2DOptions)
    weights = graph.constant(operator.inputs[1]).transpose(3, 0, 1, 2)  # [1, H, W, C] -> [C, 1, H, W]
    if options.DepthMultiplier() != 1:
        raise UnsupportedGraphError(f"depth multiplier {options.DepthMultiplier()}")
    _convolution(graph, operator, options, weights=weights, groups=len(weights))


def _max_pool_2d(graph: Graph, operator: Operator) -> None:
    options = operator.options(tflite.Pool2DOptions)
    window = _window(graph, operator, options, (int(options.FilterHeight()), int(options.FilterWidth())))
    _emit(graph, operator, "MaxPool", [graph.names[operator.inputs[0]]], **window)


def _pad(graph: Graph, operator: Operator) -> None:
    before_after = graph.constant(operator.inputs[1])[list(NHWC_TO_NCHW)]  # [4, 2]
    pads = graph.initializer(f"t{operator.output}_pads", before_after.T.reshape(-1).astype(np.int64))
    _emit(graph, operator, "Pad", [graph.names[operator.inputs[0]], pads])


def _add(graph: Graph, operator: Operator) -> None:
    if operator.options(tflite.AddOptions).FusedActivationFunction() != tflite.ActivationFunctionType.NONE:
        raise UnsupportedGraphError("fused activation in ADD")
    if graph.shape(operator.inputs[0]) != graph.shape(operator.inputs[1]):
        raise UnsupportedGraphError("broadcasting ADD")
    _emit(graph, operator, "Add", [graph.names[i] for i in operator.inputs])


def _relu(graph: Graph, operator: Operator) -> None:
    _emit(graph, operator, "Relu", [graph.names[operator.inputs[0]]])


def _prelu(graph: Graph, operator: Operator) -> None:
    """PRelu(x) = (1 - a) Relu(x) + a x: in ONNX Runtime several times faster than its PRelu kernel."""
    slope = graph.constant(operator.inputs[1]).reshape(-1, 1, 1)  # [1, 1, C] -> [C, 1, 1]
    source, stem = graph.names[operator.inputs[0]], f"t{operator.output}"
    positive = graph.node("Relu", [source], f"{stem}_relu")
    rest = graph.initializer(f"{stem}_rest", 1 - slope)
    gained = graph.node("Mul", [positive, rest], f"{stem}_gained")
    leaked = graph.node("Mul", [source, graph.initializer(f"{stem}_slope", slope)], f"{stem}_leaked")
    _emit(graph, operator, "Add", [gained, leaked])


def _dequantize(graph: Graph, operator: Operator) -> None:
    constant = graph.constant(operator.inputs[0])
    if constant.dtype != np.float16:
        raise UnsupportedGraphError("DEQUANTIZE of anything but half precision")
    graph.constants[operator.output] = constant.astype(np.float32)


def _nhwc(graph: Graph, tensor: int) -> str:
    """Name of an activation in tflite's own layout, with a transpose if it is an image."""
    name = graph.names[tensor]
    if len(graph.shape(tensor)) != 4:
        return name
    return graph.node("Transpose", [name], f"{name}_nhwc", perm=NCHW_TO_NHWC)


def _reshape(graph: Graph, operator: Operator) -> None:
    shape = graph.shape(operator.output)
    if len(shape) == 4:
        raise UnsupportedGraphError("RESHAPE to an image")
    target = graph.initializer(f"t{operator.output}_shape", np.array((0, -1, *shape[2:]), np.int64))
    _emit(graph, operator, "Reshape", [_nhwc(graph, operator.inputs[0]), target])


def _concatenation(graph: Graph, operator: Operator) -> None:
    options = operator.options(tflite.ConcatenationOptions)
    if len(graph.shape(operator.output)) == 4 or options.FusedActivationFunction() != 0:
        raise UnsupportedGraphError("CONCATENATION of images or with an activation")
    _emit(graph, operator, "Concat", [graph.names[i] for i in operator.inputs], axis=int(options.Axis()))


HANDLERS: dict[int, Callable[[Graph, Operator], None]] = {
    tflite.BuiltinOperator.ADD: _add,
    tflite.BuiltinOperator.CONCATENATION: _concatenation,
    tflite.BuiltinOperator.CONV_2D: _conv_2d,
    tflite.BuiltinOperator.DEPTHWISE_CONV_2D: _depthwise_conv_2d,
    tflite.BuiltinOperator.DEQUANTIZE: _dequantize,
    tflite.BuiltinOperator.MAX_POOL_2D: _max_pool_2d,
    tflite.BuiltinOperator.PAD: _pad,
    tflite.BuiltinOperator.PRELU: _prelu,
    tflite.BuiltinOperator.RELU: _relu,
    tflite.BuiltinOperator.RESHAPE: _reshape,
}


def _write_output(graph: Graph, tensor: int, outputs: Mapping[str, Output]) -> None:
    name = graph.subgraph.Tensors(tensor).Name().decode()
    if name not in outputs:
        raise UnsupportedGraphError(f"output {name} was not asked for")
    output = outputs[name]
    shape = graph.initializer(f"{output.name}_shape", np.array(output.shape, np.int64))
    graph.node("Reshape", [_nhwc(graph, tensor), shape], output.name)


def _onnx_model(
    graph: Graph, name: str, input_name: str, source: int, outputs: Mapping[str, Output]
) -> onnx.ModelProto:
    _, height, width, channels = graph.shape(source)
    inputs = [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, ["N", channels, height, width])]
    results = [
        helper.make_tensor_value_info(output.name, TensorProto.FLOAT, ["N", *output.shape[1:]])
        for output in outputs.values()
    ]
    model = helper.make_model(
        helper.make_graph(graph.nodes, name, inputs, results, graph.initializers),
        producer_name="avsync",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    onnx.checker.check_model(model, full_check=True)
    return model
