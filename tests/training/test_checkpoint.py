from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from twinloop.envs.errors import RunError
from twinloop.training.benchmarks.reference_task import DriftConfig, drift_configuration, drift_problem
from twinloop.training.checkpoint import CheckpointStore
from twinloop.training.configuration import TrainConfiguration
from twinloop.training.run import resume, train

LEARNERS: dict[str, dict[str, Any]] = {
    "ppo": {"kind": "ppo", "epochs": 1, "minibatches": 2},
    "ppo gru": {"kind": "ppo", "epochs": 1, "minibatches": 2, "gru": 4, "sequence_steps": 4},
    "mappo": {"kind": "mappo", "epochs": 1, "minibatches": 2},
    "happo": {"kind": "happo", "epochs": 1, "minibatches": 2},
    "masac": {"kind": "masac", "hidden": [8], "batch": 4, "buffer": 64, "warm_up": 8},
    "analytic": {"kind": "analytic"},
    "sb3": {"kind": "sb3", "algorithm": "PPO", "options": {"batch_size": 8, "n_epochs": 1}},
}


def state(iteration: int) -> dict[str, Any]:
    return {"iteration": iteration, "weights": torch.full((1000,), float(iteration)), "shards": [{"step": iteration}]}


def store_of(folder: Path, n: int, keep: int = 3) -> CheckpointStore:
    store = CheckpointStore(folder, keep)
    for iteration in range(1, n + 1):
        store.save(state(iteration))
    return store


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    loaded, complaints = store_of(tmp_path, 2).load_newest()
    assert loaded["iteration"] == 2
    assert loaded["shards"] == [{"step": 2}]
    assert torch.equal(loaded["weights"], state(2)["weights"])
    assert complaints == []


def test_the_newest_few_are_kept(tmp_path: Path) -> None:
    store = store_of(tmp_path, 6)
    assert [p.name for p in store.paths()] == [f"iteration_{i:08d}.pt" for i in (4, 5, 6)]
    assert len(list(tmp_path.iterdir())) == 6  # each with its checksum, nothing partial


@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_truncated_checkpoint_falls_back_to_the_one_before(tmp_path: Path, size: int) -> None:
    store = store_of(tmp_path, 3)
    newest = store.paths()[-1]
    data = newest.read_bytes()
    newest.write_bytes(data[:size])
    loaded, complaints = store.load_newest()
    assert loaded["iteration"] == 2
    assert len(complaints) == 1
    assert "iteration_00000003.pt: does not match its checksum" in complaints[0]


def test_a_single_flipped_bit_is_found(tmp_path: Path) -> None:
    store = store_of(tmp_path, 2)
    data = bytearray(store.paths()[-1].read_bytes())
    data[len(data) // 2] ^= 1
    store.paths()[-1].write_bytes(data)
    assert store.load_newest()[0]["iteration"] == 1


def test_a_crash_before_the_checksum_falls_back(tmp_path: Path) -> None:
    store = store_of(tmp_path, 2)
    store.paths()[-1].with_suffix(".pt.sha256").unlink()
    loaded, complaints = store.load_newest()
    assert loaded["iteration"] == 1
    assert "not written to its end" in complaints[0]


def test_a_crash_before_the_rename_is_invisible(tmp_path: Path) -> None:
    store = store_of(tmp_path, 2)
    (tmp_path / "iteration_00000003.partial").write_bytes(b"half of a checkp")
    loaded, complaints = store.load_newest()
    assert loaded["iteration"] == 2
    assert complaints == []


def test_without_a_whole_checkpoint_the_error_lists_why(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no checkpoint to resume from; the run ended before its first one"):
        CheckpointStore(tmp_path / "none", 3).load_newest()
    store = store_of(tmp_path, 2)
    for path in store.paths():
        path.write_bytes(b"")
    with pytest.raises(RunError, match=r"00000002\.pt: does not match.*00000001\.pt: does not match"):
        store.load_newest()


def test_another_format_is_refused(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, 3)
    store.save({**state(1), "format_version": 99})
    with pytest.raises(RunError, match="format version 99, this twinloop reads 1"):
        store.load_newest()


def test_the_checksum_is_what_sha256sum_reads(tmp_path: Path) -> None:
    store = store_of(tmp_path, 1)
    checksum = store.paths()[0].with_suffix(".pt.sha256").name
    assert subprocess.run(["sha256sum", "--check", checksum], cwd=tmp_path, check=False).returncode == 0


def test_saving_an_iteration_again_replaces_it(tmp_path: Path) -> None:
    store = store_of(tmp_path, 2)
    store.save({**state(2), "weights": torch.zeros(3)})
    assert torch.equal(store.load_newest()[0]["weights"], torch.zeros(3))


@pytest.mark.parametrize("learner", list(LEARNERS))
def test_every_learner_goes_on_from_the_checkpoint_before_a_truncated_one_to_the_same_bits(
    tmp_path: Path, learner: str
) -> None:
    whole = drift_configuration(3, site=DriftConfig(n_assets=2), checkpoint_every=1, log={"tensorboard": False})
    data = {**whole.model_dump(), "learner": LEARNERS[learner], "rollout": {"replicas": 2, "steps": 8}}
    config = TrainConfiguration.model_validate({**data, "site": whole.site})
    result = train(config, tmp_path / "run", problem=drift_problem(config))
    before = (result.artifact / "weights_asset.npz").read_bytes()
    newest = sorted((result.folder / "checkpoints").glob("*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    said: list[str] = []
    again = resume(result.folder, problem=drift_problem(config), on_warning=said.append)
    assert [line.partition(": ")[0] for line in said] == [str(newest)]
    assert (again.artifact / "weights_asset.npz").read_bytes() == before


def test_what_was_saved_on_a_gpu_is_read_on_a_machine_without_one(tmp_path: Path) -> None:
    """The file is what a GPU run writes: torch notes for each tensor where it lay, and that is all that differs."""
    store = store_of(tmp_path, 1)
    path = store.paths()[0]
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    here, there = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:1"
    pickled = next(name for name in entries if name.endswith("/data.pkl"))
    assert here in entries[pickled]
    entries[pickled] = entries[pickled].replace(here, there)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    path.with_suffix(".pt.sha256").write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(path, weights_only=True)
    loaded, _ = store.load_newest("cpu")
    assert loaded["weights"].device.type == "cpu"
    assert torch.equal(loaded["weights"], state(1)["weights"])
