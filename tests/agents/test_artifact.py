"""An artifact acts as its network does, without torch; a damaged one, or one of another site, is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from twinloop.agents.action_layout import ActionLayout
from twinloop.agents.artifact import MANIFEST, attach_report, load_artifact, save_artifact
from twinloop.agents.forward import PolicyNetwork
from twinloop.agents.layers import Dense
from twinloop.agents.onnx_graph import to_onnx
from twinloop.agents.own_signals import OwnSignalsEncoder
from twinloop.agents.policy import Policy
from twinloop.envs.errors import ArtifactError, NameplateError
from twinloop.envs.nameplate import Nameplate
from twinloop.envs.registry import load_site
from twinloop.envs.twin import Observation
from twinloop.envs.wind_farm.nameplate import GROUP, make_nameplate


def farm(n: int = 3, site: str = "farm", pitch_m: float = 630.0) -> Nameplate:
    return make_nameplate(site, 10.0, n, tuple((pitch_m * i, 0.0, 126.0, 90.0, 5000.0) for i in range(n)))


def network(plate: Nameplate, seed: int = 0, n_features: int | None = None) -> PolicyNetwork:
    rng = np.random.default_rng(seed)
    n = n_features or OwnSignalsEncoder(plate, GROUP).n_features
    return PolicyNetwork(
        feature_mean=np.zeros(n, np.float32),
        feature_std=np.ones(n, np.float32),
        feature_clip=10.0,
        layers=(
            Dense(rng.normal(size=(1, n, 16)).astype(np.float32), np.zeros((1, 16), np.float32), "tanh"),
            Dense(rng.normal(size=(1, 16, 1)).astype(np.float32), np.zeros((1, 1), np.float32)),
        ),
        layout=ActionLayout.of(plate.group(GROUP), [plate.group(GROUP).commanded[0].name]),
    )


def save(folder: Path, **changes: Any) -> Path:
    plate = changes.pop("nameplate", farm())
    complete: dict[str, Any] = {
        "nameplate": plate,
        "weights": {GROUP: network(plate)},
        "encoders": {},
        "scope": "site",
        "provenance": {"seed": 7, "versions": {"numpy": np.__version__}},
        "report": {"gain_pct": np.float64(4.5), "interval": (1.0, float("nan"))},
    }
    return save_artifact(folder, **{**complete, **changes})


def observation(plate: Nameplate, n_rows: int = 2) -> Observation:
    group = plate.group(GROUP)
    share = np.random.default_rng(1).uniform(size=(n_rows, group.n_assets, len(group.measured)))
    measured = group.lower("measured") + share * (group.upper("measured") - group.lower("measured"))
    statics = np.broadcast_to(group.statics_array(), (n_rows, *group.statics_array().shape))
    present = np.ones((n_rows, group.n_assets), dtype=np.bool_)
    return Observation({GROUP: measured}, {GROUP: statics}, {GROUP: present}, 10.0)


def test_an_artifact_acts_as_its_network_and_encoder_do(tmp_path: Path) -> None:
    plate = farm()
    policy = load_artifact(save(tmp_path / "a"), plate)
    assert isinstance(policy, Policy)
    seen = observation(plate)
    commands, _ = policy.act(seen, policy.start(2))
    features, _ = OwnSignalsEncoder(plate, GROUP).encode(seen.measured[GROUP], None, seen.present[GROUP], {}, 10.0)
    np.testing.assert_allclose(commands[GROUP], network(plate).forward(features)[0], atol=1e-4)
    assert commands[GROUP].dtype == np.float64
    assert np.ptp(commands[GROUP][..., 0]) > 1.0


def test_an_artifact_keeps_nameplate_provenance_and_report(tmp_path: Path) -> None:
    policy = load_artifact(save(tmp_path / "a"))
    assert policy.nameplate == farm()
    assert policy.about["provenance"]["seed"] == 7
    assert policy.about["report"] == {"gain_pct": 4.5, "interval": [1.0, None]}
    assert policy.about["nameplate_hash"] == farm().hash


def test_the_manifest_is_what_sha256sum_reads(tmp_path: Path) -> None:
    folder = save(tmp_path / "a")
    checked = subprocess.run(["sha256sum", "-c", MANIFEST], cwd=folder, capture_output=True, text=True, check=False)
    assert checked.returncode == 0
    assert checked.stdout.count("OK") == 5


def test_absent_assets_stay_neutral_and_bad_features_come_out_as_nan(tmp_path: Path) -> None:
    plate = farm()
    policy = load_artifact(save(tmp_path / "a"))
    seen = observation(plate, 1)
    seen.present[GROUP][0, 0] = False
    seen.measured[GROUP][0, 1, 3] = np.nan
    commands, _ = policy.act(seen, policy.start(1))
    np.testing.assert_array_equal(commands[GROUP][0, 0], plate.group(GROUP).neutral())
    assert np.isnan(commands[GROUP][0, 1]).all()
    assert np.isfinite(commands[GROUP][0, 2]).all()


EDGE_PROGRAM = """
import sys
import numpy as np
from twinloop.agents.artifact import load_artifact
from twinloop.envs.twin import Observation

policy = load_artifact(sys.argv[1])
group = policy.nameplate.groups[0]
shape = (1, group.n_assets)
seen = Observation(
    {group.name: np.ones((*shape, len(group.measured)))},
    {group.name: group.statics_array()[None]},
    {group.name: np.ones(shape, dtype=bool)},
    10.0,
)
commands, _ = policy.act(seen, policy.start(1))
assert commands[group.name].shape == (*shape, len(group.commanded))
heavy = {"torch", "ray", "stable_baselines3", "onnx", "gymnasium", "pettingzoo", "floris", "scipy"}
print(sorted(heavy & {name.split(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize("encoder", [OwnSignalsEncoder.name, "relational"])
def test_acting_needs_numpy_and_onnxruntime_alone(tmp_path: Path, encoder: str) -> None:
    plate = farm()
    settings: dict[str, Any] = {}
    n_features = None
    if encoder != OwnSignalsEncoder.name:
        built = load_site("wind_farm").encoder(encoder, plate, settings)
        settings, n_features = built.settings(), built.n_features
    folder = save(
        tmp_path / "a",
        weights={GROUP: network(plate, n_features=n_features)},
        encoders={GROUP: {"name": encoder, "settings": settings}},
        site="wind_farm",
        scope="interface",
    )
    ran = subprocess.run([sys.executable, "-c", EDGE_PROGRAM, folder], capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "[]", ran.stderr


def test_an_artifact_of_another_site_is_refused_with_the_signals_that_differ(tmp_path: Path) -> None:
    plate = farm()
    group = plate.groups[0]
    slower = dataclasses.replace(group.commanded[0], rate_limit_per_s=0.1)
    in_watts = dataclasses.replace(group.measured[3], name="power_w", unit="W", maximum=3e7)
    other = dataclasses.replace(
        plate,
        groups=(
            dataclasses.replace(
                group,
                commanded=(slower, *group.commanded[1:]),
                measured=(*group.measured[:3], in_watts, *group.measured[4:]),
            ),
        ),
    )
    for scope in ("site", "interface"):
        folder = save(tmp_path / scope, scope=scope)
        with pytest.raises(ArtifactError) as refused:
            load_artifact(folder, other)
        message = str(refused.value)
        assert "turbine/yaw_offset_deg: rate_limit_per_s 0.3 here, 0.1 there" in message
        assert "turbine/power_kw: missing measured signal" in message
        assert "turbine/power_w: unexpected measured signal" in message


def test_a_policy_of_one_site_is_refused_on_another_layout_that_a_transferable_one_serves(tmp_path: Path) -> None:
    larger = farm(5, "larger", 800.0)
    with pytest.raises(ArtifactError, match=r"assets \['WT01', 'WT02', 'WT03'\] here"):
        load_artifact(save(tmp_path / "site"), larger)
    policy = load_artifact(save(tmp_path / "interface", scope="interface"), larger)
    commands, _ = policy.act(observation(larger), policy.start(2))
    assert commands[GROUP].shape == (2, 5, 2)


@pytest.mark.parametrize("name", ["artifact.json", "nameplate.json", f"policy_{GROUP}.onnx", f"weights_{GROUP}.npz"])
def test_each_file_that_is_cut_missing_or_changed_is_named(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / "a") / name
    data = path.read_bytes()
    for damaged in (data[: len(data) // 2], b"", data[:-1] + bytes([data[-1] ^ 1])):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=f"changed: {name}"):
            load_artifact(path.parent)
    path.unlink()
    with pytest.raises(ArtifactError, match=f"missing: {name}"):
        load_artifact(path.parent)


def test_a_file_that_the_manifest_does_not_know_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path / "a")
    (folder / "patch.py").write_text("")
    with pytest.raises(ArtifactError, match=r"not in the manifest: patch\.py"):
        load_artifact(folder)


@pytest.mark.parametrize("manifest", [None, "", "0" * 63, "../../etc/passwd", "\x00\xff"])
def test_a_folder_with_a_broken_manifest_is_no_artifact(tmp_path: Path, manifest: str | None) -> None:
    folder = save(tmp_path / "a")
    if manifest is None:
        (folder / MANIFEST).unlink()
    else:
        (folder / MANIFEST).write_text(manifest)
    with pytest.raises(ArtifactError):
        load_artifact(folder)


def test_a_folder_that_does_not_exist_is_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no policy artifact"):
        load_artifact(tmp_path / "nowhere")


def resealed(folder: Path, name: str, data: bytes) -> None:
    """Replace a file and write a manifest that fits it."""
    (folder / name).write_bytes(data)
    names = sorted(p.name for p in folder.iterdir() if p.name != MANIFEST)
    lines = [f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n" for n in names]
    (folder / MANIFEST).write_text("".join(lines))


def test_a_graph_that_numpy_does_not_reproduce_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "a")
    resealed(folder, f"policy_{GROUP}.onnx", to_onnx(network(farm(), seed=1)))
    with pytest.raises(ArtifactError, match="not the same network"):
        load_artifact(folder)


def test_a_graph_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "a")
    resealed(folder, f"policy_{GROUP}.onnx", b"no graph at all")
    with pytest.raises(ArtifactError, match="onnxruntime cannot read it"):
        load_artifact(folder)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("format_version", 99, "format version 99"),
        ("groups", ["pump"], "cannot be read"),
        ("encoders", {GROUP: {"name": "clairvoyant", "settings": {}}}, "clairvoyant"),
    ],
)
def test_a_description_that_this_version_cannot_use_is_refused(
    tmp_path: Path, key: str, value: Any, words: str
) -> None:
    folder = save(tmp_path / "a", site="wind_farm")
    about = json.loads((folder / "artifact.json").read_text())
    resealed(folder, "artifact.json", json.dumps({**about, key: value}).encode())
    with pytest.raises(ArtifactError, match=words):
        load_artifact(folder)


def test_a_network_of_other_widths_than_its_encoder_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", weights={GROUP: network(farm(), n_features=4)})
    with pytest.raises(ArtifactError, match="has 4 features"):
        load_artifact(folder)


def test_saving_again_replaces_the_artifact_and_leaves_nothing_behind(tmp_path: Path) -> None:
    first = load_artifact(save(tmp_path / "a")).hash
    second = load_artifact(save(tmp_path / "a", weights={GROUP: network(farm(), seed=5)})).hash
    assert first != second
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_saving_never_overwrites_what_is_no_artifact(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(ArtifactError, match="no artifact"):
        save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(NameplateError, match="pump"):
        save(tmp_path / "a", weights={"pump": network(farm())})
    assert not list(tmp_path.iterdir())


def test_own_signals_are_the_same_in_numpy_and_torch_and_zero_where_absent() -> None:
    plate = farm()
    seen = observation(plate)
    seen.present[GROUP][1, 2] = False
    encoder = OwnSignalsEncoder(plate, GROUP)
    arrays = seen.measured[GROUP], seen.statics[GROUP].copy(), seen.present[GROUP]
    told, _ = encoder.encode(*arrays, encoder.start(2, 3, arrays[0]), 10.0)
    measured, statics, present = (torch.from_numpy(a) for a in arrays)
    tensors, _ = encoder.encode(measured, statics, present, {}, 10.0)
    np.testing.assert_allclose(told, tensors.numpy(), atol=1e-14)
    assert told.shape == (2, 3, encoder.n_features)
    assert np.abs(told).max() <= 1.0
    np.testing.assert_array_equal(told[1, 2], 0.0)


def test_an_attached_report_is_kept_and_leaves_the_policy_its_name(tmp_path: Path) -> None:
    folder = save(tmp_path / "artifact")
    before = load_artifact(folder)
    attach_report(folder, "plant", {"gain_pct": 5.0})
    attach_report(folder, "plant", {"gain_pct": 6.0})
    after = load_artifact(folder)
    assert after.about["report"] == {**before.about["report"], "plant": {"gain_pct": 6.0}}
    assert after.hash == before.hash
    (folder / "report.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"report\.json"):
        load_artifact(folder)
