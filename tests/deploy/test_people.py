from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest

from twinloop.__main__ import main
from twinloop.deploy.station.people import MAY, People, WrongPasswordError, confirms
from twinloop.envs.errors import ConfigurationError

ROOT, ANNA = "the root's password", "anna's password"


@pytest.fixture(scope="module")
def peopled(tmp_path_factory: pytest.TempPathFactory) -> People:
    people = People.read(tmp_path_factory.mktemp("station") / "people.json").add("root", "admin", ROOT)
    return people.add("anna", "operator", ANNA, by="root", by_password=ROOT)


def test_the_unlocked_key_signs_for_the_public_key_that_is_told(peopled: People) -> None:
    key = People.read(peopled.path).unlock("anna", ANNA)
    assert confirms(peopled["anna"].public_key, key.sign(b"yes").hex(), b"yes")
    assert not confirms(peopled["anna"].public_key, key.sign(b"yes").hex(), b"no")


@pytest.mark.parametrize(("name", "password"), [("anna", ROOT), ("anna", ""), ("nobody", ANNA)])
def test_a_wrong_password_and_an_unknown_name_are_refused_in_the_same_words(
    peopled: People, name: str, password: str
) -> None:
    with pytest.raises(WrongPasswordError, match="name and password do not belong together"):
        peopled.unlock(name, password)


def test_the_file_holds_neither_private_key_nor_password(peopled: People) -> None:
    text = peopled.path.read_text()
    assert peopled.unlock("anna", ANNA).private_bytes_raw().hex() not in text
    assert ANNA not in text
    assert peopled.path.stat().st_mode & 0o007 == 0


def test_a_sealed_key_opens_under_its_own_name_alone(peopled: People, tmp_path: Path) -> None:
    data = json.loads(peopled.path.read_text())
    data["people"]["eve"] = data["people"]["anna"]
    (tmp_path / "people.json").write_text(json.dumps(data))
    with pytest.raises(WrongPasswordError):
        People.read(tmp_path / "people.json").unlock("eve", ANNA)


@pytest.mark.parametrize("change", ["role", "public_key", "name"])
def test_whom_no_administrator_vouches_for_is_left_out(peopled: People, tmp_path: Path, change: str) -> None:
    data = json.loads(peopled.path.read_text())
    anna = data["people"].pop("anna")
    if change == "role":
        anna["role"] = "approver"
    elif change == "public_key":
        anna["public_key"] = data["people"]["root"]["public_key"]
    data["people"]["eve" if change == "name" else "anna"] = anna
    (tmp_path / "people.json").write_text(json.dumps(data))
    assert peopled.vouched(peopled.administrators()).names == ("anna", "root")
    assert People.read(tmp_path / "people.json").vouched(peopled.administrators()).names == ("root",)


def test_an_administrator_who_made_himself_is_not_believed(peopled: People, tmp_path: Path) -> None:
    other = People.read(tmp_path / "people.json").add("eve", "admin", "a password of eve")
    assert other.vouched(peopled.administrators()).names == ()


def test_the_first_must_be_an_admin_and_the_last_one_stays(tmp_path: Path, peopled: People) -> None:
    with pytest.raises(ConfigurationError, match="the first of all must be an admin"):
        People.read(tmp_path / "people.json").add("anna", "operator", ANNA)
    with pytest.raises(ConfigurationError, match="root is the only admin"):
        peopled.remove("root", by="root", by_password=ROOT)


def test_only_an_administrator_adds_people(peopled: People) -> None:
    with pytest.raises(ConfigurationError, match="anna is operator, which may not people"):
        peopled.add("eve", "approver", "a password of eve", by="anna", by_password=ANNA)
    with pytest.raises(WrongPasswordError):
        peopled.add("eve", "approver", "a password of eve", by="root", by_password=ANNA)
    assert "eve" not in People.read(peopled.path)


def test_a_new_password_keeps_the_key(peopled: People, tmp_path: Path) -> None:
    copy = tmp_path / "people.json"
    copy.write_bytes(peopled.path.read_bytes())
    after = People.read(copy).change_password("anna", ANNA, "another password")
    assert after["anna"].public_key == peopled["anna"].public_key
    with pytest.raises(WrongPasswordError):
        after.unlock("anna", ANNA)


def test_nobody_but_an_approver_may_approve_and_admins_neither_propose_nor_operate() -> None:
    assert [role for role, acts in MAY.items() if "approve" in acts] == ["approver"]
    assert MAY["admin"] == {"view", "people"}


@pytest.mark.parametrize("text", ["", "[]", "{}{}", '{"format": 2}', '{"people": {"anna": {}}}'])
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "people.json").write_text(text)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        People.read(tmp_path / "people.json")


def _with_passwords(words: list[str], passwords: list[str]) -> int:
    read, write = os.pipe()
    os.write(write, "".join(f"{p}\n" for p in passwords).encode())
    os.close(write)
    try:
        return main([*words, "--password-fd", str(read)])
    finally:
        os.close(read)


def test_the_command_adds_lists_and_removes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--station", str(tmp_path / "station")]
    assert _with_passwords(["people", "add", "root", "--role", "admin", *at], [ROOT]) == 0
    assert _with_passwords(["people", "add", "anna", "--role", "operator", "--by", "root", *at], [ROOT, ANNA]) == 0
    assert main(["people", "list", *at]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[-2:]] == [
        ["anna", "operator"],
        ["root", "admin"],
    ]
    assert _with_passwords(["people", "password", "anna", *at], [ANNA, "another password"]) == 0
    assert _with_passwords(["people", "remove", "anna", "--by", "root", *at], [ANNA]) == 2
    assert _with_passwords(["people", "remove", "anna", "--by", "root", *at], [ROOT]) == 0
    assert People.read(tmp_path / "station" / "people.json").names == ("root",)


def test_without_a_terminal_the_command_says_how_to_give_a_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert main(["people", "add", "root", "--role", "admin", "--station", str(tmp_path / "station")]) == 2
    assert "--password-fd" in capsys.readouterr().err


def test_an_option_without_meaning_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["people", "add", "root", "--role", "admin", "--by", "root", "--station", str(tmp_path / "s")]) == 2
    assert "--by has no meaning here" in capsys.readouterr().err
