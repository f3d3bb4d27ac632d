"""What gRPC itself is told of limits: of messages, calls, connections, pings."""

from service.settings import Settings

# Beyond `max_body_bytes`, so that what is a little too large is refused in our own words.
_SLACK_BYTES = 64 * 2**10
# What others do with one connection: more calls wait at the client.
_MAX_CALLS_A_CONNECTION = 1024
# Clients and proxies may look that often whether a connection is still there.
_MIN_PING_MILLISECONDS = 10_000
# What is asked of every connection that is idle; one that is dead is given up.
_KEEPALIVE_MILLISECONDS = 60_000
# A connection without a call is ended after this; clients connect again when they have one.
_MAX_IDLE_MILLISECONDS = 600_000


def server_options(settings: Settings, most_connections: int | None) -> list[tuple[str, int]]:
    """Make the options of a server.

    Args:
        settings: of the service.
        most_connections: that may be open at a time; None where nothing limits them.
    """
    options = [
        ("grpc.max_receive_message_length", settings.max_body_bytes + _SLACK_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", _MAX_CALLS_A_CONNECTION),
        ("grpc.so_reuseport", 1),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MILLISECONDS),
        # Also how long the kernel keeps what a client does not acknowledge.
        ("grpc.keepalive_timeout_ms", round(1000 * settings.write_timeout_seconds)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_connection_idle_ms", _MAX_IDLE_MILLISECONDS),
        ("grpc.http2.min_ping_interval_without_data_ms", _MIN_PING_MILLISECONDS),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _MIN_PING_MILLISECONDS),
    ]
    if most_connections is not None:
        options.append(("grpc.max_allowed_incoming_connections", most_connections))
    return options
