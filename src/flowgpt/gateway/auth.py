"""Who asks: keys are made, recognised and refused here, by one extractor. The store keeps them, as digests only.

A key's name is the owner of what its requests store. What a key may do beyond that is not decided here.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from urllib.parse import parse_qsl

from ..addresses import Secret
from ..errors import StoreError
from ..store import Store
from .failures import Refusal
from .guard import Fields

IN_QUERY = {"access_token", "api-key", "api_key", "apikey", "authorization", "key", "x-api-key"}
"""What programs call a key in a query string, where proxies, histories and logs would show it."""

BARE = re.compile(r"(.+)")
BEARER = re.compile(r"bearer +(.+)", re.IGNORECASE)


def new_key() -> str:
    """A fresh key of 256 random bits."""
    return Secret(f"fg-{secrets.token_urlsafe(32)}")


def digest(key: str) -> str:
    """What is stored of a key: plain SHA-256. Nobody can search 256 random bits, so slowness protects nothing."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


class Auth:
    """Who may come in. `store`: where the keys are; None: nobody is asked for one. Raises: StoreError."""

    def __init__(self, store: Store | None, *, insecure_no_auth: bool) -> None:
        self._store = None if insecure_no_auth else store
        self._asks = bool(self._store and self._store.keys())

    def owner(self, fields: Fields, query: bytes) -> str:
        """The name of the request's key; "" where no key is asked for, since none exists.

        Once there was a key it always asks for one: revoking the last one locks, and does not open.
        Raises: Refusal: 401 for no key, a wrong one, or one in the URL; 400 for two; 503 when the keys cannot be read.
        """
        if query:
            _check_query(query)
        if self._store is None:
            return ""
        keys = self._keys(self._store)
        self._asks = self._asks or bool(keys)
        return _owner(keys, _presented(fields)) if self._asks else ""

    def check(self) -> None:
        """Whether it can be told who may come in. Raises: Refusal 503."""
        if self._store is not None:
            self._keys(self._store)

    def _keys(self, store: Store) -> Mapping[str, str]:
        try:
            return store.keys()
        except StoreError as error:  # nobody can tell who may come in, so nobody does
            raise Refusal(503, error.code, "the keys cannot be read; try again later", retry_after_s=1.0) from None


def _owner(keys: Mapping[str, str], presented: Secret) -> str:
    """The same way and cost for each key, right, wrong or missing: its digest against all (K6)."""
    asked, owner = digest(presented), None
    for known, name in keys.items():
        if hmac.compare_digest(known, asked):
            owner = name
    if owner is None:
        words = "unknown API key" if presented else "an API key is needed: Authorization: Bearer <key>, or x-api-key"
        raise _unauthorized(words)
    return owner


def _presented(fields: Fields) -> Secret:
    """The one key of a request, or "". Raises: Refusal, 400 where programs on the way could each see another (K8)."""
    key = Secret()
    for header, form in ((b"authorization", BEARER), (b"x-api-key", BARE)):
        values = fields.get(header, ())
        if len(values) > 1:
            raise Refusal(400, "ambiguous_api_key", f"the header {header.decode()} came {len(values)} times")
        found = form.fullmatch(values[0]) if values else None
        if found and key not in ("", found[1]):
            raise Refusal(400, "ambiguous_api_key", "the headers authorization and x-api-key have different keys")
        key = Secret(found[1]) if found else key
    return key


def _check_query(query: bytes) -> None:
    """Raises: Refusal for a key in the URL (K7)."""
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name.lower() in IN_QUERY:
            raise _unauthorized(f"a key in the URL ({name.lower()}=) is shown by logs and proxies: send it as a header")


def _unauthorized(words: str) -> Refusal:
    return Refusal(401, "invalid_api_key", words, headers=[("www-authenticate", "Bearer")])
