"""Registers derived from a nameplate."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.deploy.connectors.rig import rig_nameplate

from twinloop.deploy.connectors import register_map as rm
from twinloop.deploy.connectors.register_map import Header, MapSettings, RegisterMap
from twinloop.deploy.connectors.word_order import Encoding, WordOrder
from twinloop.envs.errors import ConfigurationError, NameplateError, PlantError
from twinloop.envs.nameplate import Nameplate

INT16 = MapSettings(Encoding.INT16)


def test_addresses_follow_the_order_of_the_arrays() -> None:
    site = RegisterMap(rig_nameplate(n_assets=2, n_measured=2))
    assert {e.name: e.register for e in site.commanded} == {
        "rig/R1/valve_pu": 2,
        "rig/R1/mode": 4,
        "rig/R2/valve_pu": 6,
        "rig/R2/mode": 8,
    }
    assert {e.name: e.register for e in site.measured} == {
        "rig/R1/flow0_kgps": 18,
        "rig/R1/flow1_kgps": 20,
        "rig/R2/flow0_kgps": 22,
        "rig/R2/flow1_kgps": 24,
    }
    assert [e.register for e in site.obeyed] == [26, 28, 30, 32]
    assert (site.n_holding, site.tail, site.n_input) == (10, 34, 35)
    small = RegisterMap(rig_nameplate(n_assets=2, n_measured=2), INT16)
    assert [e.register for e in (*small.commanded, *small.measured, *small.obeyed)] == [2, 3, 4, 5, *range(18, 26)]


def test_the_hash_stays_and_tells_every_difference_that_matters() -> None:
    plate = rig_nameplate()
    assert RegisterMap(plate).hash == RegisterMap(rig_nameplate()).hash
    assert RegisterMap(plate).hash.startswith("6c3526ac359c7daa")  # a change here is a new LAYOUT
    group = plate.groups[0]
    valve = group.commanded[0]

    def with_valve(**changes: object) -> Nameplate:
        changed = replace(valve, **changes)  # type: ignore[arg-type]  # a test of several fields
        return replace(plate, groups=(replace(group, commanded=(changed, *group.commanded[1:])),))

    others = [
        RegisterMap(plate, MapSettings(order=WordOrder.CDAB)),
        RegisterMap(plate, INT16),
        RegisterMap(with_valve(unit="%")),
        RegisterMap(with_valve(maximum=0.3)),
        RegisterMap(with_valve(neutral=0.2)),
        RegisterMap(rig_nameplate(n_assets=3)),
        RegisterMap(replace(plate, period_s=2.0)),
    ]
    assert len({RegisterMap(plate).hash, *(m.hash for m in others)}) == 8
    assert RegisterMap(with_valve(description="a valve")).hash == RegisterMap(plate).hash


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 12), st.sampled_from(list(Encoding)), st.data())
def test_reads_cover_all_that_is_asked_in_requests_of_at_most_125_and_split_no_number(
    n_assets: int, n_measured: int, encoding: Encoding, data: st.DataObject
) -> None:
    site = RegisterMap(rig_nameplate(n_assets, n_measured), MapSettings(encoding))
    everything = (*site.measured, *site.obeyed)
    wanted = data.draw(st.lists(st.sampled_from(everything), unique_by=lambda e: e.register))
    blocks = rm.read_blocks(site, wanted)
    assert all(1 <= b.count <= 125 and b.register + b.count <= site.n_input for b in blocks)
    assert blocks[0].register == 0
    assert blocks[0].count >= Header.SIZE
    covered = [range(b.register, b.register + b.count) for b in blocks]
    for entry in wanted:
        assert any(entry.register in span and entry.end - 1 in span for span in covered)
    assert len(blocks) == 1 or site.tail in covered[-1]  # what shows that a reading was torn comes last


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.sampled_from(list(Encoding)), st.data())
def test_writes_touch_exactly_what_is_asked_in_requests_of_at_most_123(
    n_assets: int, encoding: Encoding, data: st.DataObject
) -> None:
    site = RegisterMap(rig_nameplate(n_assets, 1), MapSettings(encoding))
    wanted = data.draw(st.lists(st.sampled_from(site.commanded), unique_by=lambda e: e.register))
    blocks = rm.write_blocks(wanted)
    assert all(1 <= b.count <= 123 for b in blocks)
    touched = [k for b in blocks for k in range(b.register, b.register + b.count)]
    assert touched == sorted(k for e in wanted for k in range(e.register, e.end))


@pytest.mark.parametrize("n_assets", [1, 2, 80])
def test_a_nameplate_comes_back_out_of_its_registers(n_assets: int) -> None:
    plate = rig_nameplate(n_assets)
    words = rm.plate_words(plate)
    assert all(0 <= word <= 0xFFFF for word in words)
    assert rm.plate_of_words(words[2:], rm.number_of(words[:2])) == plate


def test_registers_without_a_nameplate_are_told_from_one() -> None:
    words = rm.plate_words(rig_nameplate())
    with pytest.raises(PlantError, match="hold no nameplate"):
        rm.plate_of_words([0] * 50, 100)
    with pytest.raises(PlantError, match="cut off"):
        rm.plate_of_words(words[2:], rm.number_of(words[:2]) - 8)


@given(st.integers(0, 2**64 - 1))
def test_a_number_of_several_words_has_the_most_significant_first(number: int) -> None:
    words = rm.words_of(number, 4)
    assert b"".join(w.to_bytes(2, "big") for w in words) == number.to_bytes(8, "big")
    assert rm.number_of(words) == number


def test_the_format_word_names_encoding_and_order() -> None:
    for encoding in Encoding:
        for order in WordOrder:
            settings_ = MapSettings(encoding, order, unit=3)
            assert MapSettings.of_word(settings_.word, 3) == settings_
    with pytest.raises(PlantError, match="format word 0x0007"):
        MapSettings.of_word(7, 1)


def test_the_table_lists_every_register_once_with_range_and_name() -> None:
    site = RegisterMap(rig_nameplate(), INT16)
    lines = site.table().splitlines()
    assert lines[0] == f"rig: encoding int16, order abcd, unit 1, map {site.hash[:16]}"
    assert len(lines) == 1 + 2 + 4 + (len(Header) - 1) + 6 + 4 + 2
    assert lines[3].split() == ["holding", "2", "int16", "x", "1e-4", "[0.1,", "0.35]", "pu", "rig/R1/valve_pu"]
    assert next(row for row in lines if "clock_us" in row).split()[:3] == ["input", "13", "uint64"]


def test_a_site_that_does_not_fit_is_named_with_a_remedy() -> None:
    with pytest.raises(NameplateError, match="take the encoding int16"):
        RegisterMap(rig_nameplate(n_assets=300, n_measured=90))
    RegisterMap(rig_nameplate(n_assets=300, n_measured=90), INT16)


def test_a_unit_that_no_server_has_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="from 1 to 247"):
        MapSettings(unit=248)
