"""ONNX graphs as bytes: as much of the format as the encoder's graph needs.

An ONNX file is one protobuf message. Its encoding is this short, and the `onnx` package, which
writes it too, would take longer to import than a query to answer. Weights are named, and given to
the runtime as the arrays that they are; in a graph for others they are part of the bytes.

Numbers of fields and types: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dupmae.errors import UsageError
from dupmae.types import Int64

IR_VERSION = 8
OPSETS = {"": 17, "com.microsoft": 1}
"""Versions of the standard operators, and of those that ONNX Runtime adds."""

_DTYPES = {"float32": 1, "int32": 6, "int64": 7, "float16": 10}
_EXTERNAL = 1
MOST_BYTES = 2**31 - 1
"""Of a protobuf message."""


class Graph:
    """Operators in the order in which they are added, each with one result."""

    def __init__(self) -> None:
        self.weights: dict[str, NDArray[Any]] = {}
        """What the runtime must be given beside the bytes, unless they are embedded."""
        self._nodes: list[bytes] = []
        self._constants: list[bytes] = []
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """Declare an input; axes whose size is a name may have any. Returns its name."""
        self._inputs.append(_value(name, dtype, shape))
        return name

    def weight(self, values: NDArray[Any]) -> str:
        """Add constants that are handed over in memory, as float32; return their name."""
        return self.table(np.ascontiguousarray(values, dtype=np.float32))

    def table(self, values: NDArray[Any]) -> str:
        """Add constants that are handed over as they are, float16 or float32; return their name."""
        name = f"weight{len(self.weights)}"
        self.weights[name] = np.ascontiguousarray(values)
        return name

    def look_up(self, table: str, rows: str) -> str:
        """Add rows of a table, as float32."""
        name = self.add("Gather", [table, rows])
        return name if self.weights[table].dtype == np.float32 else self.cast(name, "float32")

    def cast(self, values: str, dtype: str) -> str:
        """Add values of another type."""
        return self.add("Cast", [values], {"to": _DTYPES[dtype]})

    def constant(self, values: Int64) -> str:
        """Add a few whole numbers that are part of the bytes; return their name."""
        name = f"constant{len(self._constants)}"
        self._constants.append(_tensor_header(name, values) + _field(9, values.tobytes()))
        return name

    def add(
        self,
        operator: str,
        inputs: Sequence[str],
        attributes: Mapping[str, int | float | Sequence[int]] | None = None,
        *,
        domain: str = "",
    ) -> str:
        """Add an operator and return the name of its result."""
        name = f"{operator}{len(self._nodes)}"
        node = b"".join(_field(1, each) for each in inputs) + _field(2, name) + _field(4, operator)
        for key, value in (attributes or {}).items():
            node += _field(5, _attribute(key, value))
        self._nodes.append(node + _field(7, domain))
        return name

    def output(self, name: str, result: str, shape: Sequence[int | str] | None = None) -> None:
        """Declare a float32 result as an output.

        ONNX Runtime needs no shape, but ONNX does.
        """
        self._nodes.append(_field(1, result) + _field(2, name) + _field(4, "Identity"))
        self._outputs.append(_value(name, "float32", shape))

    def serialize(self, *, embedded: bool = False) -> bytes:
        """Return the whole as an ONNX model.

        Args:
            embedded: make the weights part of it.

        Raises:
            UsageError: that is more than the format can hold.
        """
        given = sum(values.nbytes for values in self.weights.values())
        if embedded and given > MOST_BYTES:
            raise UsageError(
                f"an ONNX file holds at most {MOST_BYTES} bytes, found {given} of weights; "
                "the model is too large for one"
            )
        weights = [_weight(*weight, embedded=embedded) for weight in self.weights.items()]
        constants = [*self._constants, *weights]
        parts = {1: self._nodes, 5: constants, 11: self._inputs, 12: self._outputs}
        graph = b"".join(_field(number, each) for number, all_ in parts.items() for each in all_)
        opsets = b"".join(
            _field(8, _field(1, domain) + _field(2, version)) for domain, version in OPSETS.items()
        )
        return _field(1, IR_VERSION) + _field(7, graph + _field(2, "dupmae")) + opsets


def _field(number: int, value: bytes | str | int | float) -> bytes:
    """Encode one field: whole numbers as varints, other numbers as float32, the rest as bytes."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    """Encode seven bits a byte, the lowest first; negative numbers as 64 bits of two's complement.

    >>> _varint(300).hex()
    'ac02'
    """
    number &= 2**64 - 1
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


def _attribute(name: str, value: int | float | Sequence[int]) -> bytes:
    if isinstance(value, float):
        return _field(1, name) + _field(2, value) + _field(20, 1)
    if isinstance(value, int):
        return _field(1, name) + _field(3, value) + _field(20, 2)
    return _field(1, name) + b"".join(_field(8, each) for each in value) + _field(20, 7)


def _value(name: str, dtype: str, shape: Sequence[int | str] | None) -> bytes:
    kind = _field(1, _DTYPES[dtype])
    if shape is not None:
        # An axis of fixed size is field 1 of its message, a named one field 2.
        axes = (_field(2 if isinstance(axis, str) else 1, axis) for axis in shape)
        kind += _field(2, b"".join(_field(1, axis) for axis in axes))
    return _field(1, name) + _field(2, _field(1, kind))


def _tensor_header(name: str, values: NDArray[Any]) -> bytes:
    shape = b"".join(_field(1, size) for size in values.shape)
    return shape + _field(2, _DTYPES[values.dtype.name]) + _field(8, name)


def _weight(name: str, values: NDArray[Any], *, embedded: bool) -> bytes:
    header = _tensor_header(name, values)
    if embedded:
        return header + _field(9, values.tobytes())
    return header + _field(13, _field(1, "location") + _field(2, "memory")) + _field(14, _EXTERNAL)
