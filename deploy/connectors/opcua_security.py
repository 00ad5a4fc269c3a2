"""A client's side of OPC UA security: choose the server's best endpoint, judge its certificate, log in.

Only SignAndEncrypt with Aes256_Sha256_RsaPss or Basic256Sha256 is spoken: older policies use SHA-1 or PKCS 1 v1.5
encryption. The server's certificate is judged before anything but the question for its endpoints is sent, and again
when the session is made, where its answer is signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncua import ua as _typed_ua
from asyncua.client.client import Client
from asyncua.common.utils import ServiceError
from asyncua.crypto import security_policies
from asyncua.crypto.uacrypto import CertProperties
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ...envs.errors import ConfigurationError, PlantError
from ..certificates.identity import CERTIFICATE, Identity, load_identity, load_key
from ..certificates.trust import Role, application_uri, read_certificate, time_fault
from ..certificates.users import PASSWORD_VARIABLE, USER, USER_VARIABLE, Credentials, load_credentials

ua: Any = _typed_ua  # asyncua annotates with OPC UA's types, and takes and gives Python's

POLICIES: tuple[Any, ...] = (
    security_policies.SecurityPolicyAes256Sha256RsaPss,
    security_policies.SecurityPolicyBasic256Sha256,
)
"""Best first."""
_WANTS_SECURITY = {
    "BadSecurityModeInsufficient",
    "BadSecurityModeRejected",
    "BadSecurityPolicyRejected",
    "BadSecurityChecksFailed",
    "BadIdentityTokenRejected",
    "BadUserAccessDenied",
}
USER_CERTIFICATE, USER_KEY = "user_certificate.pem", "user_key.pem"


@dataclass(frozen=True)
class ClientSecurity:
    """Who we are, and as which user we log in: by password, by a certificate of the user's own, or as nobody."""

    identity: Identity
    credentials: Credentials | None = None
    user_certificate: x509.Certificate | None = None
    user_key: rsa.RSAPrivateKey | None = None


def load_client_security(folder: str | Path) -> ClientSecurity:
    """Read a client's folder; raises :class:`ConfigurationError` with file, value and remedy.

    A ``user_certificate.pem`` with its ``user_key.pem`` goes before ``user.json`` and the environment.
    """
    identity = load_identity(folder)
    path = identity.folder / USER_CERTIFICATE
    if not path.exists():
        return ClientSecurity(identity, load_credentials(folder))
    certificate = read_certificate(path)
    if found := time_fault(certificate):
        raise ConfigurationError(f"{path}: {found.text}")
    return ClientSecurity(identity, None, certificate, load_key(identity.folder / USER_KEY))


async def secure(client: Client, security: ClientSecurity, endpoint: str, host: str) -> None:
    """Prepare a client that has not connected yet; raises :class:`PlantError` for a server that it must not talk to."""
    identity = security.identity
    client.application_uri = identity.uri
    offered = await client.connect_and_get_server_endpoints()
    policy, chosen = _best(offered, endpoint)
    certificate = _first(chosen.ServerCertificate, endpoint)
    _judge(identity, certificate, chosen.Server.ApplicationUri, endpoint, host)

    async def judge_again(shown: x509.Certificate, description: Any) -> None:
        try:
            _judge(identity, shown, description.ApplicationUri, endpoint, host)
        except PlantError as error:
            raise ServiceError(ua.StatusCodes.BadCertificateUriInvalid) from error

    client.certificate_validator = judge_again
    _prepare_user(client, security, chosen, endpoint)
    own = identity.certificate.public_bytes(Encoding.DER)
    key = identity.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    await client.set_security(
        policy,
        CertProperties(own, "der"),
        CertProperties(key, "der"),
        server_certificate=CertProperties(certificate.public_bytes(Encoding.DER), "der"),
        mode=ua.MessageSecurityMode.SignAndEncrypt,
    )


def explained(error: BaseException, security: ClientSecurity | None) -> str:
    """What a server's refusal of us means and what helps; empty for any other error."""
    name = type(error).__name__
    where = "its folder trusted/"
    if security is None:
        if name in _WANTS_SECURITY:
            return f"the server wants security ({name}): give a folder of certificates with --security DIR"
        return ""
    identity = security.identity
    own = identity.folder / CERTIFICATE
    uri = application_uri(identity.certificate)
    user = "nobody" if security.credentials is None else repr(security.credentials.name)
    user = f"the owner of {USER_CERTIFICATE}" if security.user_certificate is not None else user
    login = (
        f"the server refused the user {user} ({name}): wrong name or password, or one that it does not know; it is "
        f"taken from {USER_VARIABLE} and {PASSWORD_VARIABLE} or from {identity.folder / USER}"
    )
    return {
        "BadCertificateUntrusted": f"the server does not trust {own} ({name}): copy it into {where} there",
        "BadSecurityChecksFailed": f"the server refused {own} ({name}): is it in {where} there and valid?",
        "BadCertificateTimeInvalid": f"the server finds {own} not valid now ({name}): set the clocks of both machines",
        "BadCertificateUriInvalid": f"the server finds the application URI {uri!r} of {own} wrong ({name})",
        "BadCertificateUseNotAllowed": f"the server finds {own} not made for a client ({name})",
        "BadCertificateRevoked": f"the server says that {own} was revoked ({name}); have a new one made",
        "BadUserAccessDenied": login,
        "BadIdentityTokenRejected": login,
        "BadIdentityTokenInvalid": login,
    }.get(name, "")


def _best(offered: list[Any], endpoint: str) -> tuple[Any, Any]:
    for policy in POLICIES:
        for found in offered:
            is_secured = found.SecurityMode == ua.MessageSecurityMode.SignAndEncrypt
            if is_secured and found.SecurityPolicyUri == policy.URI and found.EndpointUrl.startswith("opc.tcp://"):
                return policy, found
    names = sorted({f"{f.SecurityPolicyUri.rpartition('#')[2]} {f.SecurityMode.name}" for f in offered})
    raise PlantError(
        f"{endpoint}: the server offers no security that is good enough (it has {', '.join(names) or 'nothing'}; "
        "needed is SignAndEncrypt with Aes256_Sha256_RsaPss or Basic256Sha256); nothing was sent"
    )


def _first(chain: bytes | None, endpoint: str) -> x509.Certificate:
    """The server's own certificate, the first of a chain (DER: a tag, then the length in two bytes)."""
    try:
        return x509.load_der_x509_certificate((chain or b"")[: int.from_bytes((chain or b"")[2:4], "big") + 4])
    except ValueError as error:
        raise PlantError(
            f"{endpoint}: the server shows no certificate that can be read ({error}); nothing was sent"
        ) from error


def _judge(identity: Identity, certificate: x509.Certificate, uri: str, endpoint: str, host: str) -> None:
    if found := identity.trust.judge(certificate, Role.SERVER, uri=uri, host=host):
        raise PlantError(f"{endpoint}: the server's certificate {found.text} ({found.fault.status}); nothing was sent")


def _prepare_user(client: Client, security: ClientSecurity, chosen: Any, endpoint: str) -> None:
    offered = {token.TokenType for token in chosen.UserIdentityTokens}
    if security.user_certificate is not None:
        wanted = ua.UserTokenType.Certificate
        client.user_certificate, client.user_private_key = security.user_certificate, security.user_key
    elif security.credentials is not None:
        wanted = ua.UserTokenType.UserName
        client.set_user(security.credentials.name)
        client.set_password(security.credentials.password.get_secret_value())
    else:
        wanted = ua.UserTokenType.Anonymous
    if wanted not in offered:
        names = ", ".join(sorted(kind.name for kind in offered)) or "nothing"
        raise PlantError(
            f"{endpoint}: the server takes no user by {wanted.name} (it takes {names}); put a name and a password into "
            f"{security.identity.folder / USER}, or set {USER_VARIABLE} and {PASSWORD_VARIABLE}; nothing was sent"
        )
