"""The rules of signing in: what apps may ask, codes, refresh tokens, consent. No HTTP; all but the codes survives restarts.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow
https://learn.microsoft.com/entra/identity-platform/reference-error-codes
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sandbox.names import CLIENT_ID, PEOPLE, TENANT, Character
from sandbox.state import State
from sandbox.tokens import AZURE_DEVOPS

CODE_LASTS = 600  # seconds
DOMAIN = "contoso.example"
GRAPH = "00000003-0000-0000-c000-000000000000"  # whom a token is for where no other API is asked for
IDENTITY = ("offline_access", "profile", "email", "openid")
# What the app registration may ask of Azure DevOps.
PERMISSIONS = ("vso.build_execute", "vso.release_manage")
WORDS = {
    "vso.build_execute": "Run pipelines and answer their approvals, as you",
    "vso.release_manage": "Deploy releases and answer their approvals, as you",
    "offline_access": "Keep access to what you have given it access to",
    "profile": "See your name and user name",
    "email": "See your email address",
    "openid": "Sign you in",
}
_MODES = {"query", "fragment", "form_post"}
_PROMPTS = {"", "login", "select_account", "consent", "none"}


class EntraError(Exception):
    """An answer of the protocol: `error`, a description that begins with the code, and what apps look at besides."""

    def __init__(self, error: str, code: int, description: str, *, status: int = 400, suberror: str = "") -> None:
        super().__init__(f"AADSTS{code}: {description}")
        self.error = error
        self.code = code
        self.status = status
        self.suberror = suberror

    def told(self, trace: str, correlation: str, now: datetime) -> dict[str, Any]:
        """The error as Entra tells an app."""
        at = now.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        return {
            "error": self.error,
            "error_description": f"{self} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {at}",
            "error_codes": [self.code],
            "timestamp": at,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": f"https://login.microsoftonline.com/error?code={self.code}",
        } | ({"suberror": self.suberror} if self.suberror else {})


@dataclass(frozen=True, slots=True)
class Ask:
    """What an app asks for when it sends somebody to sign in."""

    client: str
    redirect: str
    scopes: tuple[str, ...]
    kind: str  # of answer: `code`
    mode: str  # how the answer comes back
    state: str
    nonce: str
    challenge: str
    prompt: str


@dataclass(frozen=True, slots=True)
class Grant:
    """What an app is given tokens for: `scopes` of the API `audience` and, where it asked for them, an id token and a refresh token."""

    who: Character
    audience: str
    scopes: tuple[str, ...]
    identity: bool
    nonce: str
    refresh: str | None


@dataclass(slots=True)
class _Code:
    ask: Ask
    who: Character
    until: float
    redeemed: bool = False
    revoked: bool = False


class Rules:
    """One tenant with one app registration."""

    def __init__(self, state: State, redirect: str) -> None:
        self._codes: dict[str, _Code] = {}
        self._refresh = state.table("entra.refresh")
        self._consents = state.table("entra.consents")
        self._settings = state.table("entra.settings")
        self.redirect = redirect
        if "secret" not in self._settings:
            self._settings["secret"] = secrets.token_urlsafe(30)
        self.secret: str = self._settings["secret"]

    # On the page

    def asked(self, query: Mapping[str, str]) -> Ask:
        """What the query asks for. Raises EntraError: where the app or its address is unknown nobody is sent anywhere."""
        client, redirect, mode = _must(query, "client_id"), query.get("redirect_uri"), query.get("response_mode", "query")
        if client.lower() != CLIENT_ID:
            raise _no_app(client)
        if redirect != self.redirect:
            raise _no_redirect(redirect)
        if mode not in _MODES:
            raise EntraError("invalid_request", 90023, f"The response_mode '{mode}' is not supported.")
        return Ask(
            client=CLIENT_ID,
            redirect=self.redirect,
            scopes=tuple(query.get("scope", "").split()),
            kind=query.get("response_type", ""),
            mode=mode,
            state=query.get("state", ""),
            nonce=query.get("nonce", ""),
            challenge=query.get("code_challenge", "") if query.get("code_challenge_method") == "S256" else "",
            prompt=query.get("prompt", ""),
        )

    def check(self, ask: Ask) -> None:
        """Whether what is asked for can be given at all. Raises EntraError, for the app."""
        if ask.kind != "code":
            raise EntraError("unsupported_response_type", 700054, f"response_type '{ask.kind}' is not enabled for the application.")
        if not ask.scopes:
            raise _missing("scope")
        wanted(ask.scopes)
        if not ask.challenge:
            raise EntraError("invalid_request", 9002313, "PKCE is required: a code_challenge with the code_challenge_method S256.")
        if ask.prompt not in _PROMPTS:
            raise EntraError("invalid_request", 90023, f"The prompt value '{ask.prompt}' is not supported.")
        if ask.prompt == "none":  # everybody picks an account here, each time
            raise EntraError("login_required", 50058, "A silent sign-in request was sent but no user is signed in.")

    def admit(self, who: Character) -> None:
        """Whether the tenant lets the person sign in. Raises EntraError."""
        if who.guest:
            account = f"User account '{who.email}' from identity provider 'https://sts.windows.net/partner.example/'"
            missing = f"does not exist in tenant 'Contoso' and cannot access the application '{CLIENT_ID}' (Callboard) in that tenant."
            raise EntraError("access_denied", 50020, f"{account} {missing}")
        if who.oid in self._settings.get("blocked", []):
            blocked = "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance."
            raise EntraError("invalid_grant", 53003, blocked, suberror="message_only")

    def needs_consent(self, who: Character, ask: Ask) -> bool:
        """Whether the person has to agree first. Raises EntraError where only an administrator may."""
        if self._agreed(who, ask.scopes) and ask.prompt != "consent":
            return False
        if not self._settings.get("user_consent", True):
            raise EntraError("access_denied", 90094, "Admin consent is required for the permissions requested by this application.")
        return True

    def consent(self, who: Character, ask: Ask) -> None:
        """The person agrees. Raises EntraError where only an administrator may."""
        if self.needs_consent(who, ask):
            self._consents[who.oid] = sorted({*self._consents.get(who.oid, []), *wanted(ask.scopes)})

    def code(self, who: Character, ask: Ask) -> str:
        """What the app exchanges for tokens, once."""
        code = secrets.token_urlsafe(40)
        self._codes[code] = _Code(ask, who, time.time() + CODE_LASTS)
        return code

    # For the app

    def exchange(self, form: Mapping[str, str]) -> Grant:
        """What the app gets for a code or a refresh token. Raises EntraError."""
        grant, client = _must(form, "grant_type"), _must(form, "client_id")
        if client.lower() != CLIENT_ID:
            raise _no_app(client)
        if not form.get("client_secret"):
            missing = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."
            raise EntraError("invalid_client", 7000218, missing, status=401)
        if not secrets.compare_digest(form["client_secret"].encode(), self.secret.encode()):
            invalid = (
                f"Invalid client secret provided for app '{CLIENT_ID}'. Ensure it is the client secret value, not the client secret ID."
            )
            raise EntraError("invalid_client", 7000215, invalid, status=401)
        match grant:
            case "authorization_code":
                return self._redeem(form)
            case "refresh_token":
                return self._renew(form)
            case _:
                raise EntraError("unsupported_grant_type", 70003, f"The app requested an unsupported grant type '{grant}'.")

    def _redeem(self, form: Mapping[str, str]) -> Grant:
        code = self._codes.get(_must(form, "code"))
        if code is None:
            raise EntraError("invalid_grant", 9002313, "Invalid request. Request is malformed or invalid.")
        if code.redeemed:
            raise EntraError("invalid_grant", 54005, "OAuth2 Authorization code was already redeemed, please retry with a new valid code.")
        if code.until < time.time():
            raise EntraError("invalid_grant", 70008, "The provided authorization code or refresh token has expired due to inactivity.")
        code.redeemed = True
        if form.get("redirect_uri") != code.ask.redirect:
            raise _no_redirect(form.get("redirect_uri"))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest()).rstrip(b"=").decode()
        if challenge != code.ask.challenge:
            wrong = "The Code_Verifier does not match the code_challenge supplied in the authorization request."
            raise EntraError("invalid_grant", 501481, wrong)
        if code.revoked:
            raise _was_revoked()
        self._still_allowed(code.who, code.ask.scopes)
        return self._grant(code.who, code.ask.scopes, code.ask.nonce)

    def _renew(self, form: Mapping[str, str]) -> Grant:
        given = _hash(_must(form, "refresh_token"))
        known: dict[str, Any] = self._refresh.get(given, {"state": "unknown"})
        match known["state"]:
            case "unknown":
                raise EntraError("invalid_grant", 9002313, "Invalid request. Request is malformed or invalid.")
            case "used":
                raise EntraError("invalid_grant", 70000, "Provided grant is invalid or malformed.")
            case "revoked":
                raise _was_revoked()
            case "expired":
                expired = "The refresh token has expired due to inactivity. The token was inactive for 90.00:00:00."
                raise EntraError("invalid_grant", 700082, expired, suberror="token_expired")
        scopes = tuple(form.get("scope", "").split()) or tuple(known["scopes"])
        who = next(person for person in PEOPLE if person.oid == known["oid"])
        self._still_allowed(who, scopes)
        grant = self._grant(who, scopes)
        self._refresh[given] = known | {"state": "used"}
        return grant

    def _grant(self, who: Character, scopes: tuple[str, ...], nonce: str = "") -> Grant:
        permissions = named(scopes)
        refresh = None
        if "offline_access" in scopes:
            refresh = secrets.token_urlsafe(60)
            self._refresh[_hash(refresh)] = {"oid": who.oid, "scopes": list(scopes), "state": "good"}
        identity = tuple(scope for scope in scopes if scope in IDENTITY and scope != "offline_access")
        # Without a scope a token would pass for a service's own, and reach as far as that.
        audience, carried = (AZURE_DEVOPS, permissions) if permissions else (GRAPH, identity)
        return Grant(who, audience, carried, "openid" in scopes, nonce, refresh)

    def _still_allowed(self, who: Character, scopes: tuple[str, ...]) -> None:
        """Whether the person may still sign in, and still agrees. Raises EntraError."""
        self.admit(who)
        if not self._agreed(who, scopes):
            missing = f"The user or administrator has not consented to use the application with ID '{CLIENT_ID}' named 'Callboard'."
            raise EntraError("invalid_grant", 65001, missing, suberror="consent_required")

    def _agreed(self, who: Character, scopes: Iterable[str]) -> bool:
        return set(wanted(scopes)) <= set(self._consents.get(who.oid, []))

    # For administrators

    def end(self, who: Character, state: str) -> None:
        """Make every refresh token of a person `revoked` or `expired`; where revoked, the codes that nobody has redeemed, too."""
        for key, known in list(self._refresh.items()):
            if known["oid"] == who.oid and known["state"] == "good":
                self._refresh[key] = known | {"state": state}
        for code in self._codes.values():
            code.revoked = code.revoked or (code.who == who and state == "revoked")

    def allow_consent(self, *, allowed: bool) -> None:
        """Whether people may agree for themselves."""
        self._settings["user_consent"] = allowed

    def forget_consent(self, who: Character) -> None:
        """As if the person had never agreed."""
        self._consents.pop(who.oid, None)

    def block(self, who: Character, *, blocked: bool) -> None:
        """Whether a Conditional Access policy keeps the person out."""
        others = [oid for oid in self._settings.get("blocked", []) if oid != who.oid]
        self._settings["blocked"] = [*others, who.oid] if blocked else others


def named(scopes: Iterable[str]) -> tuple[str, ...]:
    """The permissions of Azure DevOps among the scopes, by their names. Raises EntraError."""
    resource = f"{AZURE_DEVOPS}/"
    asked = [scope for scope in scopes if scope not in IDENTITY]
    found = [scope.removeprefix(resource) for scope in asked]
    if not all(scope.startswith(resource) for scope in asked) or (".default" in found and len(found) > 1):
        what = f"The provided value for the input parameter 'scope' is not valid. The scope {' '.join(asked)} is not valid."
        raise EntraError("invalid_scope", 70011, what)
    for scope in found:
        if scope not in {*PERMISSIONS, ".default"}:
            what = f"The application 'Callboard' asked for scope '{scope}' that doesn't exist on the resource '{AZURE_DEVOPS}'."
            raise EntraError("invalid_client", 650053, what)
    return PERMISSIONS if found == [".default"] else tuple(dict.fromkeys(found))


def wanted(scopes: Iterable[str]) -> tuple[str, ...]:
    """All that a person agrees to with these scopes, in the order in which they are shown it. Raises EntraError."""
    asked = tuple(scopes)
    return (*named(asked), *(scope for scope in IDENTITY if scope in asked))


def in_words(scopes: Iterable[str]) -> list[str]:
    """What a person is asked to agree to."""
    return [WORDS[scope] for scope in wanted(scopes)]


def check_tenant(tenant: str) -> None:
    """Whether an address names this tenant, by its id or its domain. Raises EntraError."""
    match tenant.lower():
        case "common" | "organizations":
            single = (
                "is not configured as a multi-tenant application. Usage of the /common endpoint is not supported for such applications."
            )
            raise EntraError("invalid_request", 50194, f"Application '{CLIENT_ID}' (Callboard) {single}")
        case name if name not in {TENANT, DOMAIN}:
            raise EntraError("invalid_request", 90002, f"Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID.")


def _must(given: Mapping[str, str], name: str) -> str:
    if not given.get(name):
        raise _missing(name)
    return given[name]


def _missing(name: str) -> EntraError:
    return EntraError("invalid_request", 900144, f"The request body must contain the following parameter: '{name}'.")


def _was_revoked() -> EntraError:
    revoked = "The provided grant has expired due to it being revoked, a fresh auth token is needed."
    return EntraError("invalid_grant", 50173, revoked, suberror="bad_token")


def _no_app(client: str) -> EntraError:
    missing = f"Application with identifier '{client}' was not found in the directory 'Contoso'."
    return EntraError("unauthorized_client", 700016, missing)


def _no_redirect(given: str | None) -> EntraError:
    unknown = f"The redirect URI '{given}' specified in the request does not match the redirect URIs configured for the application."
    return EntraError("invalid_request", 50011, unknown)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
