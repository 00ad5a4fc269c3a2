"""Both ends against node-opcua, an implementation in TypeScript: its client at our server, our client at its server."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.deploy.connectors.rig import Rig, rig_nameplate
from tests.deploy.connectors.secured_site import PASSWORD, SecuredSite, make_site

from twinloop.deploy.drivers import opcua_address as address
from twinloop.deploy.drivers.opcua_client import OpcUaPlant
from twinloop.deploy.drivers.opcua_guard import ServerLimits
from twinloop.deploy.drivers.opcua_server import OpcUaPlantServer
from twinloop.envs.errors import PlantError
from twinloop.envs.plant import Quality

FOREIGN = Path(__file__).parents[1] / "foreign"
pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (FOREIGN / "node_modules" / "node-opcua").is_dir(),
    reason="node-opcua is not installed; .ci/run installs it: cd tests/deploy/foreign && npm ci --ignore-scripts",
)
VALVE, MODE, FLOW = "rig.R1.V", "rig.R1.M", "rig.R1.flow0_kgps"
AES, BASIC = "Aes256_Sha256_RsaPss", "Basic256Sha256"
Answers = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SecuredSite:
    return make_site(tmp_path_factory.mktemp("foreign"))


def scenarios(site: SecuredSite) -> dict[str, dict[str, Any]]:
    """What node-opcua's client does at our server, in this order."""
    mine: dict[str, Any] = {
        "security": AES,
        "certificate": str(site.client / "certificate.pem"),
        "key": str(site.client / "private_key.pem"),
        "uri": site.client_uri,
        "user": "controller",
        "password": PASSWORD,
    }
    valve = {"node": VALVE, "type": "Double", "value": 0.3}
    strange = site.another_client("stranger", is_trusted=False)
    old = site.another_client("old", is_trusted=True, age_days=40.0)
    other = {"reads": [VALVE], "writes": [{**valve, "value": 0.2}]}
    return {
        "control": {**mine, "writes": [valve], "reads": [FLOW, VALVE]},
        "basic": {**mine, "security": BASIC, "writes": [{**valve, "value": 0.25}], "reads": [VALVE]},
        "refused values": {
            **mine,
            "writes": [
                {**valve, "value": "NaN"},
                {**valve, "value": "Infinity"},
                {**valve, "value": 0.36},
                {**valve, "type": "Int32", "value": 0},
                {**valve, "type": "String", "value": "0.3"},
                {"node": MODE, "type": "Double", "value": 0.5},
                {"node": FLOW, "type": "Double", "value": 1.0},
                {"node": "Site.WallPeriod", "type": "Double", "value": 9.0},
                {"node": "rig.R9.V", "type": "Double", "value": 0.3},
            ],
            "reads": [VALVE],
        },
        "old time": {**mine, "writes": [{**valve, "time": "2000-01-01T00:00:00Z"}], "reads": [VALVE]},
        "publishing": {**mine, "publishing_ms": 0.001, "subscriptions": 3},
        "by certificate": {
            **mine,
            "user": None,
            "userCertificate": str(site.root / "owner.pem"),
            "userKey": str(site.root / "owner_key.pem"),
            "reads": [VALVE],
        },
        "watcher": {**mine, **other, "user": "watcher"},
        "second": {**mine, **other, "user": "second"},
        "wrong password": {**mine, **other, "password": "wrong horse"},
        "unknown user": {**mine, **other, "user": "nobody"},
        "anonymous": {**mine, **other, "user": None},
        "no security": {**mine, **other, "security": "None"},
        "untrusted": {
            **mine,
            **other,
            "certificate": str(strange / "certificate.pem"),
            "key": str(strange / "private_key.pem"),
            "uri": "urn:test:stranger",
        },
        "expired": {
            **mine,
            **other,
            "certificate": str(old / "certificate.pem"),
            "key": str(old / "private_key.pem"),
            "uri": "urn:test:old",
        },
    }


@pytest.fixture(scope="module")
def answers(site: SecuredSite) -> Iterator[Answers]:
    """One program of node-opcua's client plays all scenarios."""
    rig = Rig(rig_nameplate())
    limits = ServerLimits(subscriptions_a_session=2)
    with OpcUaPlantServer(
        rig, "opc.tcp://127.0.0.1:0/rig", speed=5.0, security=site.server, limits=limits, watchdog_periods=1000
    ) as server:
        plays = scenarios(site)
        task = {
            "endpoint": server.endpoint,
            "pki": str(site.root / "pki_client"),
            "server": str(site.server / "certificate.pem"),
            "scenarios": list(plays.values()),
        }
        done = subprocess.run(
            ["node", "client.js"],
            input=json.dumps(task),
            cwd=FOREIGN,
            capture_output=True,
            text=True,
            timeout=110.0,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        yield dict(zip(plays, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize(("play", "valve"), [("control", 0.3), ("basic", 0.25)])
def test_a_foreign_client_controls_our_server_over_both_policies(answers: Answers, play: str, valve: float) -> None:
    assert answers[play].get("error") is None
    assert answers[play]["statuses"] == ["Good"]
    told = answers[play]["values"][-1]
    assert (told["value"], told["status"]) == (valve, "Good")


def test_a_foreign_client_reads_values_with_status_and_the_plants_time(answers: Answers) -> None:
    flow = answers["control"]["values"][0]
    assert flow["status"] == "Good"
    assert flow["value"] == float(int(flow["value"])) >= 0.0  # the rig counts its periods
    assert flow["time"].startswith("2027-01-15T08:")  # the rig's own clock, not the machine's


def test_a_foreign_client_is_refused_value_by_value(answers: Answers) -> None:
    found = answers["refused values"]
    assert found["statuses"] == [
        "BadOutOfRange",
        "BadOutOfRange",
        "BadOutOfRange",
        "BadTypeMismatch",
        "BadTypeMismatch",
        "BadOutOfRange",
        "BadUserAccessDenied",
        "BadUserAccessDenied",
        "BadUserAccessDenied",
    ]
    assert found["values"][0]["value"] == 0.25


def test_the_time_that_a_client_claims_is_not_taken(answers: Answers) -> None:
    assert answers["old time"]["statuses"] == ["Good"]
    assert not answers["old time"]["values"][0]["time"].startswith("2000")


def test_publishing_is_clamped_and_subscriptions_are_limited(answers: Answers) -> None:
    found = answers["publishing"]
    assert found.get("error") is None
    assert found["publishing_ms"] == 10.0
    assert len(found["beats"]) == 3
    assert found["beats"] == sorted(set(found["beats"]))
    assert found["refused_subscriptions"] == 1
    assert "BadTooManySubscriptions" in found["subscription_error"]


def test_a_user_may_log_in_with_a_certificate_of_his_own(answers: Answers) -> None:
    assert answers["by certificate"].get("error") is None
    assert answers["by certificate"]["values"][0]["status"] == "Good"


def test_a_reader_reads_and_may_not_write(answers: Answers) -> None:
    assert answers["watcher"].get("error") is None
    assert answers["watcher"]["statuses"] == ["BadUserAccessDenied"]
    assert answers["watcher"]["values"][0] == answers["old time"]["values"][0]


def test_a_second_controller_waits_until_the_first_is_silent(answers: Answers) -> None:
    assert answers["second"].get("error") is None
    assert answers["second"]["statuses"] == ["BadLocked"]


@pytest.mark.parametrize(
    ("play", "words"),
    [
        ("wrong password", "BadUserAccessDenied"),
        ("unknown user", "BadUserAccessDenied"),
        ("anonymous", "ANONYMOUS"),
        ("no security", "End point must exist"),
        ("untrusted", "BadCertificateUntrusted"),
        ("expired", "BadCertificateTimeInvalid"),
    ],
)
def test_a_foreign_client_without_the_right_to_come_in_is_refused(answers: Answers, play: str, words: str) -> None:
    found = answers[play]
    assert "values" not in found
    assert "statuses" not in found
    assert words in found["error"]


def test_what_was_refused_is_on_record(answers: Answers, site: SecuredSite) -> None:
    assert answers
    rows = [json.loads(line) for line in (site.server / "refused.jsonl").read_text(encoding="utf-8").splitlines()]
    told = {(row["what"], row.get("user"), row["status"]) for row in rows}
    assert {
        ("write", "controller", "BadOutOfRange"),
        ("write", "controller", "BadTypeMismatch"),
        ("write", "watcher", "BadUserAccessDenied"),
        ("write", "second", "BadLocked"),
        ("login", "controller", "BadUserAccessDenied"),
        ("login", "nobody", "BadUserAccessDenied"),
    } <= told
    assert not any(PASSWORD in json.dumps(row) for row in rows)


class Foreign:
    """node-opcua's server of the rig's address space, in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], endpoint: str) -> None:
        self._process = process
        self.endpoint = endpoint

    def make(self, **faults: Any) -> dict[str, float]:
        """Make its plant anew; returns what its variables held, by node.

        ``missing``: nodes left out; ``clock_s``: seconds by which its clock is ahead; ``units``: other units by node.
        """
        assert self._process.stdin is not None  # pipes; narrows the types
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(faults) + "\n")
        self._process.stdin.flush()
        found: dict[str, float] = json.loads(self._process.stdout.readline())
        return found


@pytest.fixture(scope="module")
def foreign(site: SecuredSite) -> Iterator[Foreign]:
    plate = rig_nameplate()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    points = [
        {
            "node": point.node,
            "kind": point.kind,
            "unit": point.signal.unit,
            "unit_id": address.unit_id(point.signal.unit),
            "low": point.signal.minimum,
            "high": point.signal.maximum,
            "value": point.signal.neutral if point.kind == "commanded" else float(10 * point.row + point.column),
        }
        for point in (*address.points(plate, "measured"), *address.points(plate, "commanded"))
    ]
    task = {
        "port": port,
        "pki": str(site.root / "pki_server"),
        "certificate": str(site.server / "certificate.pem"),
        "key": str(site.server / "private_key.pem"),
        "uri": site.server_uri,
        "client": str(site.client / "certificate.pem"),
        "users": {"controller": PASSWORD},
        "plate": json.dumps(plate.to_dict()),
        "hash": plate.hash,
        "period_ms": 500,
        "points": points,
    }
    process = subprocess.Popen(
        ["node", "server.js"], cwd=FOREIGN, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, "node-opcua's server ended"
        yield Foreign(process, json.loads(line)["endpoint"])
    finally:
        process.kill()
        process.wait(10.0)
        process.stdin.close()
        process.stdout.close()


@contextmanager
def connected(foreign: Foreign, security: Path) -> Iterator[OpcUaPlant]:
    plant = OpcUaPlant(foreign.endpoint, 8.0, security=security)
    try:
        yield plant
    finally:
        plant.close()


COMMANDS = {"rig": np.array([[0.35, 1.0], [0.1, 0.1]])}


def test_our_client_controls_a_plant_that_node_opcua_serves(site: SecuredSite, foreign: Foreign) -> None:
    foreign.make()
    with connected(foreign, site.client) as plant:
        assert plant.nameplate == rig_nameplate()
        reading = plant.read()
        np.testing.assert_array_equal(reading.values["rig"], [[0.0, 1.0, 2.0], [10.0, 11.0, 12.0]])
        assert np.all(reading.quality["rig"] == Quality.GOOD)
        assert np.all(np.abs(reading.source_time_s["rig"] - reading.received_time_s) < 10.0)
        np.testing.assert_array_equal(plant.write(COMMANDS)["rig"], COMMANDS["rig"])
        assert plant.refusals == {}
        plant.advance()
        beats = []
        for _ in range(4):
            plant.in_control = False
            beats.append((plant.read().notes or {})["heartbeat"])
            plant.advance()
        assert beats == sorted(set(beats))
        held = foreign.make()
    assert [held[f"rig.{asset}.{tag}"] for asset in ("R1", "R2") for tag in ("V", "M")] == [0.35, 1.0, 0.1, 0.1]
    assert held["Site.ClientHeartbeat"] == 1  # the write carried it: the period needed no other


def test_a_foreign_server_refuses_our_wrong_password_and_the_message_says_where_it_came_from(
    site: SecuredSite, foreign: Foreign
) -> None:
    before = foreign.make()
    site.log_in("controller", "wrong horse")
    try:
        with (
            connected(foreign, site.client) as plant,
            pytest.raises(
                PlantError, match=r"refused the user 'controller'.*wrong name or password.*user\.json"
            ) as caught,
        ):
            plant.write(COMMANDS)
    finally:
        site.log_in("controller")
    assert "wrong horse" not in str(caught.value)
    assert foreign.make()["Site.ClientHeartbeat"] == before["Site.ClientHeartbeat"]


def test_a_foreign_server_that_does_not_trust_us_gets_nothing(site: SecuredSite, foreign: Foreign) -> None:
    stranger = site.another_client("unknown", is_trusted=False)
    before = foreign.make()
    with connected(foreign, stranger) as plant, pytest.raises(PlantError, match=r"certificate\.pem.*nothing was sent"):
        plant.write(COMMANDS)
    assert foreign.make()["Site.ClientHeartbeat"] == before["Site.ClientHeartbeat"]


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (
            {"missing": [MODE]},
            r"lacks 1 of the nameplate's 10 signals: rig/R1/mode \(node rig\.R1\.M\); nothing was sent",
        ),
        ({"units": {FLOW: "t/h"}}, r"rig/R1/flow0_kgps in 't/h', not 'kg/s'.*nothing was sent"),
        ({"clock_s": 3600}, r"clock is 3[56]\d\d s ahead of ours.*time service.*nothing was sent"),
        ({"clock_s": -3600}, r"clock is 3[56]\d\d s behind ours.*time service.*nothing was sent"),
    ],
    ids=["a tag missing", "other units", "an hour ahead", "an hour behind"],
)
def test_a_foreign_server_that_differs_is_refused_and_gets_nothing(
    site: SecuredSite, foreign: Foreign, faults: dict[str, Any], message: str
) -> None:
    before = foreign.make(**faults)
    with connected(foreign, site.client) as plant, pytest.raises(PlantError, match=message):
        plant.write(COMMANDS)
    assert foreign.make()["Site.ClientHeartbeat"] == before["Site.ClientHeartbeat"]
