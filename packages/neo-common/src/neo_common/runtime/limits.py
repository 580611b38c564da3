"""From the configuration to the bounds of a daemon's connections: the same for all of them."""

from neo_common.config.sections import Config
from neo_common.runtime.connection import ConnectionLimits
from neo_common.runtime.shell import ShellLimits
from neo_common.wire.session import Limits


def shell_limits_of(config: Config) -> ShellLimits:
    """Return the bounds of connections, as configured."""
    timeouts, limits = config.timeouts, config.limits
    session = Limits(
        idle_s=timeouts.heartbeat_s,
        dead_s=timeouts.silence_s,
        handshake_s=timeouts.handshake_s,
        pending_max=limits.requests,
        hello_max=limits.hello_bytes,
    )
    connection = ConnectionLimits(output_max=limits.output_bytes, session=session)
    return ShellLimits(connections_max=limits.connections, strangers_max=limits.strangers, connection=connection)
