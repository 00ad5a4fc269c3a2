"""``twinloop audit`` as people use it, from keys to retention, and what it says to wrong input."""

from __future__ import annotations

import csv
import io
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
from tests.deploy.audit.pumps import run_pumps

from twinloop.__main__ import main
from twinloop.deploy.audit.heads import parse

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("station") / "j.sqlite"
    run_pumps(path, 200, steady=True)
    return path


def told(capsys: Captured, *words: object) -> tuple[int, str, str]:
    status = main(["audit", *map(str, words)])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def test_from_keys_to_retention(journal: Path, tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "station" / "j.sqlite"
    path.parent.mkdir()
    shutil.copy(journal, path)
    keys, history = tmp_path / "keys", tmp_path / "history"
    key, public, heads = keys / "journal.key", keys / "journal.pub", keys / "heads"
    status, out, _ = told(capsys, "keys", keys)
    assert status == 0
    assert "fingerprint SHA256:" in out
    status, out, _ = told(capsys, "head", path, "--key", key)
    assert (status, parse(out.strip()).sequence) == (0, 202)
    status, out, _ = told(capsys, "history", path, "--out", history)
    assert (status, out) == (0, f"200 periods added to {history}, exported up to row 202\n")
    status, out, _ = told(capsys, "query", history, "SELECT day, count(*) AS n FROM history GROUP BY day ORDER BY day")
    assert list(csv.reader(io.StringIO(out))) == [["day", "n"], ["2026-01-01", "144"], ["2026-01-02", "56"]]
    status, out, _ = told(capsys, "retain", path, "--key", key, "--history", history, "--journal-days", "0.25")
    assert (status, out.split(";")[0]) == (0, "145 rows and 0 files deleted")
    checked = ("verify", path, "--heads", heads, "--public", public, "--history", history)
    status, out, _ = told(capsys, *checked)
    assert status == 0
    assert out.endswith("sound\n")
    assert "57 rows, 146 to 202" in out
    assert "signed up to row 202" in out
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript("DROP TRIGGER no_delete; DELETE FROM journal WHERE sequence > 200;")
    status, out, _ = told(capsys, *checked)
    assert status == 1
    assert out.startswith("row 201: is missing")
    assert out.endswith("NOT SOUND\n")
    status, _, err = told(capsys, "head", path, "--key", key)
    assert status == 2
    assert "row 202 is not the one that was signed" in err


def test_without_heads_the_command_says_what_would_not_show(journal: Path, capsys: Captured) -> None:
    status, out, _ = told(capsys, "verify", journal)
    assert status == 0
    assert "a missing end would not show" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("verify", "none.sqlite"), "no such journal"),
        (("verify", "{journal}", "--heads", "heads"), "give --public"),
        (("verify", "{journal}", "--history", "h"), "give --heads too"),
        (("verify", "{journal}", "--heads", "heads", "--public", "none.pub"), "no public key can be read"),
        (("head", "{journal}", "--key", "none.key"), "no private key can be read"),
        (("query", "nowhere", "SELECT 1"), "holds no history"),
        (("retain", "{journal}", "--key", "k", "--history", "h"), "declare how much stays"),
        (("retain", "{journal}", "--key", "k", "--history", "h", "--journal-days", "-1"), "--journal-days"),
        (
            ("retain", "{journal}", "--key", "k", "--history", "h", "--journal-days", "3", "--history-days", "2"),
            "less than journal_days",
        ),
        (("history", "{notes}", "--out", "h"), "not a database"),
        (("head", "{notes}", "--key", "{key}"), "not a database"),
    ],
)
def test_wrong_input_is_told_in_one_line(
    journal: Path, tmp_path: Path, capsys: Captured, words: tuple[str, ...], message: str
) -> None:
    (tmp_path / "notes.txt").write_text("no database, but long enough to be looked at" * 40)
    main(["audit", "keys", str(tmp_path / "keys")])
    places = {"journal": journal, "notes": tmp_path / "notes.txt", "key": tmp_path / "keys" / "journal.key"}
    capsys.readouterr()
    status, _, err = told(capsys, *(word.format(**places) for word in words))
    assert status == 2
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_watching_signs_and_exports_what_a_run_adds_until_ctrl_c(journal: Path, tmp_path: Path) -> None:
    path, keys = tmp_path / "station" / "j.sqlite", tmp_path / "keys"
    path.parent.mkdir()
    main(["audit", "keys", str(keys)])
    words = ["audit", "watch", str(path), "--key", str(keys / "journal.key"), "--out", str(tmp_path / "history")]
    words += ["--every-rows", "50", "--every-minutes", "0.02", "--history-days", "30"]
    watch = subprocess.Popen(
        [sys.executable, "-m", "twinloop", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        time.sleep(0.5)  # it waits for a journal that is not there yet
        run_pumps(path, 120, steady=True)
        assert watch.stdout is not None
        line = watch.stdout.readline()
        while "up to row 122" not in line and line:
            line = watch.stdout.readline()
    finally:
        watch.send_signal(signal.SIGINT)
        _, err = watch.communicate(timeout=30.0)
    assert "up to row 122" in line
    assert watch.returncode == 130, err
    checked = ["audit", "verify", path, "--heads", keys / "heads", "--public", keys / "journal.pub"]
    assert main(list(map(str, checked))) == 0


def test_a_run_answers_prometheus_while_it_goes_on(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = int(taken.getsockname()[1])
    plant = Path(__file__).parents[3] / "configs" / "wind_farm" / "plant_ablaincourt.yaml"
    words = ["run", "--policy", "greedy", "--plant", str(plant), "--journal", str(tmp_path / "j.sqlite")]
    run = subprocess.Popen(
        [sys.executable, "-m", "twinloop", *words, "--metrics", str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    text, deadline_s = "", time.monotonic() + 120.0
    # A slow machine decides its first periods too late, and assets stand on their fallback until it keeps up.
    wanted = 'twinloop_cycle_seconds{quantile="0.99"}', 'twinloop_assets{mode="autonomous"} 7.0'
    try:
        while not all(line in text for line in wanted) and run.poll() is None:
            assert time.monotonic() < deadline_s, text
            time.sleep(0.2)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10.0) as answer:
                    text = answer.read().decode()
            except OSError:
                continue  # not started yet
    finally:
        run.send_signal(signal.SIGINT)
        out, _ = run.communicate(timeout=60.0)
    assert run.returncode == 130, out
    assert all(line in text for line in wanted)
