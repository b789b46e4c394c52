"""TCP ports: whether a service can listen on one, and which one is free."""

import socket

from music_assets.settings import http_url


class PortError(Exception):
    """A service cannot listen on its port."""


def check_port(host: str, port: int, option: str) -> None:
    """Raise PortError unless this process can listen on the port; `option` is how the user sets it.

    Without this check the conflict shows only after all other processes have started.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise PortError(
            f"Cannot listen on {http_url(host, port)}: {error.strerror}. Is music-assets running already? Stop it, or "
            f"choose another port with {option}."
        ) from None


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port on which nothing listens at the moment."""
    with socket.create_server((host, 0)) as server:
        return int(server.getsockname()[1])
