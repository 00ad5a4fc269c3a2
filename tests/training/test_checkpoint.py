from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from twinloop.envs.errors import RunError
from twinloop.training.checkpoint import CheckpointStore


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
