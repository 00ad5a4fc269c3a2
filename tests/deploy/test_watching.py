"""A run watches what there is to watch, and says why the policy's inputs are not among it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from twinloop.agents.artifact_inputs import InputSample
from twinloop.agents.controllers.reference import NeutralPolicy
from twinloop.agents.own_signals import OwnSignalsEncoder
from twinloop.deploy.shield import Code, Shield, Source
from twinloop.deploy.shield.state import as_arrays, from_arrays
from twinloop.deploy.watching import watch
from twinloop.envs.constraint import MeasuredConstraint, declare
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Quality, Telemetry

PLATE = Nameplate(
    site="ovens",
    period_s=1.0,
    groups=(
        Group("oven", ("O1", "O2"), (Signal("heat", "1", 0.0, 1.0),), (Signal("gas", "1", 0.0, 1.0, neutral=0.5),)),
    ),
)
HOT = MeasuredConstraint("not too hot", "oven", "heat", "1", maximum=0.9)


@dataclass(frozen=True)
class Sampled:
    inputs: Mapping[str, InputSample]
    encoders: Mapping[str, OwnSignalsEncoder]


def sampled(n: int) -> Sampled:
    features = np.random.default_rng(0).normal(0.0, 0.1, (n, 1)).astype(np.float32)
    samples = {"oven": InputSample(features, np.arange(n))} if n else {}
    return Sampled(samples, {"oven": OwnSignalsEncoder(PLATE, "oven")})


def told(n: int) -> tuple[list[str], list[str]]:
    words: list[str] = []
    monitors = watch(declare(PLATE, [HOT]), sampled(n), words.append)
    return [m.name for m in monitors], words


def test_a_policy_with_a_sample_is_watched() -> None:
    assert told(3000) == (["robustness", "distribution"], [])


def test_a_policy_with_too_small_a_sample_is_not_watched_and_that_is_said() -> None:
    monitors, words = told(100)
    assert monitors == ["robustness"]
    assert "not watched: distribution monitor, oven: 50 calibration scores" in words[0]


def test_an_artifact_without_a_sample_is_not_watched_and_that_is_said() -> None:
    monitors, words = told(0)
    assert monitors == ["robustness"]
    assert "holds no sample" in words[0]


def test_a_rule_has_no_inputs_to_watch() -> None:
    words: list[str] = []
    assert watch(declare(PLATE), NeutralPolicy(PLATE), words.append) == ()
    assert words == []


def test_an_oven_whose_inputs_are_unlike_training_goes_to_its_fallback_and_the_other_does_not() -> None:
    declaration = declare(PLATE)
    shield = Shield(declaration, monitors=watch(declaration, sampled(3000), print))
    state = shield.start()
    sources, codes = [], set()
    for k in range(20):
        values = np.array([[0.5], [0.5 if k < 5 else 0.85]])
        telemetry = Telemetry(
            values={"oven": values},
            source_time_s={"oven": np.full((2, 1), float(k))},
            quality={"oven": np.full((2, 1), Quality.GOOD, np.int8)},
            received_time_s=float(k),
            sequence=k,
        )
        decision = shield.filter(telemetry, {"oven": np.full((2, 1), 0.6)}, float(k), state)
        state = decision.state
        sources.append(decision.source)
        codes |= {r.code for r in decision.reasons if r.asset == "oven/O2"}
    assert all(source["oven/O1"] is Source.POLICY for source in sources)
    assert sources[6]["oven/O2"] is Source.POLICY
    assert sources[-1]["oven/O2"] is Source.FALLBACK
    assert Code.MONITOR_OUT_OF_DISTRIBUTION in codes


def test_what_monitors_remember_survives_being_stored() -> None:
    declaration = declare(PLATE, [HOT])
    shield = Shield(declaration, monitors=watch(declaration, sampled(3000), print))
    state = stored = shield.start()
    for k in range(30):
        heat = np.array([[0.5], [0.95 if 10 <= k < 13 else 0.5 + 0.01 * k]])
        telemetry = Telemetry(
            values={"oven": heat},
            source_time_s={"oven": np.full((2, 1), float(k))},
            quality={"oven": np.full((2, 1), Quality.GOOD, np.int8)},
            received_time_s=float(k),
            sequence=k,
        )
        proposed = {"oven": np.full((2, 1), 0.6)}
        one = shield.filter(telemetry, proposed, float(k), state)
        other = shield.filter(telemetry, proposed, float(k), stored)
        assert (one.source, one.mode, one.reasons) == (other.source, other.mode, other.reasons)
        state, stored = one.state, from_arrays(as_arrays(other.state))
        kept, again = as_arrays(state), as_arrays(stored)
        assert kept.keys() == again.keys()
        assert all(np.array_equal(kept[name], again[name], equal_nan=True) for name in kept)
    assert any(np.any(memory["odd/oven"]) for memory in state.monitors if "odd/oven" in memory)
