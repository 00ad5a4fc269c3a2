"""Shells of site and model are read without complaint by implementations that are not ours."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from basyx.aas import model
from basyx.aas.adapter.json import read_aas_json_file
from tests.deploy.packages.package_cases import declaration, make_artifact, make_key, make_package

from twinloop.__main__ import main
from twinloop.deploy.packages.aas import Export, export
from twinloop.deploy.packages.package import open_package
from twinloop.envs.errors import ConfigurationError

BASE = "https://example.org/twins"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Export:
    folder = tmp_path_factory.mktemp("made")
    key = make_key(folder / "keys")
    limits = {"power_cap_kw": 9000.0}
    data = make_package(make_artifact(folder / "a"), key, 3, evaluation={"gain_pct": 4.5}, limits=limits)
    (folder / "p.twinpkg").write_bytes(data)
    return export(open_package(folder / "p.twinpkg", [key.public]), BASE, endpoint="opc.tcp://127.0.0.1:4840/twinloop")


def every(element: Any) -> list[dict[str, Any]]:
    """All parts of a document that have a model type."""
    if isinstance(element, list):
        return [part for item in element for part in every(item)]
    if not isinstance(element, dict):
        return []
    own = [element] if "modelType" in element else []
    return own + [part for value in element.values() for part in every(value)]


def test_basyx_reads_all_of_it(found: Export) -> None:
    store = read_aas_json_file(io.StringIO(found.text), failsafe=False)
    shells = [item for item in store if isinstance(item, model.AssetAdministrationShell)]
    submodels = {item.id_short: item for item in store if isinstance(item, model.Submodel)}
    assert len(shells) == 2
    assert set(submodels) == {
        "Nameplate", "AssetInterfacesDescription", "TimeSeries", "SimulationModels", "AIModelNameplate", "AIDeployment",
    }  # fmt: skip
    for item in shells:
        assert {reference.resolve(store).id for reference in item.submodel} <= {s.id for s in submodels.values()}
    pointer = submodels["AIDeployment"].get_referable("ModelNameplateRef")
    assert isinstance(pointer, model.ReferenceElement)
    assert isinstance(pointer.value, model.ModelReference)
    assert pointer.value.resolve(store) is submodels["AIModelNameplate"]


def test_aas_core_verifies_every_constraint_of_the_metamodel(found: Export) -> None:
    from aas_core3 import jsonization, verification

    environment = jsonization.environment_from_jsonable(json.loads(found.text))
    assert [f"{error.path}: {error.cause}" for error in verification.verify(environment)] == []


def test_every_signal_of_the_nameplate_has_its_range_and_its_address(found: Export) -> None:
    parts = [part for part in every(found.environment["submodels"]) if part.get("idShort") == "properties"]
    described = {p["value"][0]["value"]: p["value"] for p in parts[0]["value"]}
    plate = declaration().nameplate
    assert set(described) == {*plate.signal_names("measured"), *plate.signal_names("commanded")}
    told = {part["idShort"]: part for part in described["turbine/WT01/yaw_offset_deg"]}
    assert (told["min_max"]["min"], told["min_max"]["max"]) == ("-40.0", "40.0")
    assert told["forms"]["value"][0]["value"] == "?id=nsu=urn:twinloop:plant;s=farm.WT01.WYAW.YwOfsSpt"


def test_limits_hashes_and_results_are_in_it(found: Export) -> None:
    values = {part.get("idShort"): part.get("value") for part in every(found.environment["submodels"])}
    assert "9000" in str(values["limit_farm_power_cap"])
    assert values["evaluation_gain_pct"] == "4.5"
    shells = found.environment["assetAdministrationShells"]
    ids = {p["name"]: p["value"] for s in shells for p in s["assetInformation"]["specificAssetIds"]}
    assert ids["nameplate_sha256"] == declaration(limits={"power_cap_kw": 9000.0}).nameplate.hash
    assert ids["limits_sha256"] == declaration(limits={"power_cap_kw": 9000.0}).hash


def test_what_nobody_told_is_said_and_not_made_up(found: Export) -> None:
    assert any("ManufacturerName" in text for text in found.missing)
    assert any("ContactInformation" in text for text in found.missing)
    assert not [part for part in every(found.environment["submodels"]) if part.get("idShort") == "ManufacturerName"]


def test_a_base_that_begins_no_id_is_refused(tmp_path: Path) -> None:
    for base in ("", "example", "https://a b", "https://example.org/"):
        with pytest.raises(ConfigurationError, match="--base"):
            export(make_artifact(tmp_path / "a"), base)


def test_the_command_exports_an_artifact_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact, out = make_artifact(tmp_path / "a"), tmp_path / "a.json"
    assert main(["package", "aas", str(artifact), "--base", BASE, "--manufacturer", "Ann's", "--out", str(out)]) == 0
    assert "SimulationModels: an artifact has no twin" in capsys.readouterr().out
    read_aas_json_file(io.StringIO(out.read_text()), failsafe=False)
    assert main(["package", "aas", str(artifact), "--base", BASE, "--public", "x", "--out", str(out)]) == 2
