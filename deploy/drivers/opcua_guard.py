"""What asyncua's server lacks: limits, sessions bound to their channel, subscriptions bound to their session.

Found by reading asyncua 2.1.0: a session may be made, activated and taken over by its (guessable) token on a channel
without security although no such endpoint is offered; the certificate that is judged is the one that the client names,
not the one that its channel proves; subscriptions of others may be changed, deleted and taken over; numbers of nodes,
publishing intervals and queues are not limited; subscriptions outlive their session where the client asks for it
(FreeOpcUa/opcua-asyncio issue 1982).
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from asyncua import ua as _typed_ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import InternalSession

ua: Any = _typed_ua  # asyncua annotates with OPC UA's types, and takes and gives Python's

_RSA_15 = "http://www.w3.org/2001/04/xmlenc#rsa-1_5"
_NOBODY = User(role=UserRole.Anonymous)
_LIMIT_NODES = (
    "MaxNodesPerRead",
    "MaxNodesPerWrite",
    "MaxNodesPerMethodCall",
    "MaxNodesPerBrowse",
    "MaxNodesPerTranslateBrowsePathsToNodeIds",
    "MaxMonitoredItemsPerCall",
)


@dataclass(frozen=True)
class ServerLimits:
    """What one server gives to all its clients together, and to each."""

    connections: int = 32
    sessions: int = 16
    subscriptions_a_session: int = 4
    items_a_session: int = 5000
    nodes_a_request: int = 5000
    queue_an_item: int = 100
    publishing_s: tuple[float, float] = (0.01, 60.0)
    session_s: tuple[float, float] = (5.0, 60.0)
    activation_s: float = 10.0
    message_bytes: int = 8 * 2**20


class GuardedServer(InternalServer):
    """asyncua's inner server with sessions of our own.

    ``is_secured``: a session needs a channel that signs and encrypts, with the certificate that was judged.
    ``may_write`` says whether a user may call methods.
    """

    def __init__(
        self,
        limits: ServerLimits,
        *,
        is_secured: bool,
        may_write: Callable[[User], bool],
        user_manager: Any = None,
    ) -> None:
        super().__init__(user_manager=user_manager)
        self.guard = limits
        self.is_secured = is_secured
        self.may_write = may_write
        self.allow_remote_admin = False
        self.max_connections = limits.connections
        self.max_pending_activation_seconds = limits.activation_s
        self.min_session_timeout_ms, self.max_session_timeout_ms = (1e3 * s for s in limits.session_s)
        self.max_subscriptions = limits.sessions * limits.subscriptions_a_session
        self.max_monitored_item_queue_size = limits.queue_an_item
        self.max_unacked_messages_per_subscription = limits.queue_an_item

    async def tell_limits(self) -> None:
        """Publish the limits where clients look for them."""
        for name in _LIMIT_NODES:
            node_id = ua.NodeId(getattr(ua.ObjectIds, f"Server_ServerCapabilities_OperationLimits_{name}"))
            value = ua.DataValue(ua.Variant(self.guard.nodes_a_request, ua.VariantType.UInt32))
            await self.write_attribute_value(node_id, value)

    def create_session(
        self,
        name: Any,
        user: User = _NOBODY,
        external: bool = False,
    ) -> InternalSession:
        if not external:
            return super().create_session(name, user, external)
        for session in self.sessions():
            if session.name != name:
                continue
            if session.is_activated():
                raise ServiceError(ua.StatusCodes.BadTooManySessions)  # one a connection
            session.abandon()
        return GuardedSession(self, self.aspace, self.subscription_service, name, user=user, external=True)

    def sessions(self) -> list[GuardedSession]:
        """Sessions of clients, activated or not."""
        return [s for s in self._external_sessions.values() if isinstance(s, GuardedSession)]

    def lookup_external_session(self, auth_token: Any) -> InternalSession | None:
        """None: a session never moves to another channel; the client makes a new one."""
        return None

    def register_server(self, server: Any, conf: Any = None) -> None:
        raise ServiceError(ua.StatusCodes.BadServiceUnsupported)  # no discovery server, and anybody may ask for it

    def decrypt_user_token(self, isession: Any, token: Any) -> tuple[str, str]:
        if token.EncryptionAlgorithm == _RSA_15:
            raise ServiceError(ua.StatusCodes.BadIdentityTokenInvalid)  # an oracle for the server's private key
        return super().decrypt_user_token(isession, token)


class GuardedSession(InternalSession):
    """One client's session, within the limits, bound to its channel and its own subscriptions."""

    iserver: GuardedServer

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._judged: bytes | None = None
        self.iserver.unregister_external_session(self)
        self.auth_token = ua.NodeId(secrets.token_bytes(32), 0, ua.NodeIdType.ByteString)
        self.iserver.register_external_session(self)

    def abandon(self) -> None:
        """Forget a session that was never activated."""
        self.iserver.unregister_external_session(self)

    async def create_session(self, params: Any, sockname: tuple[str, int] | None = None) -> Any:
        if self.iserver.is_secured and not params.ClientCertificate:
            raise ServiceError(ua.StatusCodes.BadSecurityModeInsufficient)
        result = await super().create_session(params, sockname)  # judges params.ClientCertificate
        self._judged = params.ClientCertificate
        return result

    def activate_session(self, params: Any, peer_certificate: bytes | None) -> Any:
        if self.iserver.is_secured:
            if peer_certificate is None:
                raise ServiceError(ua.StatusCodes.BadSecurityModeInsufficient)
            if _first(peer_certificate) != _first(self._judged or b""):
                raise ServiceError(ua.StatusCodes.BadSecurityChecksFailed)
        active = sum(s.is_activated() for s in self.iserver.sessions())
        if not self.is_activated() and active >= self.iserver.guard.sessions:
            raise ServiceError(ua.StatusCodes.BadTooManySessions)
        return super().activate_session(params, peer_certificate)

    async def close_session(self, delete_subs: bool = True) -> None:
        await super().close_session(True)

    async def read(self, params: Any) -> Any:
        self._limit(params.NodesToRead)
        return await super().read(params)

    async def write(self, params: Any) -> Any:
        self._limit(params.NodesToWrite)
        return await super().write(params)

    async def browse(self, params: Any) -> Any:
        self._limit(params.NodesToBrowse)
        return await super().browse(params)

    async def translate_browsepaths_to_nodeids(self, params: Any) -> Any:
        self._limit(params)
        return await super().translate_browsepaths_to_nodeids(params)

    async def call(self, params: Any) -> Any:
        self._limit(params)
        if not self.iserver.may_write(self.user):
            denied = ua.StatusCode(ua.StatusCodes.BadUserAccessDenied)
            return [ua.CallMethodResult(StatusCode=denied) for _ in params]
        return await super().call(params)

    async def create_subscription(self, params: Any, callback: Any, request_callback: Any = None) -> Any:
        if len(self._own()) >= self.iserver.guard.subscriptions_a_session:
            raise ServiceError(ua.StatusCodes.BadTooManySubscriptions)
        shortest_ms, longest_ms = (1e3 * s for s in self.iserver.guard.publishing_s)
        asked_ms = float(params.RequestedPublishingInterval)
        params.RequestedPublishingInterval = (
            min(max(asked_ms, shortest_ms), longest_ms) if math.isfinite(asked_ms) else longest_ms
        )
        return await super().create_subscription(params, callback, request_callback)

    async def create_monitored_items(self, params: Any) -> Any:
        self._limit(params.ItemsToCreate)
        self._owned(params.SubscriptionId)
        services = self.subscription_service.subscriptions
        held = sum(len(services[number].monitored_item_srv._monitored_items) for number in self._own())
        if held + len(params.ItemsToCreate) > self.iserver.guard.items_a_session:
            raise ServiceError(ua.StatusCodes.BadTooManyMonitoredItems)
        return await super().create_monitored_items(params)

    async def modify_monitored_items(self, params: Any) -> Any:
        self._limit(params.ItemsToModify)
        self._owned(params.SubscriptionId)
        longest = self.iserver.guard.queue_an_item
        for item in params.ItemsToModify:
            asked = item.RequestedParameters.QueueSize
            item.RequestedParameters.QueueSize = min(asked or longest, longest)
        return await super().modify_monitored_items(params)

    async def delete_monitored_items(self, params: Any) -> Any:
        self._owned(params.SubscriptionId)
        return await super().delete_monitored_items(params)

    async def set_monitoring_mode(self, params: Any) -> Any:
        self._owned(params.SubscriptionId)
        return await super().set_monitoring_mode(params)

    async def set_publishing_mode(self, params: Any) -> Any:
        for number in params.SubscriptionIds:
            self._owned(number)
        return await super().set_publishing_mode(params)

    def modify_subscription(self, params: Any) -> Any:
        self._owned(params.SubscriptionId)
        return super().modify_subscription(params)

    def republish(self, params: Any) -> Any:
        self._owned(params.SubscriptionId)
        return super().republish(params)

    def publish(self, acks: Iterable[Any] | None = None) -> Any:
        own = self._own()
        return super().publish([ack for ack in acks or [] if ack.SubscriptionId in own])

    async def delete_subscriptions(self, ids: list[int]) -> list[Any]:
        own, found = self._own(), []
        for number in ids:
            if number in own:
                found += await super().delete_subscriptions([number])
            else:
                found.append(ua.StatusCode(ua.StatusCodes.BadSubscriptionIdInvalid))
        return found

    async def transfer_subscriptions(self, params: Any, callback: Any = None) -> list[Any]:
        """None moves: whoever lost a session subscribes anew."""
        invalid = ua.StatusCode(ua.StatusCodes.BadSubscriptionIdInvalid)
        return [ua.TransferResult(StatusCode=invalid) for _ in params.SubscriptionIds]

    def _own(self) -> set[int]:
        found = self.subscription_service.subscriptions.items()
        return {number for number, subscription in found if subscription.session_id == self.session_id}

    def _owned(self, number: int) -> None:
        if number not in self._own():
            raise ServiceError(ua.StatusCodes.BadSubscriptionIdInvalid)

    def _limit(self, items: Any) -> None:
        if len(items or ()) > self.iserver.guard.nodes_a_request:
            raise ServiceError(ua.StatusCodes.BadTooManyOperations)


def _first(chain: bytes) -> bytes:
    """The first certificate of a chain in DER: a tag, then the length in two bytes."""
    return chain[: int.from_bytes(chain[2:4], "big") + 4]
