"""Signed heads of a journal at a broker, as its own tools find them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.deploy.audit.pumps import run_pumps
from tests.deploy.connectors.broker import AI, CONTROL, OP, Broker, broker_in, mosquitto, needs_mosquitto

from twinloop.__main__ import main
from twinloop.deploy.audit.heads import parse
from twinloop.deploy.audit.signing import PRIVATE_NAME, PUBLIC_NAME, load_public, make_keys
from twinloop.deploy.connectors.mqtt_identity import VARIABLE, Identity

pytestmark = needs_mosquitto


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with broker_in(tmp_path) as found:
        yield found


def be(who: Identity, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "identity.yaml"
    path.write_text(yaml.safe_dump({"username": who.username, "password": who.password}))
    path.chmod(0o600)
    monkeypatch.setenv(VARIABLE, str(path))


def test_a_head_is_kept_by_the_broker_and_is_signed(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    journal, keys = tmp_path / "journal", tmp_path / "keys"
    make_keys(keys)
    words = ["audit", "head", str(journal), "--key", str(keys / PRIVATE_NAME), "--publish", broker.endpoint]
    be(CONTROL, tmp_path, monkeypatch)
    for first_period in (0, 3):  # the later head takes the place of the earlier one
        run_pumps(journal, 3, first_period=first_period, steady=True)
        assert main(words) == 0
    line, topic = capsys.readouterr().out.strip().splitlines()[-2:]
    done = mosquitto("mosquitto_sub", broker, OP, "-t", "twinloop/heads/#", "-C", "1", "-W", "10", "-F", "%r %t %p")
    assert done.returncode == 0, done.stderr
    retained, there, published = done.stdout.decode().strip().split(" ", 2)
    assert (retained, published) == ("1", line)
    assert there == f"twinloop/heads/test/rig/{parse(line).journal[:16]}"
    assert there in topic
    assert parse(published).is_signed_by([load_public(keys / PUBLIC_NAME)])

    be(AI, tmp_path, monkeypatch)
    assert main(words) != 0
    assert "is signed, and not published" in capsys.readouterr().err
    broker.stop()
    assert main(words) != 0
    assert "is the broker there" in capsys.readouterr().err
