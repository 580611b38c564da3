"""The admin daemon on sockets. It decides nothing but who may ask: other admins."""

from random import SystemRandom

from neo_admin.core.watch import AdminCore, Relay, Relayed
from neo_common.config.sections import Config
from neo_common.core import Accept, Park, Refuse
from neo_common.credentials import NO_CREDENTIALS, Credentials
from neo_common.errors import NeoError
from neo_common.ids import NO_EPOCH, NO_NODE
from neo_common.runtime.limits import shell_limits_of
from neo_common.runtime.shell import Shell
from neo_common.states import Role
from neo_common.wire.schema import PROTOCOL_VERSION, Hello, Packet, RefusalCode


def admin_hello(cluster: str, name: str) -> Hello:
    """Return what an admin says when it dials: no node id and no address yet."""
    incarnation = SystemRandom().getrandbits(64)
    return Hello(
        PROTOCOL_VERSION,
        PROTOCOL_VERSION,
        (),
        Role.ADMIN,
        name,
        cluster,
        bytes(16),
        NO_NODE,
        incarnation,
        NO_EPOCH,
        "",
    )


class AdminShell(Shell):
    """Follows the primary, and relays what neoadmin asks."""

    core: AdminCore

    def __init__(self, config: Config, name: str, credentials: Credentials = NO_CREDENTIALS) -> None:
        me = config.admin(name)
        us = admin_hello(config.cluster.name, name)._replace(node=me.node, address=me.address)
        super().__init__(AdminCore(), us, [me.listens_at], shell_limits_of(config), credentials=credentials)
        self._config = config

    def started(self) -> None:
        """Look for the primary."""
        self.follow_primary(self._config.master_addresses)

    def greet(self, connection: int, hello: Hello) -> Accept | Park | Refuse | None:
        """Let in whoever administers."""
        if hello.role is Role.ADMIN:
            return Accept(connection, self.local_id(Role.ADMIN))
        return Refuse(connection, RefusalCode.ROLE, "this is an admin: it answers neoadmin only")

    def perform(self, effect: object) -> None:
        """Perform a Relay."""
        assert isinstance(effect, Relay), effect
        self.spawn(self._relay, effect)

    def _relay(self, relay: Relay) -> None:
        answer: Packet | NeoError
        try:
            answer = self.ask(relay.primary, relay.packet, self._config.timeouts.request_s)
        except NeoError as error:
            answer = error
        self.post(Relayed(relay.peer, relay.request, answer))
