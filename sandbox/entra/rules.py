"""The rules of signing in: codes, refresh tokens, consent. No HTTP; what is kept survives restarts.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.names import CLIENT_ID, PEOPLE, TENANT, Character
from sandbox.state import State
from sandbox.tokens import AZURE_DEVOPS

CODE_LASTS = 600  # seconds
IDENTITY = frozenset({"openid", "profile", "offline_access", "email"})
# What the app registration may ask of Azure DevOps.
PERMISSIONS = ("vso.build_execute", "vso.release_manage")
WORDS = {
    "vso.build_execute": "Run pipelines and answer their approvals, as you",
    "vso.release_manage": "Deploy releases and answer their approvals, as you",
    "offline_access": "Keep access to what you have given it access to",
    "openid": "Sign you in",
    "profile": "See your name and user name",
}


class EntraError(Exception):
    """An answer of the protocol: `error` and a description that begins with the code."""

    def __init__(self, error: str, code: int, description: str, status: int = 400) -> None:
        super().__init__(f"AADSTS{code}: {description}")
        self.error = error
        self.code = code
        self.status = status


@dataclass(frozen=True, slots=True)
class Ask:
    """What an app asks for when it sends somebody to sign in."""

    client: str
    redirect: str
    scopes: tuple[str, ...]
    state: str
    nonce: str
    challenge: str
    mode: str


class Rules:
    """One tenant with one app registration."""

    def __init__(self, state: State, redirect: str) -> None:
        self._codes: dict[str, tuple[Ask, Character, float]] = {}
        self._used: set[str] = set()
        self._refresh = state.table("entra.refresh")
        self._consents = state.table("entra.consents")
        self._settings = state.table("entra.settings")
        self.redirect = redirect
        if "secret" not in self._settings:
            self._settings["secret"] = secrets.token_urlsafe(30)
        self.secret: str = self._settings["secret"]
        self.lifetime = 3600  # seconds of an access token

    # On the page

    def asked(self, query: Mapping[str, str]) -> Ask:
        """What the query asks for. Raises EntraError: where the app or its address is unknown nobody is sent anywhere."""
        if query.get("client_id", "").lower() != CLIENT_ID:
            raise EntraError("unauthorized_client", 700016, f"Application with identifier '{query.get('client_id')}' was not found.")
        if query.get("redirect_uri") != self.redirect:
            raise EntraError("invalid_request", 50011, f"The redirect URI '{query.get('redirect_uri')}' does not match those configured.")
        return Ask(
            client=CLIENT_ID,
            redirect=self.redirect,
            scopes=tuple(query.get("scope", "").split()),
            state=query.get("state", ""),
            nonce=query.get("nonce", ""),
            challenge=query.get("code_challenge", "") if query.get("code_challenge_method") == "S256" else "",
            mode=query.get("response_mode", "query"),
        )

    def check(self, ask: Ask) -> None:
        """Whether what is asked for can be given at all. Raises EntraError, for the app."""
        named(ask.scopes)
        if not ask.challenge:
            raise EntraError("invalid_request", 9002313, "PKCE is required: code_challenge with the method S256.")

    def belongs(self, who: Character) -> None:
        """Whether the person has an account in this tenant. Raises EntraError."""
        if who.guest:
            tenant = f"User account '{who.email}' from identity provider does not exist in tenant 'Contoso'"
            raise EntraError("access_denied", 50020, f"{tenant} and cannot access the application.")

    def needs_consent(self, who: Character, ask: Ask) -> bool:
        """Whether the person has to agree first. Raises EntraError where only an administrator may."""
        if set(named(ask.scopes)) <= set(self._consents.get(who.oid, [])):
            return False
        if not self._settings.get("user_consent", True):
            raise EntraError("access_denied", 90094, "Admin consent is required for the permissions requested by this application.")
        return True

    def consent(self, who: Character, ask: Ask) -> None:
        """The person agrees."""
        self._consents[who.oid] = sorted({*self._consents.get(who.oid, []), *named(ask.scopes)})

    def code(self, who: Character, ask: Ask) -> str:
        """What the app exchanges for tokens, once."""
        code = secrets.token_urlsafe(40)
        self._codes[code] = (ask, who, time.time() + CODE_LASTS)
        return code

    # For the app

    def exchange(self, form: Mapping[str, str]) -> tuple[Character, Sequence[str], str, str]:
        """Who it is, the scopes, the nonce, and a refresh token, for a code or a refresh token. Raises EntraError."""
        if form.get("client_id", "").lower() != CLIENT_ID:
            raise EntraError("unauthorized_client", 700016, "Application was not found in the directory.")
        if not secrets.compare_digest(form.get("client_secret", ""), self.secret):
            raise EntraError("invalid_client", 7000215, "Invalid client secret provided.", 401)
        match form.get("grant_type"):
            case "authorization_code":
                return self._redeem(form)
            case "refresh_token":
                return self._renew(form)
            case other:
                raise EntraError("unsupported_grant_type", 70003, f"The app requested an unsupported grant type '{other}'.")

    def _redeem(self, form: Mapping[str, str]) -> tuple[Character, Sequence[str], str, str]:
        code = form.get("code", "")
        if code in self._used:
            raise EntraError("invalid_grant", 54005, "OAuth2 Authorization code was already redeemed.")
        ask, who, until = self._codes.pop(code, (None, None, 0.0))
        if ask is None or who is None or until < time.time():
            raise EntraError("invalid_grant", 70008, "The provided authorization code or refresh token has expired.")
        self._used.add(code)
        if form.get("redirect_uri") != ask.redirect:
            raise EntraError("invalid_request", 50011, "The redirect URI does not match the one of the request.")
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest()).rstrip(b"=").decode()
        if challenge != ask.challenge:
            raise EntraError("invalid_grant", 501481, "The Code_Verifier does not match the code_challenge supplied.")
        return who, ask.scopes, ask.nonce, self._fresh(who, ask.scopes)

    def _renew(self, form: Mapping[str, str]) -> tuple[Character, Sequence[str], str, str]:
        given = _hash(form.get("refresh_token", ""))
        known: dict[str, Any] | None = self._refresh.get(given)
        if known is None or known["state"] == "used":
            raise EntraError("invalid_grant", 700084, "The refresh token was issued before, and has been used or is unknown.")
        if known["state"] == "revoked":
            raise EntraError("invalid_grant", 50173, "The provided grant has been revoked. A fresh auth token is needed.")
        if known["state"] == "expired":
            raise EntraError("invalid_grant", 700082, "The refresh token has expired due to inactivity.")
        asked = tuple(form.get("scope", "").split()) or tuple(known["scopes"])
        who = next(person for person in PEOPLE if person.oid == known["oid"])
        if not set(named(asked)) <= set(self._consents.get(who.oid, [])):
            raise EntraError("invalid_grant", 65001, "The user or administrator has not consented to use the application.")
        self._refresh[given] = known | {"state": "used"}
        return who, asked, "", self._fresh(who, asked)

    def _fresh(self, who: Character, scopes: Sequence[str]) -> str:
        token = secrets.token_urlsafe(60)
        self._refresh[_hash(token)] = {"oid": who.oid, "scopes": list(scopes), "state": "good"}
        return token

    # For administrators

    def end(self, who: Character, state: str) -> None:
        """Make every refresh token of a person `revoked` or `expired`."""
        for key, known in list(self._refresh.items()):
            if known["oid"] == who.oid and known["state"] == "good":
                self._refresh[key] = known | {"state": state}

    def allow_consent(self, *, allowed: bool) -> None:
        """Whether people may agree for themselves."""
        self._settings["user_consent"] = allowed

    def forget_consent(self, who: Character) -> None:
        """As if the person had never agreed."""
        self._consents.pop(who.oid, None)


def named(scopes: Sequence[str]) -> tuple[str, ...]:
    """The permissions of Azure DevOps among the scopes, by their names. Raises EntraError."""
    resource = f"{AZURE_DEVOPS}/"
    found = [scope.removeprefix(resource) for scope in scopes if scope not in IDENTITY]
    strange = [scope for scope in scopes if scope not in IDENTITY and not scope.startswith(resource)]
    if strange or (".default" in found and len(found) > 1):
        raise EntraError("invalid_scope", 70011, f"The provided value for the input parameter 'scope' is not valid: {' '.join(scopes)}.")
    unknown = [scope for scope in found if scope not in {*PERMISSIONS, ".default"}]
    if unknown:
        raise EntraError("invalid_client", 650053, f"The application asked for scope '{unknown[0]}' that doesn't exist on the resource.")
    return PERMISSIONS if found == [".default"] else tuple(found)


def in_words(scopes: Sequence[str], say: Callable[[str], str | None] = WORDS.get) -> list[str]:
    """What a person is asked to agree to."""
    return [words for scope in (*named(scopes), "offline_access", "profile") if (words := say(scope))]


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def tenant_is_ours(tenant: str) -> bool:
    """Whether an address names this tenant."""
    return tenant.lower() in {TENANT, "organizations", "common", "contoso.example"}
