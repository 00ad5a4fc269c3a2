"""A package has one form, is signed as a whole, and every other byte is refused with a reason."""

from __future__ import annotations

import hashlib
import io
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.deploy.packages.package_cases import declaration, make_artifact, make_key, make_package

from twinloop.deploy.audit.signing import PrivateKey
from twinloop.deploy.packages.archive import members_of, pack
from twinloop.deploy.packages.content import LIMITS, MANIFEST, SIGNATURE, signed
from twinloop.deploy.packages.package import open_package
from twinloop.envs.errors import ArtifactError, PackageError
from twinloop.envs.nameplate import digest


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> PrivateKey:
    return make_key(tmp_path_factory.mktemp("key") / "keys")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_artifact(tmp_path_factory.mktemp("artifact") / "a")


@pytest.fixture(scope="module")
def data(artifact: Path, key: PrivateKey) -> bytes:
    return make_package(artifact, key, evaluation={"gain_pct": 4.5})


def refused(tmp_path: Path, data: bytes, key: PrivateKey) -> str:
    path = tmp_path / "p.twinpkg"
    path.write_bytes(data)
    with pytest.raises(PackageError) as caught:
        open_package(path, [key.public])
    return str(caught.value)


def test_the_same_input_makes_the_same_bytes(artifact: Path, key: PrivateKey, data: bytes) -> None:
    assert make_package(artifact, key, evaluation={"gain_pct": 4.5}) == data


def test_a_sound_package_tells_what_it_was_made_of(tmp_path: Path, key: PrivateKey, data: bytes) -> None:
    path = tmp_path / "p.twinpkg"
    path.write_bytes(data)
    package = open_package(path, [key.public])
    limits = package.data(LIMITS)
    assert package.signer == key.public.fingerprint
    assert package.sha256 == hashlib.sha256(data).hexdigest()
    assert package.about.limits_hash == declaration().hash == digest(limits["declaration"])
    assert package.data("evaluation.json") == {"gain_pct": 4.5}
    assert package.data("twin.json")["configuration"]["name"] == "farm"


def test_unzip_and_sha256sum_read_a_package(tmp_path: Path, data: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        archive.extractall(tmp_path)
    checked = subprocess.run(["sha256sum", "-c", MANIFEST], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert checked.returncode == 0
    assert checked.stdout.count("OK") == len(zipfile.ZipFile(io.BytesIO(data)).namelist()) - 2


def test_openssl_confirms_the_signature(tmp_path: Path, key: PrivateKey, data: bytes) -> None:
    # Another implementation than the one that signed.
    import base64
    import json

    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    members = members_of(data, "here")
    (tmp_path / "key").write_bytes(key.public.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "message").write_bytes(b"twinloop package 1\n" + members[MANIFEST])
    (tmp_path / "signature").write_bytes(base64.b64decode(json.loads(members[SIGNATURE])["signature"]))
    words = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        "key",
        "-rawin",
        "-in",
        "message",
        "-sigfile",
        "signature",
    ]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_any_changed_byte_is_refused(tmp_path: Path, key: PrivateKey, data: bytes) -> None:
    path = tmp_path / "p.twinpkg"

    @settings(max_examples=150, deadline=None)
    @given(at=st.integers(0, len(data) - 1), by=st.integers(1, 255))
    def one(at: int, by: int) -> None:
        path.write_bytes(data[:at] + bytes([data[at] ^ by]) + data[at + 1 :])
        with pytest.raises(PackageError):
            open_package(path, [key.public])

    one()


def test_any_cut_or_added_end_is_refused(tmp_path: Path, key: PrivateKey, data: bytes) -> None:
    for other in (b"", data[:1], data[: len(data) // 2], data[:-1], data + b"\0", b"\0" + data, data + data):
        assert refused(tmp_path, other, key)


def test_a_package_of_nobody_or_of_somebody_else_is_refused(tmp_path: Path, key: PrivateKey, data: bytes) -> None:
    members = members_of(data, "here")
    bare = {n: d for n, d in members.items() if n != SIGNATURE}
    assert "is not signed" in refused(tmp_path, pack(bare), key)
    other = make_key(tmp_path / "other")
    told = refused(tmp_path, pack(signed(bare, other)), key)
    assert other.public.fingerprint in told
    assert key.public.fingerprint in told
    swapped = {**bare, SIGNATURE: members[SIGNATURE].replace(b"signature", b"signatur_")}
    assert SIGNATURE in refused(tmp_path, pack(swapped), key)


@pytest.mark.parametrize(
    ("word", "change"),
    [
        ("changed: twin.json", lambda m: {**m, "twin.json": m["twin.json"] + b" "}),
        ("added: more.json", lambda m: {**m, "more.json": b"{}"}),
        ("removed: limits.json", lambda m: {n: d for n, d in m.items() if n != "limits.json"}),
        ("does not fit MANIFEST", lambda m: {**m, MANIFEST: m[MANIFEST] + b"\n"}),
    ],
)
def test_a_file_changed_added_or_removed_is_named(
    tmp_path: Path,
    key: PrivateKey,
    data: bytes,
    word: str,
    change: Callable[[dict[str, bytes]], dict[str, bytes]],
) -> None:
    assert word in refused(tmp_path, pack(change(members_of(data, "here"))), key)


@pytest.mark.parametrize(
    "name", ["../out", "/etc/passwd", "a/../../b", "a\\b", ".hidden", "a//b", "a/.b", "C:x", "a\x00b", "a/b/c/d", ""]
)
def test_a_name_that_could_leave_the_folder_is_refused_on_both_sides(
    tmp_path: Path, key: PrivateKey, name: str
) -> None:
    with pytest.raises(PackageError, match="not allowed"):
        pack({name: b"x"})
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name or "./"), b"x")
    assert refused(tmp_path, out.getvalue(), key)


def test_a_bomb_a_repeated_name_and_a_comment_are_refused(tmp_path: Path, key: PrivateKey) -> None:
    def zipped(change: Callable[[zipfile.ZipFile], None]) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            change(archive)
        return out.getvalue()

    assert "compressed" in refused(tmp_path, zipped(lambda a: a.writestr("zeros", bytes(10_000_000))), key)

    def comment(archive: zipfile.ZipFile) -> None:
        archive.writestr(zipfile.ZipInfo("a"), b"x")
        archive.comment = b"hello"

    assert "other bytes" in refused(tmp_path, zipped(comment), key)

    def twice(archive: zipfile.ZipFile) -> None:
        archive.writestr(zipfile.ZipInfo("a"), b"x")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(zipfile.ZipInfo("a"), b"y")

    assert "other bytes" in refused(tmp_path, zipped(twice), key)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path, key: PrivateKey, data: bytes) -> None:
    path = tmp_path / "p.twinpkg"
    path.write_bytes(data)
    with pytest.raises(PackageError, match="--max-mb"):
        open_package(path, [key.public], max_mb=len(data) / 1e6 - 0.001)


def test_a_signed_package_whose_parts_contradict_each_other_is_refused(
    tmp_path: Path, key: PrivateKey, artifact: Path, data: bytes
) -> None:
    members = members_of(data, "here")
    wide = members_of(make_package(artifact, key, limits={"power_cap_kw": 9000.0}), "there")
    for name, word in ((LIMITS, "limits_hash"), ("twin.json", "twin_hash")):
        told = refused(tmp_path, pack(signed({**members, name: wide[name]}, key)), key)
        assert word in told


def test_a_damaged_artifact_or_a_wrong_name_is_not_packed(tmp_path: Path, key: PrivateKey) -> None:
    folder = make_artifact(tmp_path / "a")
    with pytest.raises(PackageError, match="--release"):
        make_package(folder, key, release=0)
    with pytest.raises(PackageError, match="--name"):
        make_package(folder, key, name="../x")
    (folder / "report.json").write_text("{}\n\n")
    with pytest.raises(ArtifactError):
        make_package(folder, key)
