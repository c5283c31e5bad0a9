"""API keys: who may read and who may write. Only digests are kept in memory."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dupmae.errors import UsageError

KEYS_VARIABLE = "DUPMAE_API_KEYS"
SHORTEST_KEY = 16
"""Characters; 16 random ones are beyond guessing."""

_SCOPES = ("read", "write")
_HASHED = "sha256:"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """SHA-256 digests of keys with their scopes; a key that writes also reads."""

    digests: tuple[tuple[str, bytes], ...]

    @classmethod
    def load(cls, path: Path | None) -> ApiKeys:
        """Read keys from a file, or if none is given from DUPMAE_API_KEYS; there may be none.

        A line is `read KEY` or `write KEY`, where KEY may be `sha256:` and a hex digest of it;
        empty lines and those that begin with # are skipped.

        Raises:
            UsageError: if the file cannot be read, or a line is no key; it does not repeat the
                line, which may hold one.
        """
        if path is None:
            return cls.parse(os.environ.get(KEYS_VARIABLE, "").splitlines(), KEYS_VARIABLE)
        try:
            if path.stat().st_mode & stat.S_IROTH:
                logger.warning("%s can be read by every user; `chmod 600` it", path)
            keys = cls.parse(path.read_text(encoding="utf-8").splitlines(), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the file of API keys {path} cannot be read: {error}") from error
        if not keys:
            raise UsageError(f"{path} holds no API keys; write lines such as `read KEY`")
        return keys

    @classmethod
    def parse(cls, lines: Iterable[str], source: str) -> ApiKeys:
        """Read keys from lines; `source` is for errors."""
        digests = []
        for number, line in enumerate(lines, start=1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) != 2 or words[0] not in _SCOPES:
                raise UsageError(
                    f"{source}, line {number}: expected `read KEY` or `write KEY`, with a key "
                    "that has no spaces"
                )
            digests.append((words[0], _digest_of(words[1], f"{source}, line {number}")))
        return cls(tuple(digests))

    def __len__(self) -> int:
        return len(self.digests)

    def scopes(self, key: str) -> frozenset[str]:
        """Return what a key may do, in a time that does not depend on how much of it is right."""
        digest = _hash(key)
        allowed = set()
        for scope, known in self.digests:
            if hmac.compare_digest(known, digest):
                allowed.add(scope)
        return frozenset(_SCOPES) if "write" in allowed else frozenset(allowed)


def _digest_of(key: str, where: str) -> bytes:
    if key.startswith(_HASHED):
        digest = key.removeprefix(_HASHED)
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise UsageError(f"{where}: sha256: must be followed by 64 digits of lower-case hex")
        return bytes.fromhex(digest)
    if len(key) < SHORTEST_KEY:
        raise UsageError(
            f"{where}: the key has fewer than {SHORTEST_KEY} characters; "
            '`python -c "import secrets; print(secrets.token_urlsafe())"` makes a good one'
        )
    return _hash(key)


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
