"""Our Sparkplug B payloads against Google's Protocol Buffers, both ways, and against damage."""

from __future__ import annotations

import math
import struct
import tracemalloc
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.deploy.connectors import sparkplug_payload as sp
from twinloop.deploy.connectors.sparkplug_metric import Metric, Property
from twinloop.deploy.connectors.sparkplug_payload import Payload
from twinloop.deploy.connectors.sparkplug_value import DataType
from twinloop.deploy.connectors.sparkplug_wire import PayloadError

Field = descriptor_pb2.FieldDescriptorProto
U32, U64, F32, F64, BOOL = Field.TYPE_UINT32, Field.TYPE_UINT64, Field.TYPE_FLOAT, Field.TYPE_DOUBLE, Field.TYPE_BOOL
TEXT, BYTES, INSIDE = Field.TYPE_STRING, Field.TYPE_BYTES, Field.TYPE_MESSAGE


def official() -> Any:
    """The class of the message Payload, from the field numbers and types of ``sparkplug_b.proto`` in eclipse-tahu/tahu,
    ``sparkplug_b/`` (proto2; what this project carries as bytes is declared as bytes, which is the same on the wire).
    """
    file = descriptor_pb2.FileDescriptorProto(name="sparkplug.proto", package="tahu", syntax="proto2")

    def message(name: str, *fields: tuple[str, int, Any, str, bool]) -> None:
        declared = file.message_type.add(name=name)
        for field, number, kind, of, is_list in fields:
            label = Field.LABEL_REPEATED if is_list else Field.LABEL_OPTIONAL
            added = declared.field.add(name=field, number=number, type=kind, label=label)
            if of == "oneof":
                if not declared.oneof_decl:
                    declared.oneof_decl.add(name="value")
                added.oneof_index = 0
            elif of:
                added.type_name = f".tahu.{of}"

    message(
        "PropertyValue",
        ("type", 1, U32, "", False),
        ("is_null", 2, BOOL, "", False),
        ("int_value", 3, U32, "oneof", False),
        ("long_value", 4, U64, "oneof", False),
        ("float_value", 5, F32, "oneof", False),
        ("double_value", 6, F64, "oneof", False),
        ("boolean_value", 7, BOOL, "oneof", False),
        ("string_value", 8, TEXT, "oneof", False),
        ("propertyset_value", 9, BYTES, "oneof", False),
        ("propertysets_value", 10, BYTES, "oneof", False),
    )
    message("PropertySet", ("keys", 1, TEXT, "", True), ("values", 2, INSIDE, "PropertyValue", True))
    message(
        "Metric",
        ("name", 1, TEXT, "", False),
        ("alias", 2, U64, "", False),
        ("timestamp", 3, U64, "", False),
        ("datatype", 4, U32, "", False),
        ("is_historical", 5, BOOL, "", False),
        ("is_transient", 6, BOOL, "", False),
        ("is_null", 7, BOOL, "", False),
        ("metadata", 8, BYTES, "", False),
        ("properties", 9, INSIDE, "PropertySet", False),
        ("int_value", 10, U32, "oneof", False),
        ("long_value", 11, U64, "oneof", False),
        ("float_value", 12, F32, "oneof", False),
        ("double_value", 13, F64, "oneof", False),
        ("boolean_value", 14, BOOL, "oneof", False),
        ("string_value", 15, TEXT, "oneof", False),
        ("bytes_value", 16, BYTES, "oneof", False),
        ("dataset_value", 17, BYTES, "oneof", False),
        ("template_value", 18, BYTES, "oneof", False),
    )
    message(
        "Payload",
        ("timestamp", 1, U64, "", False),
        ("metrics", 2, INSIDE, "Metric", True),
        ("seq", 3, U64, "", False),
        ("uuid", 4, TEXT, "", False),
        ("body", 5, BYTES, "", False),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tahu.Payload"))


OFFICIAL = official()
U64_MAX = (1 << 64) - 1
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
floats32 = st.floats(width=32)


def whole(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high) | st.sampled_from([low, high, 0])


VALUES: dict[DataType, st.SearchStrategy[Any]] = {
    **{DataType(1 + k): whole(-(1 << 8 * 2**k - 1), (1 << 8 * 2**k - 1) - 1) for k in range(4)},
    **{DataType(5 + k): whole(0, (1 << 8 * 2**k) - 1) for k in range(4)},
    DataType.FLOAT: floats32,
    DataType.DOUBLE: st.floats(),
    DataType.BOOLEAN: st.booleans(),
    DataType.STRING: texts,
    DataType.DATETIME: whole(0, U64_MAX),
    DataType.TEXT: texts,
    DataType.UUID: texts,
    DataType.BYTES: st.binary(max_size=20),
    DataType.FILE: st.binary(max_size=20),
    DataType.DATASET: st.binary(max_size=20),
    DataType.TEMPLATE: st.binary(max_size=20),
    DataType.DOUBLE_ARRAY: st.binary(max_size=24),
}
FIELDS = {
    **dict.fromkeys(
        [DataType.INT8, DataType.INT16, DataType.INT32, DataType.UINT8, DataType.UINT16, DataType.UINT32], "int_value"
    ),
    **dict.fromkeys([DataType.INT64, DataType.UINT64, DataType.DATETIME], "long_value"),
    DataType.FLOAT: "float_value",
    DataType.DOUBLE: "double_value",
    DataType.BOOLEAN: "boolean_value",
    **dict.fromkeys([DataType.STRING, DataType.TEXT, DataType.UUID], "string_value"),
    **dict.fromkeys([DataType.BYTES, DataType.FILE, DataType.DOUBLE_ARRAY], "bytes_value"),
    DataType.DATASET: "dataset_value",
    DataType.TEMPLATE: "template_value",
}
"""Chapter 6.4.16 of the specification."""
PROPERTY_TYPES = [k for k, name in FIELDS.items() if name not in ("bytes_value", "dataset_value", "template_value")]


@st.composite
def properties(draw: st.DrawFn) -> Property:
    datatype = draw(st.sampled_from([*PROPERTY_TYPES, DataType.PROPERTY_SET]))
    values = VALUES.get(datatype, st.binary(max_size=10))
    return Property(datatype, draw(st.none() | values))


@st.composite
def metrics(draw: st.DrawFn) -> Metric:
    datatype = draw(st.sampled_from(list(VALUES)))
    return Metric(
        name=draw(texts),
        datatype=datatype,
        value=draw(st.none() | VALUES[datatype]),
        timestamp_ms=draw(st.none() | whole(0, U64_MAX)),
        alias=draw(st.none() | whole(0, U64_MAX)),
        properties=draw(st.dictionaries(texts, properties(), max_size=3)),
        is_historical=draw(st.booleans()),
        is_transient=draw(st.booleans()),
    )


payloads = st.builds(
    Payload,
    st.none() | whole(0, U64_MAX),
    st.lists(metrics(), max_size=4).map(tuple),
    st.none() | whole(0, 255),
    texts,
    st.binary(max_size=10),
)


def same(a: Payload, b: Payload) -> bool:
    return repr(a) == repr(b)  # which takes one NaN for another, and tells 0.0 from -0.0 and True from 1


@given(payloads)
@settings(max_examples=120, deadline=None)
def test_what_we_write_is_what_the_official_definition_reads(payload: Payload) -> None:
    read = OFFICIAL.FromString(sp.encode(payload))
    assert read.FindInitializationErrors() == []
    assert (read.timestamp if read.HasField("timestamp") else None) == payload.timestamp_ms
    assert (read.seq if read.HasField("seq") else None) == payload.seq
    assert (read.uuid, read.body) == (payload.uuid, payload.body)
    assert len(read.metrics) == len(payload.metrics)
    for there, here in zip(read.metrics, payload.metrics, strict=True):
        assert (there.name, there.datatype) == (here.name, here.datatype)
        assert (there.alias if there.HasField("alias") else None) == here.alias
        assert (there.timestamp if there.HasField("timestamp") else None) == here.timestamp_ms
        assert (there.is_historical, there.is_transient) == (here.is_historical, here.is_transient)
        assert there.is_null == (here.value is None)
        check(there, here.datatype, here.value)
        assert list(there.properties.keys) == list(here.properties)
        for told, prop in zip(there.properties.values, here.properties.values(), strict=True):
            assert (told.type, told.is_null) == (prop.datatype, prop.value is None)
            if prop.datatype is DataType.PROPERTY_SET:
                assert told.propertyset_value == (prop.value or b"")
            else:
                check(told, prop.datatype, prop.value)


def check(there: Any, datatype: DataType, value: Any) -> None:
    field = there.WhichOneof("value")
    if value is None:
        assert field is None
        return
    assert field == FIELDS[datatype]
    said = getattr(there, field)
    if field in ("int_value", "long_value"):
        said -= (1 << (32 if field == "int_value" else 64)) * (value < 0)
    assert said == value or (math.isnan(said) and math.isnan(value))


@given(payloads)
@settings(max_examples=120, deadline=None)
def test_what_the_official_definition_writes_is_what_we_read(payload: Payload) -> None:
    again = OFFICIAL.FromString(sp.encode(payload)).SerializeToString()
    assert same(sp.decode(again), payload)


@given(payloads)
@settings(max_examples=80, deadline=None)
def test_a_payload_comes_back_as_it_went(payload: Payload) -> None:
    assert same(sp.decode(sp.encode(payload)), payload)


@given(st.binary(max_size=200) | st.tuples(payloads, st.data()).map(lambda pair: damaged(*pair)))
@settings(max_examples=250, deadline=None)
def test_damage_is_a_payload_error_or_a_payload_that_the_official_definition_reads_too(data: bytes) -> None:
    try:
        sp.decode(data)
    except PayloadError:
        return
    try:
        OFFICIAL.FromString(data)
    except DecodeError:
        # Google's also checks what stands inside fields that it declares, and we skip, such as a metric's metadata.
        pytest.fail("we read what Google does not")


def damaged(payload: Payload, data: st.DataObject) -> bytes:
    raw = bytearray(sp.encode(payload))
    for _ in range(data.draw(st.integers(1, 3))):
        if raw:
            at = data.draw(st.integers(0, len(raw) - 1))
            if data.draw(st.booleans()):
                raw[at] = data.draw(st.integers(0, 255))
            else:
                del raw[at : at + data.draw(st.integers(1, 5))]
    return bytes(raw)


@pytest.mark.parametrize(
    "data",
    [
        b"\x08",  # a number that does not come
        b"\x08" + b"\xff" * 11,
        b"\x12\x05\x0a",  # fewer bytes than announced
        b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x13\x14",  # a group
        b"\x00\x00",  # field 0
        b"\x22\x01\xff",  # not UTF-8
        b"\x12\x02\x20\x63",  # data type 99
        b"\x12\x04\x20\x0a\x50\x01",  # a Double as int_value
        b"\x12\x02\x20\x0a",  # neither a value nor null
        b"\x12\x08\x20\x01\x50\xff\xff\xff\x0f" + b"",  # cut short
        b"\x12\x05\x20\x05\x50\x80\x02",  # 256 as UInt8
        b"\x12\x05\x4a\x03\x0a\x01k",  # a property's name without a value
    ],
)
def test_nonsense_is_told_as_such(data: bytes) -> None:
    with pytest.raises(PayloadError):
        sp.decode(data)


def test_fields_that_nobody_knows_are_skipped_and_the_last_of_two_counts() -> None:
    metric = b"\x0a\x01a" + b"\x42\x02\x08\x01" + b"\xf8\x07\x05" + b"\x20\x0a" + b"\x69" + struct.pack("<d", 2.0)
    metric += b"\x69" + struct.pack("<d", 3.0)
    found = sp.decode(b"\x3a\x01x" + b"\x18\x01\x18\x02" + b"\x12" + bytes([len(metric)]) + metric)
    assert found == Payload(None, (Metric("a", DataType.DOUBLE, 3.0),), 2)


def test_an_int8_of_one_byte_or_of_four_is_the_same_number() -> None:
    assert sp.decode(b"\x12\x05\x20\x01\x50\xfe\x01").metrics[0].value == -2
    assert sp.decode(b"\x12\x08\x20\x01\x50\xfe\xff\xff\xff\x0f").metrics[0].value == -2


def test_a_type_that_is_not_said_is_the_births_or_the_plainest() -> None:
    metric = Metric(alias=7, datatype=DataType.INT8, value=-3, says_type=False)
    data = sp.encode(Payload(metrics=(metric,)))
    assert sp.decode(data, {7: DataType.INT8}).metrics == (metric,)
    assert sp.decode(data).metrics[0].datatype is DataType.UINT32
    with pytest.raises(PayloadError, match="its type is DOUBLE, its value came as int_value"):
        sp.decode(data, {7: DataType.DOUBLE})


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        (DataType.UINT8, 256),
        (DataType.INT8, -129),
        (DataType.INT64, 1 << 63),
        (DataType.UINT32, True),
        (DataType.DOUBLE, "1.0"),
        (DataType.FLOAT, 1e300),
        (DataType.BOOLEAN, 1),
        (DataType.STRING, b"x"),
        (DataType.STRING, "\ud800"),
        (DataType.BYTES, "x"),
        (DataType.UNKNOWN, 1),
    ],
)
def test_a_value_that_its_type_does_not_hold_is_not_written(datatype: DataType, value: Any) -> None:
    with pytest.raises(PayloadError):
        sp.encode(Payload(metrics=(Metric("m", datatype, value),)))


def test_memory_is_bounded_whatever_is_announced() -> None:
    tiny = b"\x12\x02\x38\x01"  # a metric of two bytes: null
    sp.decode(tiny * 1000)
    tracemalloc.start()
    try:
        with pytest.raises(PayloadError, match="more than 50000 metrics"):
            sp.decode(tiny * 500_000)
        with pytest.raises(PayloadError, match="at most"):
            sp.decode(b"\x0a" * (sp.MOST_BYTES + 1))
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
