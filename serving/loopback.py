"""Which addresses are this machine's own: no proxy in the environment is meant for them."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_loopback(address: str) -> bool:
    """Whether a server's address stays on this machine.

    Args:
        address: `host:port`, or a URL.
    """
    try:
        host = urlsplit(address if "://" in address else f"//{address}").hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name, or no address at all
        return False
