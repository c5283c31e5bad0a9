"""What a server allows, and how much at once."""

from __future__ import annotations

from dataclasses import dataclass, fields

from dupmae.errors import UsageError

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Limits of a server; a request beyond one is refused with a line that names it."""

    max_k: int = 1000
    """Hits of one answer."""
    max_offset: int = 10_000
    """Best documents that a page may leave out."""
    max_query_length: int = 10_000
    """Characters of a query, and of a filter."""
    max_queries: int = 64
    """Queries of one request."""
    max_body: int = MIB
    """Bytes of a request's body, but for documents."""
    max_documents_body: int = 16 * MIB
    """Bytes of a body with documents to index."""
    time_limit: float = 30.0
    """Seconds that a request other than a write may take, its body included."""
    queue: int = 256
    """Queries that may wait; more are refused until some are answered."""
    batch: int = 32
    """Queries that are encoded and searched together, where so many wait."""
    max_connections: int = 512
    """Connections held at once; more are closed."""
    writable: bool = False
    """Whether documents may be indexed and deleted."""
    cors: tuple[str, ...] = ()
    """Origins of other sites' pages that may ask, such as `https://example.org`."""
    hosts: tuple[str, ...] = ()
    """Names in a request's Host header that are answered; any if empty."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "max_offset" else 1
            if isinstance(value, (int, float)) and field.name != "writable" and value < least:
                raise UsageError(f"{field.name} must be at least {least}, found {value}")
        for origin in self.cors:
            scheme, _, rest = origin.partition("://")
            if scheme not in {"http", "https"} or not rest or "/" in rest or "*" in rest:
                raise UsageError(
                    f"--cors takes an origin such as https://example.org, found {origin!r}"
                )
