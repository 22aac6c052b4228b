"""URLs as others may see them: wherever one is shown, logged or kept, its credentials are masked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

_MASK = "***"
_USERS = re.compile(r"://(?P<user>[^:/@\s]*):(?P<password>[^@\s]*@(?:[^/@\s]*@)*)")
# A word alone is a user to a database, and may be a token to a web server. (A lookbehind has one length.)
_TOKENS = re.compile(r"(?<=http://|ttps://)[^/@\s]*@(?:[^/@\s]*@)*")
_SECRET = "password|passwd|pwd|secret|token"
_LISTED = rf"[?&;][\w.-]*(?:{_SECRET}|key|sig|signature|credential)"  # in a query, or a list such as Azure's
_SAID = rf"(?:^|\s)[\w.-]*(?:{_SECRET})"  # in libpq's words, or anybody's
_NAMED = re.compile(rf"(?i)(?P<name>(?:{_LISTED}|{_SAID})=)(?P<value>[^&;\s'\"]+)")
_SHORTEST = 4  # letters of a piece that is masked wherever it stands: shorter ones are in words, too


def masked(text: str, *urls: str) -> str:
    """Hide the credentials of every URL in a text: `scheme://user:password@host` and `?password=...`.

    Args:
        text: a URL, or whatever may hold some.
        urls: whose passwords are hidden wherever in the text they stand, since a driver that was given one with a "@"
            in its password complains of a host that holds half of it.
    """
    text = _USERS.sub(f"://{_MASK}@", text)
    text = _TOKENS.sub(f"{_MASK}@", text)
    text = _NAMED.sub(rf"\g<name>{_MASK}", text)
    for secret in sorted({secret for url in urls for secret in _secrets(url)}, key=len, reverse=True):
        text = text.replace(secret, _MASK)
    return text


def _secrets(url: str) -> Iterator[str]:
    """What a URL holds that is for nobody's eyes, as it is written and as it is meant, whole and in pieces."""
    passwords = [found["password"][:-1] for found in _USERS.finditer(url)]
    tokens = [found[0][:-1] for found in _TOKENS.finditer(url)]
    named = [found["value"] for found in _NAMED.finditer(url)]
    for secret in [*passwords, *tokens, *named]:
        for piece in (secret, *secret.split("@")):
            yield from (form for form in {piece, unquote(piece)} if len(form) >= _SHORTEST)
