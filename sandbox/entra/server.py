"""The local Entra as a service of the sandbox: what apps ask over TLS, and the pages that people see."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sandbox.entra.rules import CODE_LASTS, Ask, EntraError, Rules, in_words, named, tenant_is_ours
from sandbox.names import CLIENT_ID, PEOPLE, TENANT, Character
from sandbox.tokens import AZURE_DEVOPS
from sandbox.world import World

HOST = "login.microsoftonline.com"
PREFIX = f"/{HOST}"
BASE = f"https://{HOST}/{TENANT}"
KEY = "sandbox"

_HERE = Path(__file__).parent


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

    @property
    def client_secret(self) -> str:
        """The app registration's secret."""
        return self.rules.secret

    def hosts(self) -> Mapping[str, web.Application]:
        """See Service."""
        return {HOST: self._app()}

    def pages(self) -> Mapping[str, web.Application]:
        """See Service."""
        return {PREFIX: self._app()}

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

    # HTTP

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._misbehave])
        app.router.add_get("/common/discovery/instance", self._instance)
        app.router.add_get("/{tenant}/v2.0/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/{tenant}/discovery/v2.0/keys", self._keys)
        app.router.add_get("/{tenant}/oauth2/v2.0/authorize", self._authorize)
        app.router.add_post("/{tenant}/login", self._login)
        app.router.add_post("/{tenant}/consent", self._consent)
        app.router.add_post("/{tenant}/oauth2/v2.0/token", self._token)
        app.router.add_static("/static", _HERE / "static")
        return app

    @web.middleware
    async def _misbehave(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if slow := self._world.faults.take("entra.slow"):
            await asyncio.sleep(float(slow.get("seconds", 2)))
        if self._world.faults.take("entra.503") is not None:
            return web.Response(status=503, text="The service is unavailable.")
        tenant = request.match_info.get("tenant", TENANT)
        if not tenant_is_ours(tenant):
            return _json({"error": "invalid_tenant", "error_description": f"AADSTS90002: Tenant '{tenant}' not found."}, 400)
        answer: web.StreamResponse = await handler(request)
        return answer

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
                "id_token_signing_alg_values_supported": ["RS256"],
                "code_challenge_methods_supported": ["S256"],
            }
        )

    async def _keys(self, _: web.Request) -> web.Response:
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key()))
        return _json({"keys": [public | {"kid": KEY, "use": "sig"}]})

    async def _authorize(self, request: web.Request) -> web.Response:
        """Who is it? The app's question travels in the form, signed."""
        try:
            ask = self.rules.asked(request.query)
        except EntraError as error:
            return self._sorry(error)
        try:
            self.rules.check(ask)
        except EntraError as error:
            return self._back(ask, {"error": error.error, "error_description": str(error)})
        people = [person for person in PEOPLE if person.slack]
        return self._page("pick.html", people=people, ask=self._sealed(ask), action=self._here(request, "login"))

    async def _login(self, request: web.Request) -> web.Response:
        form = await request.post()
        ask = self._opened(str(form.get("ask", "")))
        who = next((person for person in PEOPLE if person.oid == form.get("person")), None)
        if ask is None or who is None:
            return self._sorry(EntraError("invalid_request", 900144, "The request is incomplete or too old."))
        try:
            self.rules.belongs(who)
        except EntraError as error:
            return self._sorry(error)
        try:
            if self.rules.needs_consent(who, ask):
                words = in_words(ask.scopes)
                return self._page("consent.html", who=who, words=words, ask=self._sealed(ask, who), action=self._here(request, "consent"))
        except EntraError as error:
            return self._back(ask, {"error": error.error, "error_description": str(error)})
        return self._back(ask, {"code": self.rules.code(who, ask)})

    async def _consent(self, request: web.Request) -> web.Response:
        form = await request.post()
        ask, who = self._opened(str(form.get("ask", ""))), self._opened_for(str(form.get("ask", "")))
        if ask is None or who is None:
            return self._sorry(EntraError("invalid_request", 900144, "The request is incomplete or too old."))
        if form.get("answer") != "accept":
            declined = "AADSTS65004: User declined to consent to access the app."
            return self._back(ask, {"error": "access_denied", "error_subcode": "cancel", "error_description": declined})
        self.rules.consent(who, ask)
        return self._back(ask, {"code": self.rules.code(who, ask)})

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        try:
            who, scopes, nonce, refresh = self.rules.exchange(form)
        except EntraError as error:
            document = {"error": error.error, "error_description": str(error), "error_codes": [error.code], "trace_id": "sandbox"}
            return _json(document, error.status)
        permissions = named(scopes)
        access = self._world.tokens.issue(who, AZURE_DEVOPS, permissions, self.rules.lifetime)
        token = self._id_token(who, nonce)
        self.issued += [access, refresh, token]
        info = base64.urlsafe_b64encode(json.dumps({"uid": who.oid, "utid": TENANT}).encode()).rstrip(b"=").decode()
        return _json(
            {
                "token_type": "Bearer",
                "scope": " ".join(f"{AZURE_DEVOPS}/{name}" for name in permissions),
                "expires_in": self.rules.lifetime,
                "ext_expires_in": self.rules.lifetime,
                "access_token": access,
                "refresh_token": refresh,
                "id_token": token,
                "client_info": info,
            }
        )

    def _id_token(self, who: Character, nonce: str) -> str:
        now = int(time.time())
        claims: dict[str, Any] = {
            "aud": CLIENT_ID,
            "iss": f"{BASE}/v2.0",
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
            "tid": TENANT,
            "oid": who.oid,
            "sub": who.oid,
            "name": who.name,
            "preferred_username": who.email,
            "ver": "2.0",
        }
        return jwt.encode(claims | ({"nonce": nonce} if nonce else {}), self._key, algorithm="RS256", headers={"kid": KEY})

    # Pages

    def _back(self, ask: Ask, answer: Mapping[str, str]) -> web.Response:
        """Send the person back to the app with the answer."""
        told = {**answer, "state": ask.state}
        if ask.mode != "form_post":
            return web.Response(status=302, headers={"Location": f"{ask.redirect}?{urlencode(told)}"})
        return self._page("back.html", redirect=ask.redirect, told=told)

    def _sorry(self, error: EntraError) -> web.Response:
        return self._page("sorry.html", status=400, message=str(error))

    def _page(self, template: str, *, status: int = 200, **values: Any) -> web.Response:
        home = urlsplit(self.rules.redirect)
        policy = (
            "default-src 'none'; style-src 'self'; script-src 'self'; base-uri 'none'; frame-ancestors 'none'; "
            f"form-action 'self' {home.scheme}://{home.netloc}"
        )
        text = self._pages.get_template(template).render(prefix=PREFIX, **values)
        headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        return web.Response(text=text, status=status, content_type="text/html", headers=headers)

    def _here(self, request: web.Request, what: str) -> str:
        """The address of a form, on whichever of the two ports this page is."""
        return f"{PREFIX if request.path.startswith(PREFIX) else ''}/{TENANT}/{what}"

    def _sealed(self, ask: Ask, who: Character | None = None) -> str:
        """What an app asks for, to travel through the pages unchanged."""
        parts = [getattr(ask, part.name) for part in fields(ask)]
        claims = {"ask": parts, "who": who.oid if who else "", "exp": int(time.time()) + CODE_LASTS}
        return jwt.encode(claims, self._key, algorithm="RS256")

    def _claims(self, sealed: str) -> Mapping[str, Any] | None:
        try:
            claims: Mapping[str, Any] = jwt.decode(sealed, self._key.public_key(), algorithms=["RS256"])
        except jwt.InvalidTokenError:
            return None
        return claims

    def _opened(self, sealed: str) -> Ask | None:
        claims = self._claims(sealed)
        if claims is None:
            return None
        client, redirect, scopes, *rest = claims["ask"]
        return Ask(client, redirect, tuple(scopes), *rest)

    def _opened_for(self, sealed: str) -> Character | None:
        claims = self._claims(sealed)
        return next((person for person in PEOPLE if claims is not None and person.oid == claims["who"]), None)


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


def _json(document: object, status: int = 200) -> web.Response:
    return web.json_response(document, status=status, headers={"Cache-Control": "no-store"})
