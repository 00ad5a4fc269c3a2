"""Whatever is done to a journal shows, at the first row that it was done to; the end and the whole by signed heads."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.deploy.audit.chain import digest, opened, stored_rows
from twinloop.deploy.audit.heads import HeadFile, Publisher, parse, sign_head
from twinloop.deploy.audit.signing import PublicKey, load_private, load_public, make_keys
from twinloop.deploy.audit.verify import AuditReport, audit
from twinloop.deploy.journal import Journal, verify
from twinloop.envs.errors import ConfigurationError, JournalError

N_ROWS = 12


class Bench(NamedTuple):
    """A journal of twelve rows, sealed, with heads of rows 5 and 12; its keys; and the heads' folder."""

    journal: Path
    keys: Path
    heads: Path

    @property
    def public(self) -> PublicKey:
        return load_public(self.keys / "journal.pub")

    def audited(self, path: Path) -> AuditReport:
        return audit(path, heads=self.heads, keys=[self.public])

    def copy(self, folder: Path) -> Path:
        return Path(shutil.copy(self.journal, folder / "copy.sqlite"))


def append(path: Path, n: int, since: int = 0) -> None:
    with Journal(path) as journal:
        journal._open().execute("PRAGMA synchronous=OFF")  # the disk's speed is not what is tested
        for k in range(since, since + n):
            journal.append({"kind": "decision", "number": k, "sent": {"turbine": [[float(k), 0.1]]}})


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("audit")
    made = Bench(folder / "station" / "journal.sqlite", folder / "keys", folder / "heads")
    make_keys(made.keys)
    key = load_private(made.keys / "journal.key", made.journal)
    append(made.journal, 5)
    sign_head(made.journal, key, made.heads)
    append(made.journal, N_ROWS - 5, 5)
    sign_head(made.journal, key, made.heads, seal=True)
    return made


def changed(path: Path, *statements: str) -> None:
    """As somebody with access to the disk could, who then puts the triggers back."""
    with closing(sqlite3.connect(path)) as connection, connection:
        triggers = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        connection.executescript("DROP TRIGGER no_update; DROP TRIGGER no_delete;")
        for statement in statements:
            connection.execute(statement)
        for (sql,) in triggers:
            connection.execute(sql)


def rechain(path: Path, since: int) -> None:
    """Give all rows from ``since`` on the hashes that their contents would have had."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT sequence, body, previous, hash FROM journal ORDER BY sequence").fetchall()
    statements, previous = [], "0" * 64
    for sequence, body, before, stored in found:
        if sequence >= since:
            before, stored = previous, digest(sequence, previous.encode(), body.encode()).decode()
            statements.append(
                f"UPDATE journal SET previous = '{before}', hash = '{stored}' WHERE sequence = {sequence}"
            )
        previous = stored
    changed(path, *statements)


def test_a_sound_journal_has_no_findings_and_is_covered_to_its_end(bench: Bench) -> None:
    report = bench.audited(bench.journal)
    assert report.findings == ()
    assert (report.rows, report.first, report.last, report.covered, report.heads) == (N_ROWS, 1, N_ROWS, N_ROWS, 2)
    assert report.head == verify(bench.journal).head


def test_a_journal_that_is_being_written_can_be_checked(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.append({"k": 1})
        journal.append({"k": 2})
        report = audit(tmp_path / "j.sqlite")
    assert (report.rows, report.is_sound) == (2, True)


@pytest.mark.parametrize(
    ("statement", "row", "words"),
    [
        ("UPDATE journal SET body = replace(body, '0.1', '0.2') WHERE sequence = 4", 4, "its content was changed"),
        ("UPDATE journal SET hash = substr(hash, 2) || 'x' WHERE sequence = 4", 4, "its hash was changed"),
        ("UPDATE journal SET previous = hash WHERE sequence = 4", 4, "what it names as the hash before it was changed"),
        ("UPDATE journal SET body = CAST(body AS BLOB) WHERE sequence = 4", 4, "not stored as text"),
        ("DELETE FROM journal WHERE sequence = 4", 4, "row 4 is not there"),
        ("DELETE FROM journal WHERE sequence BETWEEN 4 AND 6", 4, "rows 4 to 6 are not there"),
        ("DELETE FROM journal WHERE sequence < 4", 1, "rows 1 to 3 are not there"),
        ("DELETE FROM journal WHERE sequence > 9", 10, "the end was cut off"),
        ("INSERT INTO journal SELECT 13, body, hash, hash FROM journal WHERE sequence = 12", 13, "content"),
    ],
)  # fmt: skip
def test_the_first_wrong_row_is_named_with_what_is_wrong(
    bench: Bench, tmp_path: Path, statement: str, row: int, words: str
) -> None:
    path = bench.copy(tmp_path)
    changed(path, statement)
    first = bench.audited(path).findings[0]
    assert first.sequence == row
    assert words in str(first)


def test_rows_that_changed_places_are_named_with_their_own_numbers(bench: Bench, tmp_path: Path) -> None:
    path = bench.copy(tmp_path)
    changed(
        path,
        "UPDATE journal SET sequence = 99 WHERE sequence = 4",
        "UPDATE journal SET sequence = 4 WHERE sequence = 7",
        "UPDATE journal SET sequence = 7 WHERE sequence = 99",
    )
    first = bench.audited(path).findings[0]
    assert str(first) == "row 4: holds what was row 7; rows were removed or moved"


def test_a_deletion_hidden_by_renumbering_shows(bench: Bench, tmp_path: Path) -> None:
    path = bench.copy(tmp_path)
    later = [f"UPDATE journal SET sequence = {k - 1} WHERE sequence = {k}" for k in range(5, N_ROWS + 1)]
    changed(path, "DELETE FROM journal WHERE sequence = 4", *later)
    assert str(audit(path).findings[0]) == "row 4: holds what was row 5; rows were removed or moved"


def test_a_row_with_a_new_hash_of_its_own_is_the_one_named(bench: Bench, tmp_path: Path) -> None:
    path = bench.copy(tmp_path)
    changed(path, "UPDATE journal SET body = '{}' WHERE sequence = 4")
    with closing(sqlite3.connect(path)) as connection:
        (before,) = connection.execute("SELECT previous FROM journal WHERE sequence = 4").fetchone()
    changed(path, f"UPDATE journal SET hash = '{digest(4, before.encode(), b'{}').decode()}' WHERE sequence = 4")
    first = audit(path).findings[0]
    assert first.sequence == 4
    assert "written anew" in first.what


def test_what_the_chain_alone_cannot_show_the_signed_heads_do(bench: Bench, tmp_path: Path) -> None:
    path = bench.copy(tmp_path)
    changed(path, "UPDATE journal SET body = '{}' WHERE sequence = 8")
    rechain(path, 8)
    assert audit(path).is_sound
    first = bench.audited(path).findings[0]
    assert first.sequence == N_ROWS
    assert "rows 6 to it were rewritten" in first.what


def test_a_journal_written_anew_from_its_first_row_has_no_heads(bench: Bench, tmp_path: Path) -> None:
    path = bench.copy(tmp_path)
    changed(path, "UPDATE journal SET body = '{}' WHERE sequence = 1")
    rechain(path, 1)
    assert audit(path).is_sound
    assert "row 1 was written anew" in str(bench.audited(path).findings[0])
    (file,) = bench.heads.iterdir()
    assert bench.audited(path).covered == 0
    named = audit(path, heads=file, keys=[bench.public])
    assert named.findings[0].sequence == 1


def test_a_trigger_that_was_taken_away_shows(bench: Bench, tmp_path: Path) -> None:
    path = bench.copy(tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("DROP TRIGGER no_delete")
    assert any("no_delete is missing" in str(f) for f in audit(path).findings)


def test_every_byte_of_every_part_of_a_row_counts(bench: Bench, tmp_path: Path) -> None:
    path = bench.copy(tmp_path)
    with opened(bench.journal) as connection:
        rows = list(stored_rows(connection))
    rng = np.random.default_rng(0)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA synchronous=OFF; DROP TRIGGER no_update; DROP TRIGGER no_delete;")
        for column in ("body", "previous", "hash"):
            text: bytes = getattr(rows[6], column)
            for place in range(len(text)):
                other = bytes([text[place] ^ int(rng.integers(1, 128))])
                new = text[:place] + other + text[place + 1 :]
                connection.execute(f"UPDATE journal SET {column} = CAST(? AS TEXT) WHERE sequence = 7", (new,))
                connection.commit()
                first = audit(path).findings[0]
                assert first.sequence == 7, (column, place)
            connection.execute(f"UPDATE journal SET {column} = CAST(? AS TEXT) WHERE sequence = 7", (text,))
            connection.commit()


@settings(max_examples=150, deadline=None)
@given(where=st.floats(0.0, 1.0, exclude_max=True), flip=st.integers(1, 255))
def test_any_flipped_byte_of_a_sealed_file_is_found_or_was_never_read_without_the_seal(
    bench: Bench, tmp_path_factory: pytest.TempPathFactory, where: float, flip: int
) -> None:
    data = bytearray(bench.journal.read_bytes())
    data[int(where * len(data))] ^= flip
    path = tmp_path_factory.mktemp("flip") / "j.sqlite"
    path.write_bytes(data)
    assert not bench.audited(path).is_sound
    if audit(path).is_sound:
        with opened(bench.journal) as ours, opened(path) as theirs:
            assert list(stored_rows(ours)) == list(stored_rows(theirs))


@pytest.mark.parametrize("keep", [0, 1, 100, 4096, 5000, -4096, -1])
def test_a_file_that_was_cut_off_is_found(bench: Bench, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "j.sqlite"
    path.write_bytes(bench.journal.read_bytes()[:keep])
    assert not bench.audited(path).is_sound


def test_a_write_ahead_log_that_was_removed_is_found(tmp_path: Path) -> None:
    make_keys(tmp_path / "keys")
    path, heads = tmp_path / "s" / "j.sqlite", tmp_path / "heads"
    key = load_private(tmp_path / "keys" / "journal.key", path)
    with Journal(path) as journal:
        for k in range(5):
            journal.append({"k": k})
        sign_head(path, key, heads)
        shutil.copy(path, tmp_path / "copy.sqlite")  # without its log, in which the rows still are
    assert not audit(tmp_path / "copy.sqlite", heads=heads, keys=[key.public]).is_sound
    assert audit(path, heads=heads, keys=[key.public]).is_sound


def test_heads_that_are_forged_or_removed_show(bench: Bench, tmp_path: Path) -> None:
    (file,) = bench.heads.iterdir()
    first, second = file.read_text().splitlines()

    def finding(*lines: str) -> str:
        (tmp_path / "heads").write_text("".join(line + "\n" for line in lines))
        return " ".join(map(str, audit(bench.journal, heads=tmp_path / "heads", keys=[bench.public]).findings))

    assert "a line is missing" in finding(second)
    assert "no given key confirms" in finding(first.replace('"sequence":5', '"sequence":6'), second)
    assert "is no signed head" in finding(first, second[:-9])
    assert "is no signed head" in finding(first + " ", second)
    other = make_keys(tmp_path / "other")
    report = audit(bench.journal, heads=bench.heads, keys=[other])
    assert not report.is_sound
    assert report.covered == 0


def test_nothing_is_signed_that_does_not_continue_what_was_signed(bench: Bench, tmp_path: Path) -> None:
    heads, key = tmp_path / "heads", load_private(bench.keys / "journal.key", bench.journal)
    shutil.copytree(bench.heads, heads)
    path = bench.copy(tmp_path)
    changed(path, "DELETE FROM journal WHERE sequence > 9")
    with pytest.raises(JournalError, match="row 12 is not the one that was signed"):
        sign_head(path, key, heads)
    broken = tmp_path / "broken.sqlite"
    shutil.copy(bench.journal, broken)
    append(broken, 3, N_ROWS)
    changed(broken, "UPDATE journal SET body = '{}' WHERE sequence = 14")
    with pytest.raises(JournalError, match="row 14 does not continue the chain"):
        sign_head(broken, key, heads)


def test_heads_are_signed_after_so_many_rows_or_so_much_time(tmp_path: Path) -> None:
    make_keys(tmp_path / "keys")
    path = tmp_path / "s" / "j.sqlite"
    publisher = Publisher(path, load_private(tmp_path / "keys" / "journal.key", path), tmp_path / "heads", 10, 300.0)
    append(path, 1)
    now_s = time.time()
    signed = [publisher.publish(now_s)]
    append(path, 9, 1)
    signed += [publisher.publish(now_s), publisher.publish(now_s + 301.0), publisher.publish(now_s + 301.0)]
    append(path, 10, 10)
    signed += [publisher.publish(now_s), publisher.publish(now_s + 1e4)]
    assert [None if head is None else head.sequence for head in signed] == [1, None, 10, None, 20, None]
    assert len(HeadFile(tmp_path / "heads", parse(signed[0].line).journal).lines()) == 3 if signed[0] else False


def test_the_private_key_is_for_its_owner_alone_and_not_beside_the_journal(bench: Bench, tmp_path: Path) -> None:
    secret = bench.keys / "journal.key"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert load_private(secret).public.fingerprint == bench.public.fingerprint
    with pytest.raises(ConfigurationError, match="is there already"):
        make_keys(bench.keys)
    with pytest.raises(ConfigurationError, match=r"holds the journal journal\.sqlite"):
        make_keys(bench.journal.parent)
    beside = Path(shutil.copy(secret, tmp_path / "journal.key"))
    with pytest.raises(ConfigurationError, match="lies in the journal's folder"):
        load_private(beside, tmp_path / "journal.sqlite")
    beside.chmod(0o640)
    with pytest.raises(ConfigurationError, match="mode 0640"):
        load_private(beside)
    beside.chmod(0o600)
    beside.write_text("secret")
    with pytest.raises(ConfigurationError, match="is no private key"):
        load_private(beside)


def test_the_file_a_key_signed_verifies_with_openssl(bench: Bench, tmp_path: Path) -> None:
    """Another implementation than the library's Python face confirms a head."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on this machine to confirm a signature with")
    import base64
    import json
    import subprocess

    (file,) = bench.heads.iterdir()
    told = json.loads(file.read_text().splitlines()[0])
    (tmp_path / "signature").write_bytes(base64.b64decode(told.pop("signature")))
    message = "twinloop journal head 1\n" + json.dumps(told, sort_keys=True, separators=(",", ":"))
    (tmp_path / "message").write_text(message)
    words = ["pkeyutl", "-verify", "-pubin", "-inkey", str(bench.keys / "journal.pub"), "-rawin"]
    done = subprocess.run(
        [openssl, *words, "-in", str(tmp_path / "message"), "-sigfile", str(tmp_path / "signature")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Verified Successfully" in done.stdout


def speed(check: Callable[[Path], object], path: Path, n: int) -> float:
    begun_s = time.thread_time()
    check(path)
    return n / (time.thread_time() - begun_s)


def test_verifying_reaches_forty_thousand_rows_a_second(tmp_path: Path) -> None:
    path, n = tmp_path / "j.sqlite", 3000
    with Journal(path) as journal:
        journal._open().execute("PRAGMA synchronous=OFF")  # only the reading is measured
        for k in range(n):
            journal.append({"kind": "decision", "number": k, "sent": [[0.1 * k] * 8] * 9})
    assert speed(audit, path, n) > 40_000  # rows a CPU second


def test_a_part_that_is_gone_is_found_and_does_not_end_the_check(bench: Bench, tmp_path: Path) -> None:
    path = bench.copy(tmp_path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript("PRAGMA writable_schema=ON; DROP TRIGGER no_update;")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'TEXT NOT NULL', 'TEXT') WHERE name = 'journal'"
        )
    for column in ("body", "previous", "hash"):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"UPDATE journal SET {column} = NULL WHERE sequence = 6")
        report = bench.audited(path)
        assert report.findings[0].sequence == 6
        assert report.rows == N_ROWS
