"""Which addresses a user's http(s) URI may reach: none that is private to where we run (SSRF).

The name is resolved once per connection, every address that it has is checked, and the socket is
made for the address that was checked: a name that answers otherwise the next time gains nothing.
A redirect is a connection like any other. No proxy is used: it would resolve the name itself.
"""

from __future__ import annotations

import ipaddress
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from inferay.config import ALLOW_VARIABLE
from inferay.errors import InvalidInput

if TYPE_CHECKING:
    import aiohttp

#: IPv6 addresses that stand for the IPv4 address in their last four bytes.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class AddressRefusedError(OSError):
    """Raised by a connection that would go to an address that is not public."""


def is_public(address: str) -> bool:
    """Return whether the address is one of the public Internet, whatever form it is written in."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if inner is None and found in _NAT64:
            inner = ipaddress.IPv4Address(found.packed[-4:])
        if inner is not None:
            return is_public(str(inner))
        if found.is_site_local:
            return False
    return found.is_global and not (found.is_multicast or found.is_reserved)


def refusal(uri: str) -> InvalidInput:
    """Return the error of a URI whose address is not public."""
    return InvalidInput(
        f"{uri}: its host has an address that is private, loopback or otherwise not public; copy "
        f"the data into a datastore, or let an administrator set {ALLOW_VARIABLE}=true",
        code="AddressRefused", target=uri,
    )


def guarded_client(
    *, allow_private: bool, connections_max: int, connect_timeout_s: float, read_timeout_s: float
) -> aiohttp.ClientSession:
    """Return an http client whose every connection goes to a checked address.

    Its requests raise `aiohttp.ClientConnectorError` with an `AddressRefusedError` in it.
    """
    import aiohttp

    connector = aiohttp.TCPConnector(
        limit=connections_max, happy_eyeballs_delay=None,
        resolver=None if allow_private else _checked_resolver(),
        socket_factory=None if allow_private else _checked_socket,
    )
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_check_redirect)
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=connect_timeout_s, sock_read=read_timeout_s
    )
    return aiohttp.ClientSession(
        connector=connector, timeout=timeout, trace_configs=[trace], auto_decompress=False,
        headers={"Accept-Encoding": "identity"},
    )


def _check(address: str) -> None:
    if not is_public(address):
        raise AddressRefusedError("the address is not public")


def _checked_socket(found: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, address = found
    _check(address[0])
    return socket.socket(family, kind, protocol)


def _checked_resolver() -> Any:
    """Return a resolver that refuses a name if any of its addresses is not public."""
    from aiohttp.resolver import ThreadedResolver

    class CheckedResolver(ThreadedResolver):
        async def resolve(self, host: str, *arguments: Any, **options: Any) -> Any:
            found = await super().resolve(host, *arguments, **options)
            for one in found:
                _check(one["host"])
            return found

    return CheckedResolver()


async def _check_redirect(
    session: aiohttp.ClientSession, context: SimpleNamespace,
    params: aiohttp.TraceRequestRedirectParams,
) -> None:
    """Refuse a redirect from https to http: what is read would no longer be protected."""
    target = params.response.headers.get("Location", "")
    if params.url.scheme == "https" and target.lower().startswith("http:"):
        raise AddressRefusedError("a redirect leads from https to http")
