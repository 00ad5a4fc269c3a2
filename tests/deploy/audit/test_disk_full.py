"""On a real file system that is full: what can't be logged is not written to the plant."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys
from pathlib import Path
from tests.deploy.audit.pumps import PUMPS, Pumps
from twinloop.agents.controllers.reference import RandomPolicy
from twinloop.deploy.audit.heads import sign_head
from twinloop.deploy.audit.history import export
from twinloop.deploy.audit.signing import load_private, make_keys
from twinloop.deploy.audit.verify import audit
from twinloop.deploy.journal import Journal, read
from twinloop.deploy.runtime import Runtime, RuntimeSettings
from twinloop.deploy.shield import Shield
from twinloop.envs.constraint import declare
from twinloop.envs.errors import JournalError

full, keys = Path(sys.argv[1]), Path(sys.argv[2])
path, plant, failed = full / "j.sqlite", Pumps(steady=True), 0
settings = RuntimeSettings(retry_wait_s=0.0, hand_back_periods=0)

def control(n_periods):
    return Runtime(plant, RandomPolicy(PUMPS), Shield(declare(PUMPS)), Journal(path), settings).run(n_periods)

def decisions():
    return sum(row["kind"] == "decision" for row in read(path))

summary = control(5000)
assert summary.ending == "journal lost", summary
assert "full" in summary.detail and "free disk space" in summary.detail, summary.detail
assert os.statvfs(full).f_bavail < 16, "the disk is not full"
assert 50 < plant.writes == decisions() < 5000, (plant.writes, decisions())
lost = plant.writes
assert control(10).ending == "journal lost"     # a start on a full disk
assert plant.writes == lost, "written without a row"
assert audit(path).is_sound, audit(path).findings

make_keys(keys)
key = load_private(keys / "journal.key", path)
for what, act in (("head", lambda: sign_head(path, key, full / "heads")), ("export", lambda: export(path, full / "h"))):
    try:
        act()
        raise SystemExit(f"{what}: went well on a full disk")
    except JournalError as error:
        assert "can't be written" in str(error) or "no head can be written" in str(error), error

(full / "ballast").unlink()                     # somebody frees space
assert control(20).ending == "completed"
assert plant.writes == lost + 20 == decisions(), (plant.writes, lost, decisions())
assert sign_head(path, key, keys / "heads").sequence == len(read(path))
report = audit(path, heads=keys / "heads", keys=[key.public])
assert report.is_sound and report.covered == report.last, report.findings
print("proved", lost)
"""


def test_a_full_disk_stops_all_writing_and_the_journal_goes_on_when_there_is_room(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    mounted = tmp_path / "full"
    mounted.mkdir()
    # A mount name space of its own: the file system is gone with the process, however it ends.
    mount = f"mount -t tmpfs -o size=1m tmpfs {mounted} && head -c 300000 /dev/zero > {mounted}/ballast"
    if (
        unshare is None
        or subprocess.run([unshare, "-rm", "sh", "-c", mount], check=False, capture_output=True).returncode
    ):
        pytest.skip("a file system to fill needs the right to mount one, which this machine does not give")
    words = ["sh", sys.executable, "-W", "error", "-c", PROGRAM, str(mounted), str(tmp_path / "keys")]
    done = subprocess.run(
        [unshare, "-rm", "sh", "-c", f'{mount} && exec "$@"', *words],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3], timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("proved")
