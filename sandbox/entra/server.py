"""The local Entra as a service of the sandbox: what apps ask over TLS, and the pages that people see.

Pages and endpoints alike are at the host and below its name on the pages' port, where a browser finds them.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode, urlsplit

import jwt
from aiohttp import web
from aiohttp.typedefs import Handler
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sandbox.azure_devops.show import initials
from sandbox.entra.rules import CODE_LASTS, Ask, EntraError, Grant, Rules, check_tenant, in_words
from sandbox.names import CLIENT_ID, PEOPLE, TENANT, Character
from sandbox.tokens import AZURE_DEVOPS, LIFETIME
from sandbox.world import World

HOST = "login.microsoftonline.com"
PREFIX = f"/{HOST}"
BASE = f"https://{HOST}/{TENANT}"
KEY = "sandbox"
COOKIE = "entra-accounts"  # who signed in with this browser, the latest first
PLACE = web.AppKey("place", str)

_HERE = Path(__file__).parent
_OIDS = frozenset(person.oid for person in PEOPLE)
_PAGES = ("/oauth2/v2.0/authorize", "/login", "/consent")
_POLICY = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"
_HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "same-origin", "X-Content-Type-Options": "nosniff"}


class Entra:
    """The tenant `contoso.example`, with the app registration that Callboard signs people in with."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.rules = Rules(world.state, f"{world.bot_url}/signin/callback")
        self._key = _kept_key(world)
        self.issued: list[str] = []  # every token and code of this session, for who looks whether any of them got out
        self._pages = Environment(
            loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self._pages.filters["initials"] = initials

    @property
    def client_secret(self) -> str:
        """The app registration's secret."""
        return self.rules.secret

    def hosts(self) -> Mapping[str, web.Application]:
        """See Service."""
        return {HOST: self._app("")}

    def pages(self) -> Mapping[str, web.Application]:
        """See Service."""
        return {PREFIX: self._app(PREFIX)}

    async def start(self) -> None:
        """See Service."""

    async def stop(self) -> None:
        """See Service."""

    # For administrators

    def revoke(self, who: Character) -> None:
        """Sign a person out everywhere: no refresh token of theirs works any more, nor an access token that they have."""
        self.rules.end(who, "revoked")
        self._world.tokens.revoke(who)

    def expire(self, who: Character) -> None:
        """Let a person's refresh tokens have been unused for too long, and their access tokens have run out."""
        self.rules.end(who, "expired")
        self._world.tokens.revoke(who)

    def user_consent(self, *, allowed: bool) -> None:
        """Whether people may agree for themselves to what an app asks for; what they agreed to before stays."""
        self.rules.allow_consent(allowed=allowed)

    def forget_consent(self, who: Character) -> None:
        """Take back what a person agreed to: the next sign-in asks again, and the app's refresh tokens of them are refused."""
        self.rules.forget_consent(who)

    def block(self, who: Character, *, blocked: bool = True) -> None:
        """Let a Conditional Access policy keep a person out, or in again."""
        self.rules.block(who, blocked=blocked)

    # HTTP

    def _app(self, place: str) -> web.Application:
        """The application that answers below a path: the host's root, or the prefix on the pages' port."""
        app = web.Application(middlewares=[self._guard])
        app[PLACE] = place
        app.router.add_static("/static", _HERE / "static")
        app.router.add_get("/common/discovery/instance", self._instance)
        app.router.add_get("/{tenant}/v2.0/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/{tenant}/discovery/v2.0/keys", self._keys)
        app.router.add_get("/{tenant}/oauth2/v2.0/authorize", self._authorize)
        app.router.add_post("/{tenant}/oauth2/v2.0/token", self._token)
        app.router.add_post("/{tenant}/login", self._login)
        app.router.add_post("/{tenant}/consent", self._consent)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Misbehave on request, let only our own pages send forms, and tell people and apps what is refused in their own way."""
        tenant = request.match_info.get("tenant")
        if tenant is None:  # nothing of the tenant's
            return await handler(request)
        shown = request.path.endswith(_PAGES)
        try:
            await self._misbehave()
            if shown:
                _only_from_here(request)
            check_tenant(tenant)
            return await handler(request)
        except EntraError as error:
            told = _told(request, error)
            if shown:
                return self._page(request, "sorry.html", status=error.status, message=str(error), told=told, leads_to="'none'")
            return _json(told, error.status, {"client-request-id": told["correlation_id"], "x-ms-request-id": told["trace_id"]})

    async def _misbehave(self) -> None:
        """Raise EntraError where it was asked for."""
        if (slow := self._world.faults.take("entra.slow")) is not None:
            await asyncio.sleep(float(slow.get("seconds", 2)))
        if self._world.faults.take("entra.503") is not None:
            raise EntraError("temporarily_unavailable", 90033, "A transient error has occurred. Please try again.", status=503)

    async def _instance(self, _: web.Request) -> web.Response:
        metadata = [{"preferred_network": HOST, "preferred_cache": "login.windows.net", "aliases": [HOST, "login.windows.net"]}]
        return _json({"tenant_discovery_endpoint": f"{BASE}/v2.0/.well-known/openid-configuration", "metadata": metadata})

    async def _discovery(self, _: web.Request) -> web.Response:
        return _json(
            {
                "issuer": f"{BASE}/v2.0",
                "authorization_endpoint": f"{BASE}/oauth2/v2.0/authorize",
                "token_endpoint": f"{BASE}/oauth2/v2.0/token",
                "jwks_uri": f"{BASE}/discovery/v2.0/keys",
                "response_modes_supported": ["query", "fragment", "form_post"],
                "response_types_supported": ["code"],
                "grant_types_supported": ["authorization_code", "refresh_token"],
                "scopes_supported": ["openid", "profile", "email", "offline_access"],
                "subject_types_supported": ["pairwise"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "token_endpoint_auth_methods_supported": ["client_secret_post"],
                "code_challenge_methods_supported": ["S256"],
            }
        )

    async def _keys(self, _: web.Request) -> web.Response:
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key()))
        return _json({"keys": [public | {"kid": KEY, "use": "sig"}]})

    async def _authorize(self, request: web.Request) -> web.Response:
        """Who is it? The app's question travels in the form, signed."""
        ask = self.rules.asked(request.query)
        try:
            self.rules.check(ask)
        except EntraError as error:
            return self._back(request, ask, _told(request, error))
        known = request.cookies.get(COOKIE, "").split(".")
        people = sorted((person for person in PEOPLE if person.slack), key=lambda person: person.oid not in known)
        return self._page(request, "pick.html", people=people, known=known, ask=self._sealed(ask), leads_to=_own_forms(ask))

    async def _login(self, request: web.Request) -> web.Response:
        """It is somebody: are they one of us, and do they agree?"""
        form = await _form(request)
        ask, _ = self._opened(form.get("ask"))
        who = next((person for person in PEOPLE if person.oid == form.get("person")), None)
        if who is None:
            raise _incomplete()
        self.rules.admit(who)
        try:
            if self.rules.needs_consent(who, ask):
                sealed, words = self._sealed(ask, who), in_words(ask.scopes)
                answer = self._page(request, "consent.html", who=who, words=words, ask=sealed, leads_to=_own_forms(ask))
            else:
                answer = self._back(request, ask, {"code": self.rules.code(who, ask)})
        except EntraError as error:
            answer = self._back(request, ask, _told(request, error))
        known = [oid for oid in request.cookies.get(COOKIE, "").split(".") if oid in _OIDS and oid != who.oid]
        answer.set_cookie(COOKIE, ".".join([who.oid, *known]), path=f"{request.app[PLACE]}/", httponly=True, samesite="Lax")
        return answer

    async def _consent(self, request: web.Request) -> web.Response:
        """They agree, or not."""
        form = await _form(request)
        ask, who = self._opened(form.get("ask"))
        if who is None or form.get("answer") not in {"accept", "cancel"}:
            raise _incomplete()
        try:
            if form["answer"] == "cancel":
                raise EntraError("access_denied", 65004, "User declined to consent to access the app.")
            self.rules.admit(who)
            self.rules.consent(who, ask)
        except EntraError as error:
            return self._back(request, ask, _told(request, error))
        return self._back(request, ask, {"code": self.rules.code(who, ask)})

    async def _token(self, request: web.Request) -> web.Response:
        form = await _form(request)
        grant, lasts = self.rules.exchange(form), self._world.token_lifetime
        answer: dict[str, Any] = {
            "token_type": "Bearer",
            "scope": " ".join(f"{AZURE_DEVOPS}/{scope}" if grant.audience == AZURE_DEVOPS else scope for scope in grant.scopes),
            "expires_in": lasts,
            "ext_expires_in": lasts,
            "access_token": self._world.tokens.issue(grant.who, grant.audience, grant.scopes, lasts),
        }
        if grant.refresh is not None:
            answer["refresh_token"] = grant.refresh
        if grant.identity:
            answer["id_token"] = self._id_token(grant)
        self.issued += [answer[name] for name in ("access_token", "refresh_token", "id_token") if name in answer]
        if form.get("client_info") == "1":
            answer["client_info"] = _coded(json.dumps({"uid": grant.who.oid, "utid": TENANT}).encode())
        return _json(answer)

    def _id_token(self, grant: Grant) -> str:
        now, who = int(time.time()), grant.who
        claims: dict[str, Any] = {
            "aud": CLIENT_ID,
            "iss": f"{BASE}/v2.0",
            "iat": now,
            "nbf": now,
            "exp": now + LIFETIME,
            "tid": TENANT,
            "oid": who.oid,
            "sub": _coded(hashlib.sha256(f"{CLIENT_ID}{who.oid}".encode()).digest()),  # another one for each app
            "name": who.name,
            "preferred_username": who.email,
            "ver": "2.0",
        }
        return jwt.encode(claims | ({"nonce": grant.nonce} if grant.nonce else {}), self._key, algorithm="RS256", headers={"kid": KEY})

    # Pages

    def _back(self, request: web.Request, ask: Ask, answer: Mapping[str, Any]) -> web.Response:
        """Send the person back to the app with a code, or with what went wrong."""
        told = {name: str(answer[name]) for name in ("code", "error", "error_description", "error_uri") if name in answer}
        self.issued += [told["code"]] if "code" in told else []
        told |= {"state": ask.state} if ask.state else {}
        told["session_state"] = str(uuid.uuid4())
        if ask.mode == "form_post":
            return self._page(request, "back.html", redirect=ask.redirect, told=told, leads_to=ask.redirect)
        mark = "#" if ask.mode == "fragment" else "?"
        return web.Response(status=302, headers={**_HEADERS, "Location": f"{ask.redirect}{mark}{urlencode(told)}"})

    def _page(self, request: web.Request, template: str, *, leads_to: str, status: int = 200, **values: Any) -> web.Response:
        """A page whose forms lead nowhere else."""
        place = request.app[PLACE]
        text = self._pages.get_template(template).render(place=place, home=f"{place}/{TENANT}", **values)
        policy = f"{_POLICY}; form-action {leads_to}"
        return web.Response(text=text, status=status, content_type="text/html", headers={**_HEADERS, "Content-Security-Policy": policy})

    def _sealed(self, ask: Ask, who: Character | None = None) -> str:
        """What an app asks for, to travel through the pages unchanged."""
        claims = {"ask": asdict(ask), "who": who.oid if who else "", "exp": int(time.time()) + CODE_LASTS}
        return jwt.encode(claims, self._key, algorithm="RS256")

    def _opened(self, sealed: str | None) -> tuple[Ask, Character | None]:
        """What was sealed, and for whom. Raises EntraError."""
        try:
            claims = jwt.decode(sealed or "", self._key.public_key(), algorithms=["RS256"])
        except jwt.InvalidTokenError:
            raise _incomplete() from None
        who = next((person for person in PEOPLE if person.oid == claims["who"]), None)
        return Ask(**claims["ask"] | {"scopes": tuple(claims["ask"]["scopes"])}), who


def _kept_key(world: World) -> rsa.RSAPrivateKey:
    """The tenant's signing key, which survives restarts."""
    table = world.state.table("entra.settings")
    if "key" not in table:
        made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        table["key"] = pem.decode()
    key = serialization.load_pem_private_key(table["key"].encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def _own_forms(ask: Ask) -> str:
    """Where the forms of a page lead to: a browser follows a redirect from there to the app only where that is allowed, too."""
    return "'self'" if ask.mode == "form_post" else f"'self' {ask.redirect}"


def _only_from_here(request: web.Request) -> None:
    """Who is at this machine sees the pages, and only they send what is filled in there. Raises EntraError."""
    if request.app[PLACE] and urlsplit(f"//{request.host}").hostname not in {"127.0.0.1", "localhost"}:
        raise EntraError("invalid_request", 90023, "This page is served to this machine only.", status=403)
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    if request.method == "POST" and (origin not in {None, f"{request.scheme}://{request.host}"} or site not in {None, "same-origin"}):
        raise EntraError("invalid_request", 90023, "This request came from another page and was refused.", status=403)


async def _form(request: web.Request) -> dict[str, str]:
    """What was sent. Raises EntraError where it is no form."""
    try:
        return {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
    except (ValueError, LookupError):  # bytes that are no text, or in no encoding that there is
        raise EntraError("invalid_request", 9002313, "Invalid request. Request is malformed or invalid.") from None


def _incomplete() -> EntraError:
    return EntraError("invalid_request", 900144, "The request is incomplete or too old. Begin again where you came from.")


def _told(request: web.Request, error: EntraError) -> dict[str, Any]:
    """The error as an app is told it; an app may have named the request."""
    correlation = request.headers.get("client-request-id") or str(uuid.uuid4())
    return error.told(str(uuid.uuid4()), correlation, datetime.now(UTC))


def _coded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _json(document: object, status: int = 200, headers: Mapping[str, str] = MappingProxyType({})) -> web.Response:
    return web.json_response(document, status=status, headers={"Cache-Control": "no-store", **headers})
