"""Judge a peer's certificate: time, URI, use, host, and whether anybody here trusts it.

Order and names of the checks: OPC 10000-4 (2022), 6.1.3, table 100. Trust is by this folder alone, never by the
machine's web authorities.
"""

from __future__ import annotations

import datetime as dt
import enum
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from ...envs.errors import ConfigurationError

MOST_REJECTED = 32
"""Files kept in rejected/: whoever connects with ever new certificates must not fill the disk."""
SHORTEST_KEY_BITS = 2048

KINDS = {".pem", ".der", ".crt", ".cer"}
_LISTS = {".crl"}


class Role(enum.Enum):
    """What a peer does; its certificate must be for that."""

    SERVER = "server"
    CLIENT = "client"


class Fault(enum.Enum):
    """Why a certificate is refused; the value is the name of OPC UA's status."""

    EXPIRED = "BadCertificateTimeInvalid"
    NOT_YET_VALID = "BadCertificateTimeInvalid, later"
    WRONG_URI = "BadCertificateUriInvalid"
    WRONG_HOST = "BadCertificateHostNameInvalid"
    WRONG_USE = "BadCertificateUseNotAllowed"
    WEAK = "BadCertificatePolicyCheckFailed"
    REVOKED = "BadCertificateRevoked"
    UNTRUSTED = "BadCertificateUntrusted"

    @property
    def status(self) -> str:
        return self.value.partition(",")[0]


@dataclass(frozen=True)
class Refusal:
    """Why, and in words with the value and the remedy."""

    fault: Fault
    text: str


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate, to compare over another way than it came."""
    return certificate.fingerprint(SHA256()).hex()


def thumbprint(certificate: x509.Certificate) -> str:
    """SHA-1 of the certificate, as OPC UA tools show it; it identifies and protects nothing (OPC 10000-6, 6.7.2)."""
    return certificate.fingerprint(SHA1()).hex()


def application_uri(certificate: x509.Certificate) -> str | None:
    """First URI among the alternative names: OPC UA's application URI."""
    names = _names(certificate)
    uris = [] if names is None else names.get_values_for_type(x509.UniformResourceIdentifier)
    return uris[0] if uris else None


def hosts(certificate: x509.Certificate) -> tuple[str, ...]:
    """DNS names and IP addresses of the certificate."""
    names = _names(certificate)
    if names is None:
        return ()
    addresses = map(str, names.get_values_for_type(x509.IPAddress))
    return (*names.get_values_for_type(x509.DNSName), *addresses)


def read_certificate(path: Path) -> x509.Certificate:
    """A certificate in PEM or DER; raises :class:`ConfigurationError` for anything else."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"{path}: can't be read ({error.strerror}); `twinloop certificates make DIR` makes a set"
        ) from error
    try:
        if b"-----BEGIN" in content:
            return x509.load_pem_x509_certificate(content)
        return x509.load_der_x509_certificate(content)
    except ValueError as error:
        raise ConfigurationError(f"{path}: is no X.509 certificate in PEM or DER ({error})") from error


def when(moment: dt.datetime) -> str:
    """A moment in UTC, to the second."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def time_fault(certificate: x509.Certificate, now: dt.datetime | None = None) -> Refusal | None:
    """Whether it is valid now."""
    now = dt.datetime.now(dt.UTC) if now is None else now
    if now > certificate.not_valid_after_utc:
        return Refusal(
            Fault.EXPIRED,
            f"expired on {when(certificate.not_valid_after_utc)}, and it is {when(now)} here; have a new one made, or "
            "set this machine's clock right",
        )
    if now < certificate.not_valid_before_utc:
        return Refusal(
            Fault.NOT_YET_VALID,
            f"is valid from {when(certificate.not_valid_before_utc)} on, and it is {when(now)} here; set the clocks of "
            "both machines right (chrony, NTP)",
        )
    return None


class TrustList:
    """The folders ``trusted`` and ``rejected`` of an identity; read each time, so that a change counts at once."""

    def __init__(self, folder: Path) -> None:
        self.trusted = folder / "trusted"
        self.rejected = folder / "rejected"

    def certificates(self) -> dict[Path, x509.Certificate]:
        """What is trusted, by file; raises :class:`ConfigurationError` for a file that is no certificate."""
        if not self.trusted.is_dir():
            raise ConfigurationError(
                f"{self.trusted}: is no folder; it holds the certificates of peers that are trusted; "
                "`twinloop certificates make DIR` makes a set"
            )
        return {path: read_certificate(path) for path in sorted(self.trusted.iterdir()) if path.suffix in KINDS}

    def judge(
        self, certificate: x509.Certificate, role: Role, *, uri: str | None = None, host: str | None = None
    ) -> Refusal | None:
        """None for a peer to talk to. ``uri``: what it calls itself; ``host``: the name or address that it was
        reached by, which one who is in ``trusted`` himself need not carry.

        What is not trusted is kept in ``rejected``.
        """
        found = self._judge(certificate, role, uri, host)
        if found is not None and found.fault is Fault.UNTRUSTED:
            kept = self._keep(certificate)
            where = (
                f"it is kept as {kept}: compare its fingerprint with what `twinloop certificates show` prints over "
                f"there, then move it into {self.trusted}"
                if kept is not None
                else f"{self.rejected} is full or can't be written, so it was not kept"
            )
            return Refusal(found.fault, f"{found.text}; {where}")
        return found

    def _judge(self, certificate: x509.Certificate, role: Role, uri: str | None, host: str | None) -> Refusal | None:
        listed = self.certificates()
        pinned = certificate in listed.values()
        issuers = [ca for ca in listed.values() if _has_issued(ca, certificate)]
        if not pinned and not issuers:
            return Refusal(
                Fault.UNTRUSTED,
                f"is not trusted here (SHA-256 {fingerprint(certificate)}, subject "
                f"{certificate.subject.rfc4514_string()})",
            )
        if found := time_fault(certificate):
            return found
        if not pinned and all(time_fault(ca) for ca in issuers):
            return Refusal(Fault.EXPIRED, "was signed by an authority that has itself expired; renew the authority")
        if self._is_revoked(certificate, issuers):
            return Refusal(Fault.REVOKED, f"was revoked by its authority (serial {certificate.serial_number:x})")
        if found := _key_fault(certificate) or _use_fault(certificate, role):
            return found
        if uri is not None and application_uri(certificate) != uri:
            return Refusal(
                Fault.WRONG_URI,
                f"is for the application URI {application_uri(certificate)!r}, and the peer calls itself {uri!r}; give "
                "it the certificate that was made for it, or the URI that stands in it",
            )
        if host is not None and not pinned and host not in hosts(certificate):
            return Refusal(
                Fault.WRONG_HOST,
                f"is for {', '.join(hosts(certificate)) or 'no host'}, and was reached at {host!r}; have one made with "
                f"--host {host}, or put this very certificate into {self.trusted}",
            )
        return None

    def _is_revoked(self, certificate: x509.Certificate, issuers: list[x509.Certificate]) -> bool:
        for path in sorted(self.trusted.iterdir()):
            if path.suffix not in _LISTS:
                continue
            content = path.read_bytes()
            try:
                is_pem = b"-----BEGIN" in content
                found = x509.load_pem_x509_crl(content) if is_pem else x509.load_der_x509_crl(content)
            except ValueError as error:
                raise ConfigurationError(f"{path}: is no revocation list in PEM or DER ({error})") from error
            for issuer in issuers:
                key = issuer.public_key()
                if (
                    found.issuer == issuer.subject
                    and isinstance(key, rsa.RSAPublicKey)
                    and found.is_signature_valid(key)
                    and found.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
                ):
                    return True
        return False

    def _keep(self, certificate: x509.Certificate) -> Path | None:
        path = self.rejected / f"{fingerprint(certificate)[:32]}.pem"
        try:
            self.rejected.mkdir(exist_ok=True)
            if not path.exists() and sum(1 for _ in self.rejected.iterdir()) >= MOST_REJECTED:
                return None
            path.write_bytes(certificate.public_bytes(Encoding.PEM))
        except OSError:
            return None
        return path


def is_address(host: str) -> bool:
    """Whether it is an IP address, not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _has_issued(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Whether ``authority`` may sign, and signed ``certificate`` itself; chains of several are not followed."""
    try:
        if not authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        usage = authority.extensions.get_extension_for_class(x509.KeyUsage).value
        if not usage.key_cert_sign:
            return False
        certificate.verify_directly_issued_by(authority)
    except (x509.ExtensionNotFound, ValueError, TypeError, InvalidSignature):
        return False
    return True


def _key_fault(certificate: x509.Certificate) -> Refusal | None:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= SHORTEST_KEY_BITS:
        return None
    what = f"RSA with {key.key_size} bits" if isinstance(key, rsa.RSAPublicKey) else type(key).__name__
    return Refusal(Fault.WEAK, f"has a key of another kind than RSA with {SHORTEST_KEY_BITS} bits or more: {what}")


def _use_fault(certificate: x509.Certificate, role: Role) -> Refusal | None:
    """OPC 10000-6, 6.2.2: uses that an application's certificate must allow."""
    wanted = {
        Role.SERVER: x509.oid.ExtendedKeyUsageOID.SERVER_AUTH,
        Role.CLIENT: x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH,
    }[role]
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound as error:
        return Refusal(Fault.WRONG_USE, f"does not say what it is for ({error}); have one made for a {role.value}")
    if not (usage.digital_signature and usage.key_encipherment and usage.data_encipherment) or wanted not in purposes:
        return Refusal(Fault.WRONG_USE, f"is not for a {role.value} that signs and encrypts; have one made for that")
    return None
