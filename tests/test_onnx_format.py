"""Graphs written by hand are read by ONNX Runtime as what they mean."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dupmae.onnx_format import Graph, _varint
from dupmae.types import Float32


def run(graph: Graph, inputs: dict[str, np.ndarray]) -> Float32:
    options = onnxruntime.SessionOptions()
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(each) for each in graph.weights.values()]
    options.add_external_initializers(list(graph.weights), values)
    session = onnxruntime.InferenceSession(graph.serialize(), options)
    (result,) = session.run(["result"], inputs)
    return result


@given(st.integers(-(2**63), 2**64 - 1))
def test_a_varint_holds_seven_bits_a_byte_and_the_last_byte_is_below_128(number):
    encoded = _varint(number)
    assert sum((byte & 127) << 7 * place for place, byte in enumerate(encoded)) == number % 2**64
    assert [byte >= 128 for byte in encoded] == [True] * (len(encoded) - 1) + [False]


def test_inputs_weights_constants_and_operators_become_one_graph():
    graph = Graph()
    states = graph.input("states", "float32", ["B", 4])
    wide = graph.add("MatMul", [states, graph.weight(np.eye(4, 6) * 2)])
    shape = graph.constant(np.array([-1, 3, 2], dtype=np.int64))
    graph.output("result", graph.add("Reshape", [wide, shape]))
    given_states = np.arange(8, dtype=np.float32).reshape(2, 4)
    expected = np.pad(given_states * 2, ((0, 0), (0, 2))).reshape(2, 3, 2)
    np.testing.assert_array_equal(run(graph, {"states": given_states}), expected)


@pytest.mark.parametrize(
    ("operator", "attributes", "expected"),
    [
        ("ReduceMax", {"axes": [0], "keepdims": 0}, [3.0, 4.0]),
        ("ReduceMax", {"axes": [-1], "keepdims": 1}, [[-1.0], [4.0]]),
        ("LeakyRelu", {"alpha": 0.5}, [[-1.0, -0.5], [3.0, 4.0]]),
    ],
)
def test_attributes_are_whole_numbers_lists_of_them_or_other_numbers(
    operator, attributes, expected
):
    graph = Graph()
    graph.output(
        "result", graph.add(operator, [graph.input("x", "float32", ["B", "N"])], attributes)
    )
    given_values = np.array([[-2, -1], [3, 4]], dtype=np.float32)
    np.testing.assert_array_equal(run(graph, {"x": given_values}), expected)


def test_an_operator_of_another_domain_is_found_there():
    graph = Graph()
    inputs = [graph.input("x", "float32", [1, 2]), graph.weight(np.array([0.5, -0.5]))]
    graph.output("result", graph.add("BiasGelu", inputs, domain="com.microsoft"))
    result = run(graph, {"x": np.array([[0.5, -0.5]], dtype=np.float32)})
    np.testing.assert_allclose(result, [[0.8413447, -0.1586553]], atol=1e-6)  # ±1 · Φ(±1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rows_of_a_table_become_float32_and_the_table_is_not_copied(dtype):
    table = np.arange(12, dtype=dtype).reshape(4, 3) / 3
    graph = Graph()
    graph.output(
        "result", graph.look_up(graph.table(table), graph.input("rows", "int64", ["B", "N"]))
    )
    assert next(iter(graph.weights.values())) is table
    rows = np.array([[3, 0], [1, 1]])
    result = run(graph, {"rows": rows})
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, table[rows].astype(np.float32))


def test_weights_are_handed_over_not_written():
    graph = Graph()
    graph.weight(np.ones((1000, 100)))
    assert len(graph.serialize()) < 200
    assert [each.dtype for each in graph.weights.values()] == [np.float32]
