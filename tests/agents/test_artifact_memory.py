"""Artifacts that remember, choose levels under masks, and hold separate weights for each asset."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.lever_site import LEVELS, LeverConfig, LeverEncoder, lever_nameplate

from twinloop.agents.action_layout import ActionLayout
from twinloop.agents.artifact import MANIFEST, ArtifactPolicy, load_artifact, save_artifact
from twinloop.agents.artifact_files import write_folder
from twinloop.agents.conformance import check_policy
from twinloop.agents.forward import PolicyNetwork
from twinloop.agents.layers import Dense, GruWeights, Layer, LstmWeights
from twinloop.agents.onnx_graph import to_onnx
from twinloop.envs.errors import ArtifactError
from twinloop.envs.nameplate import Nameplate
from twinloop.envs.twin import Observation

N = 3


@pytest.fixture(autouse=True)
def lever_is_installed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Announce the site as a package of its own would."""
    folder = tmp_path_factory.mktemp("installed")
    about = folder / "levers-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: levers\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[twinloop.sites]\nlever = tests.lever_site:LEVER_SITE\n")
    monkeypatch.syspath_prepend(str(folder))


def plate(commands: Any = "both", n_assets: int = N) -> Nameplate:
    return lever_nameplate(LeverConfig(commands=commands, n_assets=n_assets))


def network(nameplate: Nameplate, kind: str = "gru", stacks: int = 1, seed: int = 0) -> PolicyNetwork:
    rng, layout = np.random.default_rng(seed), ActionLayout.of(nameplate.groups[0], None)

    def draw(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    layers: list[Layer] = []
    width = 2
    if kind == "gru":
        layers = [GruWeights(draw(stacks, 2, 12), draw(stacks, 4, 12), draw(stacks, 12), draw(stacks, 12))]
    if kind == "lstm":
        layers = [LstmWeights(draw(stacks, 2, 16), draw(stacks, 4, 16), draw(stacks, 16), draw(stacks, 16))]
    if layers:
        width = layers[-1].n_outputs
    layers.append(Dense(draw(stacks, width, layout.n_outputs), draw(stacks, layout.n_outputs)))
    return PolicyNetwork(np.zeros(2, np.float32), np.ones(2, np.float32), 10.0, tuple(layers), layout)


def save(folder: Path, nameplate: Nameplate, policy: PolicyNetwork, **changes: Any) -> Path:
    told: dict[str, Any] = {
        "nameplate": nameplate,
        "weights": {"lever": policy},
        "encoders": {"lever": {"name": "lever", "settings": {}}},
        "scope": "site",
        "provenance": {},
        "report": {},
        "site": "lever",
    }
    return save_artifact(folder, **{**told, **changes})


def loaded(tmp_path: Path, commands: Any = "both", kind: str = "gru", stacks: int = 1) -> ArtifactPolicy:
    return load_artifact(save(tmp_path / "a", plate(commands), network(plate(commands), kind, stacks)))


def observation(seed: int, n_rows: int = 2, absent: tuple[int, ...] = ()) -> Observation:
    measured = np.random.default_rng(seed).uniform(-2.0, 2.0, (n_rows, N, 2))
    measured[..., 1] = np.random.default_rng(seed).choice(LEVELS, (n_rows, N))
    present = np.ones((n_rows, N), np.bool_)
    present[:, list(absent)] = False
    return Observation({"lever": measured}, {"lever": np.zeros((n_rows, N, 0))}, {"lever": present}, 1.0)


@pytest.mark.parametrize("commands", ["continuous", "levels", "many", "both"])
@pytest.mark.parametrize(("kind", "stacks"), [("gru", 1), ("gru", N), ("lstm", N), ("plain", 1)])
def test_an_artifact_of_any_architecture_keeps_the_policy_contract(
    tmp_path: Path, commands: Any, kind: str, stacks: int
) -> None:
    check_policy(loaded(tmp_path, commands, kind, stacks), plate(commands))


@pytest.mark.parametrize(("kind", "stacks"), [("gru", 1), ("lstm", N)])
def test_an_artifact_acts_and_remembers_as_its_network_does(tmp_path: Path, kind: str, stacks: int) -> None:
    policy, net = loaded(tmp_path, "both", kind, stacks), network(plate(), kind, stacks)
    encoder = LeverEncoder(len(LEVELS))
    memory, kept = policy.start(2), None
    for seed in range(5):
        seen = observation(seed)
        commands, memory = policy.act(seen, memory)
        legal = encoder.legal(seen.measured["lever"], None, None)
        expected, kept = net.forward(seen.measured["lever"], kept, legal)
        np.testing.assert_allclose(commands["lever"], expected, atol=1e-5)
        np.testing.assert_allclose(memory["lever/network.memory"], kept, atol=1e-5)


def test_levels_are_commanded_exactly_and_an_illegal_one_never(tmp_path: Path) -> None:
    policy = loaded(tmp_path, "many")
    memory, chosen = policy.start(50), set()
    for seed in range(4):
        seen = observation(seed, 50)
        commands, memory = policy.act(seen, memory)
        gear = commands["lever"][..., 0]
        assert gear.dtype == np.float64
        assert np.isin(gear, LEVELS).all()
        assert not np.any(gear == seen.measured["lever"][..., 1])
        chosen |= set(gear.ravel())
    assert len(chosen) > 1


def test_an_absent_asset_forgets_and_comes_back_as_new(tmp_path: Path) -> None:
    policy = loaded(tmp_path)
    _, memory = policy.act(observation(0), policy.start(2))
    assert np.abs(memory["lever/network.memory"]).min() > 0
    commands, memory = policy.act(observation(1, absent=(1,)), memory)
    np.testing.assert_array_equal(commands["lever"][:, 1], np.tile(plate().groups[0].neutral(), (2, 1)))
    np.testing.assert_array_equal(memory["lever/network.memory"][:, 1], 0.0)
    back, of_back = policy.act(observation(2), memory)
    new, of_new = policy.act(observation(2), policy.start(2))
    np.testing.assert_array_equal(back["lever"][:, 1], new["lever"][:, 1])
    same = of_back["lever/network.memory"] == of_new["lever/network.memory"]
    assert same[:, 1].all()
    assert not same[:, [0, 2]].all(-1).any()


def test_readings_that_are_not_finite_leave_no_trace_in_the_memory(tmp_path: Path) -> None:
    policy = loaded(tmp_path)
    _, memory = policy.act(observation(0), policy.start(2))
    bad = observation(1)
    bad.measured["lever"][0, 2, 0] = np.nan
    commands, after = policy.act(bad, memory)
    assert np.isnan(commands["lever"][0, 2]).all()
    assert np.isfinite(commands["lever"][1]).all()
    np.testing.assert_array_equal(after["lever/network.memory"][0, 2], memory["lever/network.memory"][0, 2])
    assert np.isfinite(after["lever/network.memory"]).all()


def test_separate_weights_are_bound_to_the_very_site(tmp_path: Path) -> None:
    separate = network(plate(), stacks=N)
    with pytest.raises(
        ArtifactError, match=r"separate weights for each of its 3 assets.*scope 'site', not 'interface'"
    ):
        save(tmp_path / "a", plate(), separate, scope="interface")
    with pytest.raises(ArtifactError, match=r"separate weights for 3 assets, this site has 4"):
        save(tmp_path / "a", plate(n_assets=4), separate)
    folder = save(tmp_path / "a", plate(), separate)
    with pytest.raises(ArtifactError, match="serves no other plant than"):
        load_artifact(folder, plate(n_assets=4))
    resealed(folder, lambda about: {**about, "scope": "interface"})
    with pytest.raises(ArtifactError, match=r"separate weights for 3 assets, this site has 4"):
        load_artifact(folder, plate(n_assets=4))


def test_shared_weights_with_memory_serve_another_number_of_assets(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", plate(), network(plate()), scope="interface")
    check_policy(load_artifact(folder, plate(n_assets=5)), plate(n_assets=5))


def resealed(folder: Path, change: Callable[[Any], Any], graph: bytes | None = None) -> None:
    """Change an artifact's description or graph, with a manifest that fits."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}
    files["artifact.json"] = json.dumps(change(json.loads(files["artifact.json"]))).encode()
    if graph is not None:
        files["policy_lever.onnx"] = graph
    write_folder(folder, files)


def test_a_graph_that_remembers_otherwise_is_refused(tmp_path: Path) -> None:
    net = network(plate())
    cell = net.layers[0]
    assert isinstance(cell, GruWeights)
    other = GruWeights(cell.input, cell.recurrent, cell.input_bias + np.float32(0.01), cell.recurrent_bias)
    folder = save(tmp_path / "a", plate(), net)
    changed = PolicyNetwork(net.feature_mean, net.feature_std, 10.0, (other, *net.layers[1:]), net.layout)
    resealed(folder, lambda about: about, to_onnx(changed))
    with pytest.raises(ArtifactError, match="not the same network"):
        load_artifact(folder)
    resealed(folder, lambda about: about, to_onnx(network(plate(), "plain")))
    with pytest.raises(ArtifactError, match=r"policy_lever\.onnx does not take its inputs"):
        load_artifact(folder)


def test_an_artifact_of_format_1_says_what_to_do(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", plate(), network(plate()))
    resealed(folder, lambda about: {**about, "format_version": 1})
    with pytest.raises(ArtifactError, match=r"format version 1, this twinloop reads 2; export the policy again"):
        load_artifact(folder)


def test_levels_that_the_site_no_longer_has_are_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", plate("levels"), network(plate("many")))
    with pytest.raises(ArtifactError, match=r"has 2 commands|chooses among levels"):
        load_artifact(folder)
