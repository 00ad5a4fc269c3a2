"""Both ways to write a row read back as the same values, whatever a row holds; the referee is the standard library."""

from __future__ import annotations

import enum
import json
import math
import struct
import uuid
from collections import OrderedDict
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinloop.deploy import row_text as module
from twinloop.deploy.row_text import plain, row_text
from twinloop.deploy.shield import Code, Mode


class Level(enum.IntEnum):
    LOW = 1


class Colour(enum.Enum):
    RED = "red"


class Worded(str):
    pass


class Pair(NamedTuple):
    left: float
    right: str


_NUMBERS = st.floats() | st.integers() | st.integers(-(2**70), 2**70) | st.sampled_from([-0.0, 5e-324, 2.0**64, 1e16])
_SCALARS = st.one_of(
    _NUMBERS,
    st.none(),
    st.booleans(),
    st.text(st.characters(exclude_categories=())),  # with lone surrogates
    st.sampled_from(["null", "nan", *Code, *Mode, *Level, *Colour, Worded("null"), uuid.UUID(int=1), b"bytes", 1j]),
    st.floats(width=32).map(np.float32),
    st.floats().map(np.float64),
    st.integers(-128, 127).map(np.int8),
    st.integers(0, 2**64 - 1).map(np.uint64),
    st.booleans().map(np.bool_),
)


def _array(drawn: tuple[list[float], str, tuple[int, int], bool]) -> Any:
    values, kind, shape, turned = drawn
    array = np.resize(np.array(values if values else [0.0]), shape)
    with np.errstate(all="ignore"):  # a large number as float16, a NaN as an integer: any value will do
        array = array.astype(kind)
    return array.T if turned else array


_ARRAYS = st.tuples(
    st.lists(st.floats(), max_size=4) | st.lists(st.floats(-100, 100), max_size=4),
    st.sampled_from(["f8", "f8", ">f8", "f4", "f2", "i8", "i4", "i1", "u8", "?", "O", "U3", "c16", "M8[s]"]),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.booleans(),
).map(_array)
_KEYS = st.text() | st.sampled_from([*Code]) | st.integers() | st.none() | st.booleans() | st.just(Worded("k"))
_VALUES = st.recursive(
    _SCALARS | _ARRAYS | st.floats().map(np.array),
    lambda parts: st.one_of(
        st.lists(parts, max_size=4),
        st.lists(parts, max_size=4).map(tuple),
        st.dictionaries(_KEYS, parts, max_size=4),
        st.dictionaries(st.text(), parts, max_size=3).map(OrderedDict),
        st.dictionaries(st.text(), parts, max_size=3).map(MappingProxyType),
        st.builds(Pair, st.floats(), st.text()),
    ),
    max_leaves=12,
)


def long_way(record: Any) -> str:
    """As every row was written before there was a short way."""
    return json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode(plain(record))


def bits(value: Any) -> Any:
    """A value as one that differs wherever a bit or a type does: -0.0 is not 0.0, and 1 is not 1.0."""
    if isinstance(value, dict):
        return {key: bits(part) for key, part in value.items()}
    if isinstance(value, list):
        return [bits(part) for part in value]
    return struct.pack("<d", value) if isinstance(value, float) else (type(value), value)


@given(st.dictionaries(_KEYS, _VALUES, max_size=5))
def test_any_row_reads_back_as_from_the_standard_librarys_text(record: dict[Any, Any]) -> None:
    assert bits(json.loads(row_text(record))) == bits(json.loads(long_way(record)))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_every_finite_number_comes_back_bit_for_bit_from_arrays_and_lists(numbers: list[float]) -> None:
    told = json.loads(row_text({"array": np.array(numbers), "list": numbers}))
    assert np.array(told["array"]).tobytes() == np.array(told["list"]).tobytes() == np.array(numbers).tobytes()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, '"nan"'),
        ([None, math.inf], '[null,"inf"]'),
        (np.array([[1.0, -math.inf]]), '[[1.0,"-inf"]]'),
        ({"of": [np.float64(math.nan), "null", None]}, '{"of":["nan","null",null]}'),
        (np.array([0.1], np.float32), "[0.10000000149011612]"),
        (np.float32(0.1), "0.10000000149011612"),
        (Colour.RED, "\"<Colour.RED: 'red'>\""),
        (2**64, "18446744073709551616"),
        (np.array(2.5), "2.5"),
        (np.arange(6.0).reshape(2, 3)[:, ::2], "[[0.0,2.0],[3.0,5.0]]"),
        (np.ma.MaskedArray([1.0, 2.0], mask=[False, True]), "[1.0,null]"),
        ("\ud800", '"\\ud800"'),
    ],
)
def test_what_orjson_would_write_otherwise_stands_as_it_always_stood(value: Any, text: str) -> None:
    assert row_text({"a": value}) == f'{{"a":{text}}}'


def test_a_usual_row_goes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    record = {
        "kind": "decision",
        "telemetry": {"values": {"arm": np.ones((2, 3))}, "quality": {"arm": np.int8(0)}, "obeyed": None},
        "reasons": [["arm/arm_1", "dq1_radps", "constraint_barrier", 0.5, None, np.float64(0.2)]],
        "idle": {"arm": np.array([1])},
        "modes": {"autonomous": ["arm/arm_1"]},
        "outcome": (True, 7),
    }
    expected = json.loads(long_way(record))

    def _refuse(value: Any) -> Any:
        raise AssertionError(f"{value!r} went the long way")

    monkeypatch.setattr(module, "plain", _refuse)
    assert json.loads(row_text(record)) == expected


def test_keys_are_sorted_so_that_equal_rows_have_equal_texts() -> None:
    assert (
        row_text({"b": 1, "a": {"d": 2, "c": 3}})
        == row_text({"a": {"c": 3, "d": 2}, "b": 1})
        == ('{"a":{"c":3,"d":2},"b":1}')
    )
