"""Weights stored as fp16: half the file, and the same computation in fp32 once they are loaded."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_LEAST_NUMBERS = 256  # smaller constants are not worth a node


def store_in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph whose larger fp32 constants are fp16, each with a Cast to fp32.

    Constants that fp16 cannot hold (beyond 65504) stay as they are.
    """
    halved = onnx.ModelProto()
    halved.CopyFrom(model)
    graph, casts = halved.graph, []
    for constant in graph.initializer:
        if constant.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(constant)
        if values.size < _LEAST_NUMBERS or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = constant.name
        constant.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_fp16"))
        casts.append(helper.make_node("Cast", [constant.name], [name], f"{name}_cast", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return halved


def is_in_half(model: onnx.ModelProto) -> bool:
    """Whether `store_in_half` made it."""
    names = {
        constant.name for constant in model.graph.initializer if constant.data_type == TensorProto.FLOAT16
    }
    return any(node.op_type == "Cast" and node.input[0] in names for node in model.graph.node)
