"""The text of a row: JSON with sorted keys, in which what JSON has no number for stands as text.

Two ways lead to it. orjson writes usual rows at a tenth of the cost; it would write NaN as null, enums by their value
and float32 in fewer digits, so whatever is not known to come out the same goes the long way, through :func:`plain`.
Both ways read back as the same values; spaces, exponents and escapes may differ, and a hash is over the text as it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import orjson

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY
_EXACT = "?bhilqBHILQd"
"""Types of numpy that orjson writes with all their digits, by their letter."""
_LEAVES = frozenset({str, int, float, bool, *(np.dtype(letter).type for letter in _EXACT)})


class _UnusualError(Exception):
    """Something of which it is not known that orjson writes it as :func:`plain` has it."""


def row_text(record: Mapping[str, Any]) -> str:
    """The record as JSON on one line; raises ``TypeError`` or ``ValueError`` for what cannot be written so."""
    try:
        n_none = _count_none(record.values())
        text = orjson.dumps(record, _listed, _OPTIONS)
        if text.count(b"null") == n_none:  # else a number was NaN or infinite, or a word holds these letters
            return text.decode()
    except (_UnusualError, TypeError):  # orjson's own error is a TypeError
        pass
    return _ENCODER.encode(plain(record))


def plain(value: Any) -> Any:
    """JSON types only. Arrays become lists; NaN and infinities become text, because JSON has no number for them."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:  # the usual ones first
        return value
    if kind is float:
        return value if math.isfinite(value) else repr(value)
    if kind is np.ndarray and (value.dtype.kind in "biu" or (value.dtype.kind == "f" and np.isfinite(value).all())):
        return value.tolist()
    if kind is dict or isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):  # before str: NaN is a float that JSON cannot hold
        return float(value) if math.isfinite(value) else repr(float(value))
    return value if value is None or isinstance(value, (bool, int, str)) else repr(value)


def _count_none(values: Iterable[Any]) -> int:
    """How often None is among these values and what they hold; raises :class:`_UnusualError` for unusual types."""
    found = 0
    for value in values:
        kind = type(value)
        if kind is np.ndarray:
            if value.dtype.char not in _EXACT:
                raise _UnusualError
        elif kind is dict:
            found += _count_none(value.values())
        elif kind is list or kind is tuple:
            found += _count_none(value)
        elif value is None:
            found += 1
        elif kind not in _LEAVES:
            raise _UnusualError
    return found


def _listed(value: Any) -> Any:
    """An array that orjson does not take as it lies in memory, or without dimensions."""
    if type(value) is np.ndarray:
        return value.tolist()
    raise TypeError
