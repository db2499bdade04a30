"""Access tokens of the sandbox's Entra: signed JWTs, issued to a character for one audience, checked by every local Azure server."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Any

import jwt

from sandbox.names import AGENT, BOT, PEOPLE, TENANT, Character
from sandbox.state import State

AZURE_DEVOPS = "499b84ac-1321-427f-aa17-267ca6975798"
LIFETIME = 3600


class BadToken(Exception):
    """The token is missing, forged, expired or meant for somebody else."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a token stands for, and the scopes it carries (empty for a service identity)."""

    who: Character
    audience: str
    scopes: frozenset[str] = frozenset()


class Tokens:
    """Issues and checks tokens; the signing key survives restarts."""

    def __init__(self, state: State) -> None:
        table = state.table("tokens")
        if "key" not in table:
            table["key"] = secrets.token_hex(32)
        self._key: str = table["key"]
        self._revoked = state.table("tokens.revoked")
        self._people = {person.oid: person for person in (*PEOPLE, BOT, AGENT)}

    def issue(self, who: Character, audience: str, scopes: tuple[str, ...] = (), lifetime: int = LIFETIME) -> str:
        """A token for the audience (a resource without `/.default`)."""
        moment = time.time()
        now = int(moment)
        claims: dict[str, Any] = {
            "aud": audience,
            "iss": f"https://sts.windows.net/{TENANT}/",
            "iat": now,
            "issued": moment,  # finer than iat: who signs in again right after a revocation may do so in the same second
            "nbf": now,
            "exp": now + lifetime,
            "tid": TENANT,
            "oid": who.oid,
            "sub": who.oid,
            "name": who.name,
            "upn": who.email,
            "preferred_username": who.email,
        }
        if scopes:
            claims["scp"] = " ".join(scopes)
        return jwt.encode(claims, self._key, algorithm="HS256")

    def revoke(self, who: Character) -> None:
        """Take no token any more that the person has been given up to now."""
        self._revoked[who.oid] = time.time()

    def check(self, authorization: str | None, *audiences: str) -> Principal:
        """The principal behind an `Authorization: Bearer` header. Raises BadToken, with a reason fit for a 401's body."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise BadToken("The request has no bearer token.")
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=["HS256"],
                audience=[a.rstrip("/") for a in audiences] + [a.rstrip("/") + "/" for a in audiences],
                options={"require": ["issued", "exp"]},
            )
        except jwt.ExpiredSignatureError:
            raise BadToken("The access token expired.") from None
        except jwt.InvalidAudienceError:
            raise BadToken("The access token has been obtained for the wrong audience.") from None
        except jwt.InvalidTokenError:
            raise BadToken("The access token is invalid.") from None
        if claims["issued"] <= self._revoked.get(claims["oid"], 0.0):
            raise BadToken("The access token has been revoked.")
        who = self._people.get(claims["oid"])
        if who is None:
            raise BadToken("The identity does not exist in this tenant.")
        return Principal(who, claims["aud"], frozenset(claims.get("scp", "").split()))
