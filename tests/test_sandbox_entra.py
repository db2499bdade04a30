"""The sandbox's Entra: asked by the real msal, by hand where msal would not ask so, and looked at in a browser."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import aiohttp
import jwt
import msal
import pytest
import requests
from aiohttp import web
from cryptography.fernet import Fernet

from sandbox.entra.person import Browser, Form, Page
from sandbox.entra.rules import GRAPH, EntraError, Rules, in_words, named
from sandbox.entra.server import BASE, HOST, Entra
from sandbox.launch import BotProcess
from sandbox.names import ADA, ALAN, BOT, CLIENT_ID, GRACE, GUEST, LINUS, TENANT, Character
from sandbox.processes import free_port
from sandbox.slack.server import Slack
from sandbox.state import State
from sandbox.tokens import AZURE_DEVOPS, BadToken
from sandbox.world import World
from tests.browser import browsing
from tests.sandboxes import proxy, trust

pytestmark = pytest.mark.world

BUILD = f"{AZURE_DEVOPS}/vso.build_execute"
RELEASE = f"{AZURE_DEVOPS}/vso.release_manage"
EVERYTHING = f"{AZURE_DEVOPS}/.default"
Said = dict[str, Any]


@dataclass
class App:
    """A web app that signs people in with msal, as production code does; `back` is what came to its redirect URI."""

    world: World
    entra: Entra
    cache: msal.SerializableTokenCache = field(default_factory=msal.SerializableTokenCache)
    back: list[dict[str, str]] = field(default_factory=list)

    @property
    def redirect(self) -> str:
        return self.entra.rules.redirect

    def made(self, secret: str | None = None, authority: str = BASE) -> Any:
        """The client, with another secret or at another tenant where a test says so."""
        http = requests.Session()
        http.trust_env = False
        http.verify, http.proxies = str(self.world.authority.ca), {"https": proxy(self.world)}
        return msal.ConfidentialClientApplication(
            CLIENT_ID,
            authority=authority,
            client_credential=secret or self.entra.client_secret,
            token_cache=self.cache,
            http_client=http,
        )

    async def begins(self, scopes: list[str] | None = None, **more: Any) -> Said:
        """What msal has to remember between sending somebody away and their coming back."""

        def flow() -> Any:
            return self.made().initiate_auth_code_flow(
                scopes or [BUILD], redirect_uri=self.redirect, **{"response_mode": "form_post"} | more
            )

        return dict(await asyncio.to_thread(flow))

    async def comes_back(self, link: str, who: Character, *, accept: bool = True) -> dict[str, str]:
        """What the app is told once somebody has followed the link."""
        async with Browser(self.world) as browser:
            page = await browser.signs_in(link, who, accept=accept)
        assert page.text == "Back", page.text
        return self.back[-1]

    async def redeems(self, flow: Said, answer: Mapping[str, str], *, secret: str | None = None) -> Said:
        return dict(await asyncio.to_thread(lambda: self.made(secret).acquire_token_by_auth_code_flow(flow, dict(answer))))

    async def signs_in(self, who: Character = ADA, scopes: list[str] | None = None) -> Said:
        flow = await self.begins(scopes)
        return await self.redeems(flow, await self.comes_back(flow["auth_uri"], who))

    async def silently(self, scopes: list[str] | None = None, *, force: bool = True) -> Said:
        """A token for whoever has signed in, without them; by the refresh token unless told otherwise."""

        def ask() -> Any:
            client = self.made()
            return client.acquire_token_silent_with_error(scopes or [BUILD], client.get_accounts()[0], force_refresh=force)

        return dict(await asyncio.to_thread(ask))

    def refresh_token(self) -> str:
        """The newest that msal keeps."""
        return str(next(iter(self.cache.search(msal.TokenCache.CredentialType.REFRESH_TOKEN)))["secret"])

    async def posts(self, form: Mapping[str, str], tenant: str = TENANT) -> tuple[int, Said]:
        """Ask the token endpoint by hand."""
        url = f"https://{HOST}/{tenant}/oauth2/v2.0/token"
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, data=form, proxy=proxy(self.world), ssl=trust(self.world)) as answer,
        ):
            return answer.status, await answer.json()

    def form(self, **more: str) -> dict[str, str]:
        """A form for the token endpoint that is all right, but for what `more` changes; nothing at all takes a field out."""
        known = {"client_id": CLIENT_ID, "client_secret": self.entra.client_secret, "grant_type": "refresh_token"}
        return {name: value for name, value in (known | more).items() if value}

    def who(self, token: str) -> tuple[Character, set[str]]:
        """Whom a local Azure DevOps would take this for, and how far it reaches. Raises BadToken."""
        principal = self.world.tokens.check(f"Bearer {token}", AZURE_DEVOPS)
        return principal.who, set(principal.scopes)


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    port = free_port()
    world = World(tmp_path, bot_url=f"http://127.0.0.1:{port}")
    made = App(world, Entra(world))

    async def back(request: web.Request) -> web.Response:
        made.back.append({name: str(value) for name, value in (await request.post() or request.query).items()})
        return web.Response(text='<link rel="icon" href="data:,"><p>Back</p>', content_type="text/html")

    served = web.Application()
    served.router.add_route("*", "/signin/callback", back)
    runner = web.AppRunner(served, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await world.start([made.entra])
        yield made
    finally:
        await runner.cleanup()
        await world.stop()


def link(app: App, **more: str) -> str:
    """An address to sign in at that is all right, but for what `more` changes; nothing at all takes a part out."""
    asked = {
        "client_id": CLIENT_ID,
        "response_type": "code",
        "redirect_uri": app.redirect,
        "scope": f"openid {BUILD}",
        "response_mode": "form_post",
        "state": "s",
        "code_challenge": "c" * 43,
        "code_challenge_method": "S256",
    }
    return f"{BASE}/oauth2/v2.0/authorize?{urlencode({name: value for name, value in (asked | more).items() if value})}"


# All the way


async def test_somebody_signs_in_and_the_app_gets_a_token_in_their_name(app: App) -> None:
    said = await app.signs_in(ADA)

    assert "error" not in said
    assert app.who(said["access_token"]) == (ADA, {"vso.build_execute"})
    claims = said["id_token_claims"]
    assert (claims["aud"], claims["tid"], claims["oid"], claims["name"]) == (CLIENT_ID, TENANT, ADA.oid, ADA.name)
    assert claims["preferred_username"] == ADA.email
    assert claims["sub"] != ADA.oid
    assert set(app.back[-1]) == {"code", "state", "session_state"}
    assert [one["home_account_id"] for one in app.cache.search(msal.TokenCache.CredentialType.ACCOUNT)] == [f"{ADA.oid}.{TENANT}"]
    assert app.world.proxy is not None
    assert not app.world.proxy.refused


async def test_who_looks_for_leaks_knows_everything_that_was_given_out(app: App) -> None:
    said = await app.signs_in(ADA)

    given = [app.back[-1]["code"], said["access_token"], app.refresh_token(), said["id_token"]]
    assert app.entra.issued == given


async def test_an_id_token_is_signed_with_a_key_that_is_published(app: App) -> None:
    said = await app.signs_in(ADA)

    async with aiohttp.ClientSession() as session:
        about = f"{app.world.page_url}/{HOST}/{TENANT}/v2.0/.well-known/openid-configuration"
        async with session.get(about) as answer:
            discovered = await answer.json()
        async with session.get(discovered["jwks_uri"], proxy=proxy(app.world), ssl=trust(app.world)) as answer:
            keys = jwt.PyJWKSet.from_dict(await answer.json())
    header = jwt.get_unverified_header(said["id_token"])
    claims = jwt.decode(said["id_token"], keys[header["kid"]], audience=CLIENT_ID, issuer=discovered["issuer"])
    assert claims["oid"] == ADA.oid


async def test_a_token_out_of_the_cache_is_the_same_and_a_refreshed_one_is_new(app: App) -> None:
    first = await app.signs_in(ADA)

    cached, renewed = await app.silently(force=False), await app.silently()

    assert cached["access_token"] == first["access_token"] != renewed["access_token"]
    assert app.who(renewed["access_token"]) == (ADA, {"vso.build_execute"})


async def test_how_long_tokens_last_is_the_worlds_to_say(app: App) -> None:
    app.world.token_lifetime = 60

    first = await app.signs_in(ADA)
    again = await app.silently(force=False)

    assert first["expires_in"] == 60
    assert again["access_token"] != first["access_token"], "msal renews what ends in less than five minutes"


async def test_consent_is_asked_for_once_and_again_for_more(app: App) -> None:
    async with Browser(app.world) as browser:
        first = await browser.presses(await browser.opens(link(app)), ADA.name)
        await browser.presses(first, "Accept")
        second = await browser.presses(await browser.opens(link(app)), ADA.name)
        more = await browser.presses(await browser.opens(link(app, scope=f"openid {BUILD} {RELEASE}")), ADA.name)
        forced = await browser.presses(await browser.opens(link(app, prompt="consent")), ADA.name)
        other = await browser.presses(await browser.opens(link(app)), GRACE.name)

    assert "Run pipelines and answer their approvals, as you Sign you in" in first.text
    assert "One moment" in second.text
    assert "Deploy releases" in more.text
    assert "Permissions requested" in forced.text
    assert "Permissions requested" in other.text


async def test_who_signed_in_is_shown_first_next_time_but_has_to_pick_all_the_same(app: App) -> None:
    async with Browser(app.world) as browser:
        before = await browser.opens(link(app))
        await browser.presses(before, LINUS.name)
        await browser.presses(before, ADA.name)
        after = await browser.opens(link(app))

    assert "Signed in" not in before.text
    assert [text for _, _, text in after.forms[0].buttons[:3]] == [
        "AL Ada Lovelace ada@contoso.example Signed in",
        "LP Linus Pauling linus@contoso.example Signed in",
        "GH Grace Hopper grace@contoso.example",
    ]


async def test_the_host_itself_serves_the_pages_too(app: App) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.get(link(app), proxy=proxy(app.world), ssl=trust(app.world)) as answer:
            page = await answer.text()
        style = page.partition('rel="stylesheet" href="')[2].partition('"')[0]
        async with session.get(f"https://{HOST}{style}", proxy=proxy(app.world), ssl=trust(app.world)) as answer:
            assert answer.status == 200

    assert "Pick an account" in page
    assert f'action="/{TENANT}/login"' in page


@pytest.mark.parametrize(("mode", "mark"), [("query", "?"), ("fragment", "#")])
async def test_an_answer_comes_back_in_the_address_where_that_is_asked_for(app: App, mode: str, mark: str) -> None:
    async with Browser(app.world) as browser:
        page = await browser.presses(await browser.opens(link(app, response_mode=mode)), ADA.name)
    asked = page.forms[0].fields | {"answer": "accept"}

    async with (
        aiohttp.ClientSession() as session,
        session.post(urljoin(page.url, page.forms[0].action), data=asked, allow_redirects=False) as answer,
    ):
        place = answer.headers["Location"]

    assert place.startswith(f"{app.redirect}{mark}code=")
    assert place.partition("state=")[2].startswith("s&")


# What is refused on the way out and back


async def test_who_declines_comes_back_without_a_code(app: App) -> None:
    flow = await app.begins()

    answer = await app.comes_back(flow["auth_uri"], ADA, accept=False)

    assert answer["error"] == "access_denied"
    assert answer["error_description"].startswith("AADSTS65004:")
    assert answer["state"] == flow["state"]
    assert (await app.redeems(flow, answer))["error"] == "access_denied"
    assert "code" in await app.comes_back(link(app), ADA), "they may change their mind"


async def test_where_people_may_not_consent_only_who_has_before_gets_in(app: App) -> None:
    await app.signs_in(ADA)
    app.entra.user_consent(allowed=False)

    assert "code" in await app.comes_back(link(app), ADA)
    refused = await app.comes_back(link(app), GRACE)

    assert (refused["error"], refused["error_description"][:12]) == ("access_denied", "AADSTS90094:")


async def test_consent_is_not_given_once_it_is_an_administrators(app: App) -> None:
    async with Browser(app.world) as browser:
        asked = await browser.presses(await browser.opens(link(app)), ADA.name)
        app.entra.user_consent(allowed=False)
        await browser.presses(await browser.presses(asked, "Accept"), "Continue")

    assert app.back[-1]["error_description"].startswith("AADSTS90094:")


@pytest.mark.parametrize("who", [GUEST, ALAN])
async def test_a_guest_and_who_is_blocked_stay_outside(app: App, who: Character) -> None:
    app.entra.block(ALAN)

    async with Browser(app.world) as browser:
        page = await browser.signs_in(link(app), who)

    assert page.status == 400
    assert ("AADSTS50020" if who is GUEST else "AADSTS53003") in page.text
    assert who.guest == ("mallory@partner.example" in page.text)
    assert not app.back


async def test_who_has_no_account_in_azure_devops_signs_in_all_the_same(app: App) -> None:
    assert (await app.signs_in(LINUS))["id_token_claims"]["oid"] == LINUS.oid


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"client_id": "x"}, 700016),
        ({"client_id": ""}, 900144),
        ({"redirect_uri": "https://evil.example/"}, 50011),
        ({"redirect_uri": ""}, 50011),
        ({"response_mode": "web_message"}, 90023),
    ],
)
async def test_an_unknown_app_or_address_is_sent_nowhere(app: App, wrong: dict[str, str], code: int) -> None:
    async with Browser(app.world) as browser:
        page = await browser.opens(link(app, **wrong))

    assert (page.status, page.forms) == (400, [])
    assert f"AADSTS{code}:" in page.text


@pytest.mark.parametrize(
    ("wrong", "error", "code"),
    [
        ({"response_type": "id_token"}, "unsupported_response_type", 700054),
        ({"response_type": ""}, "unsupported_response_type", 700054),
        ({"scope": ""}, "invalid_request", 900144),
        ({"scope": f"{EVERYTHING} {BUILD}"}, "invalid_scope", 70011),
        ({"scope": "https://management.azure.com/.default"}, "invalid_scope", 70011),
        ({"scope": f"{AZURE_DEVOPS}/vso.everything"}, "invalid_client", 650053),
        ({"code_challenge": ""}, "invalid_request", 9002313),
        ({"code_challenge_method": "plain"}, "invalid_request", 9002313),
        ({"prompt": "none"}, "login_required", 50058),
        ({"prompt": "please"}, "invalid_request", 90023),
    ],
)
async def test_what_cannot_be_asked_for_comes_back_to_the_app(app: App, wrong: dict[str, str], error: str, code: int) -> None:
    async with Browser(app.world) as browser:
        await browser.presses(await browser.opens(link(app, **wrong)), "Continue")

    told = app.back[-1]
    assert (told["error"], told["state"]) == (error, "s")
    assert told["error_description"].startswith(f"AADSTS{code}:")


async def test_an_app_without_a_state_is_not_given_one(app: App) -> None:
    assert "state" not in await app.comes_back(link(app, state=""), ADA)


@pytest.mark.parametrize(("tenant", "code"), [("common", 50194), ("organizations", 50194), ("fabrikam.example", 90002)])
async def test_other_tenants_are_not_here(app: App, tenant: str, code: int) -> None:
    status, said = await app.posts(app.form(), tenant)
    async with Browser(app.world) as browser:
        page = await browser.opens(link(app).replace(TENANT, tenant, 1))

    assert (status, said["error_codes"]) == (400, [code])
    assert f"AADSTS{code}:" in page.text
    if tenant == "fabrikam.example":
        with pytest.raises(ValueError, match="double check your tenant"):
            await asyncio.to_thread(app.made, None, f"https://{HOST}/{tenant}")


async def test_a_tenant_is_known_by_its_domain_too(app: App) -> None:
    made = await asyncio.to_thread(app.made, None, f"https://{HOST}/contoso.example")

    assert made.authority.token_endpoint == f"{BASE}/oauth2/v2.0/token"


@pytest.mark.parametrize(
    "change",
    [
        lambda form: form | {"ask": "rubbish"},
        lambda form: {"person": ADA.oid},
        lambda form: form | {"person": BOT.oid},
        lambda form: {"ask": form["ask"]},
    ],
)
async def test_a_form_that_was_tampered_with_is_refused(app: App, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    async with Browser(app.world) as browser:
        page = await browser.opens(link(app))
        page.forms[0].fields = change(page.forms[0].fields | {"person": ADA.oid})
        page.forms[0].buttons = [("", "", "Send")]
        told = await browser.presses(page, "Send")

    assert told.status == 400
    assert "incomplete or too old" in told.text


async def test_nobody_consents_who_has_not_picked_an_account(app: App) -> None:
    async with Browser(app.world) as browser:
        page = await browser.opens(link(app))
        sealed = {"ask": page.forms[0].fields["ask"], "answer": "accept"}
        forged = Page(200, page.url, "", "", [Form(page.forms[0].action.removesuffix("login") + "consent", sealed, [("", "", "Send")])])
        told = await browser.presses(forged, "Send")

    assert told.status == 400
    assert not app.back


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"}],
)
async def test_another_page_cannot_sign_somebody_in(app: App, headers: dict[str, str]) -> None:
    async with Browser(app.world) as browser:
        page = await browser.opens(link(app))
    form = page.forms[0].fields | {"person": ADA.oid}

    async with (
        aiohttp.ClientSession() as session,
        session.post(urljoin(page.url, page.forms[0].action), data=form, headers=headers) as answer,
    ):
        assert answer.status == 403
        assert "Permissions requested" not in await answer.text()


async def test_forms_lead_only_where_they_should(app: App) -> None:
    async with aiohttp.ClientSession() as session:

        async def leads_to(address: str, **form: str) -> str:
            async with session.request("POST" if form else "GET", address, data=form or None) as answer:
                policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            return policy.partition("form-action ")[2]

        async with Browser(app.world) as browser:
            page = await browser.opens(link(app))
        sealed, login = page.forms[0].fields["ask"], urljoin(page.url, page.forms[0].action)

        assert await leads_to(page.url) == "'self'"
        assert await leads_to(page.url.replace("form_post", "query")) == f"'self' {app.redirect}"
        assert await leads_to(page.url.replace("vso.build_execute", "vso.x")) == app.redirect
        assert await leads_to(login, ask=sealed, person=ADA.oid) == "'self'"
        assert await leads_to(login, ask=sealed, person=GUEST.oid) == "'none'"


# What is refused at the token endpoint


async def test_a_code_is_good_once(app: App) -> None:
    flow = await app.begins()
    answer = await app.comes_back(flow["auth_uri"], ADA)
    assert "access_token" in await app.redeems(flow, answer)

    again = await app.redeems(flow, answer)

    assert (again["error"], again["error_codes"]) == ("invalid_grant", [54005])


async def test_a_wrong_verifier_spends_the_code(app: App) -> None:
    flow = await app.begins()
    answer = await app.comes_back(flow["auth_uri"], ADA)

    wrong = await app.redeems(flow | {"code_verifier": "v" * 43}, answer)

    assert (wrong["error"], wrong["error_codes"]) == ("invalid_grant", [501481])
    assert (await app.redeems(flow, answer))["error_codes"] == [54005]


async def test_a_code_is_for_the_address_that_it_came_to(app: App) -> None:
    flow = await app.begins()
    answer = await app.comes_back(flow["auth_uri"], ADA)

    elsewhere = await app.redeems(flow | {"redirect_uri": "http://127.0.0.1:1/"}, answer)

    assert elsewhere["error_codes"] == [50011]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda entra: entra.revoke(ADA), 50173),
        (lambda entra: entra.forget_consent(ADA), 65001),
        (lambda entra: entra.block(ADA), 53003),
    ],
)
async def test_a_code_is_worth_nothing_after_what_ends_a_sign_in(app: App, change: Callable[[Entra], None], code: int) -> None:
    flow = await app.begins()
    answer = await app.comes_back(flow["auth_uri"], ADA)

    change(app.entra)

    refused = await app.redeems(flow, answer)
    assert (refused["error"], refused["error_codes"]) == ("invalid_grant", [code])


async def test_without_the_right_secret_there_is_no_token_and_the_code_is_not_spent(app: App) -> None:
    flow = await app.begins()
    answer = await app.comes_back(flow["auth_uri"], ADA)

    wrong = await app.redeems(flow, answer, secret="guess")

    assert (wrong["error"], wrong["error_codes"]) == ("invalid_client", [7000215])
    assert app.entra.client_secret not in str(wrong)
    assert "access_token" in await app.redeems(flow, answer)


@pytest.mark.parametrize(
    ("wrong", "status", "error", "code"),
    [
        ({"grant_type": ""}, 400, "invalid_request", 900144),
        ({"grant_type": "password"}, 400, "unsupported_grant_type", 70003),
        ({"grant_type": "authorization_code"}, 400, "invalid_request", 900144),
        ({"grant_type": "authorization_code", "code": "guess"}, 400, "invalid_grant", 9002313),
        ({"client_id": ""}, 400, "invalid_request", 900144),
        ({"client_id": "x"}, 400, "unauthorized_client", 700016),
        ({"client_secret": ""}, 401, "invalid_client", 7000218),
        ({"client_secret": "schlüssel"}, 401, "invalid_client", 7000215),
        ({}, 400, "invalid_request", 900144),
        ({"refresh_token": "guess"}, 400, "invalid_grant", 9002313),
    ],
)
async def test_a_wrong_question_is_answered_in_entras_shape(app: App, wrong: dict[str, str], status: int, error: str, code: int) -> None:
    answered, said = await app.posts(app.form(**wrong))

    assert (answered, said["error"], said["error_codes"]) == (status, error, [code])
    assert set(said) == {"error", "error_description", "error_codes", "timestamp", "trace_id", "correlation_id", "error_uri"}
    description = f"Trace ID: {said['trace_id']} Correlation ID: {said['correlation_id']} Timestamp: {said['timestamp']}"
    assert said["error_description"].startswith(f"AADSTS{code}: ")
    assert said["error_description"].endswith(description)


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "application/x-www-form-urlencoded; charset=klingon"])
async def test_what_is_no_form_is_refused(app: App, kind: str) -> None:
    async with aiohttp.ClientSession(headers={"Content-Type": kind}) as session:
        for path in ("oauth2/v2.0/token", "login", "consent"):
            async with session.post(f"{app.world.page_url}/{HOST}/{TENANT}/{path}", data=b"code=\xff") as answer:
                assert answer.status == 400
                assert "AADSTS9002313: Invalid request." in await answer.text()


async def test_a_refresh_token_is_good_once(app: App) -> None:
    await app.signs_in(ADA)
    first = app.refresh_token()
    assert "access_token" in await app.silently()
    assert app.refresh_token() != first

    status, again = await app.posts(app.form(refresh_token=first))

    assert (status, again["error"], again["error_codes"]) == (400, "invalid_grant", [70000])
    assert "access_token" in await app.silently(), "the newer one is as good as before"


async def test_what_was_not_agreed_to_is_not_given_for_a_refresh_token(app: App) -> None:
    await app.signs_in(ADA)

    more = await app.silently([RELEASE])
    strange = await app.posts(app.form(refresh_token=app.refresh_token(), scope=f"{EVERYTHING} {BUILD}"))

    assert (more["error"], more["error_codes"], more["suberror"]) == ("invalid_grant", [65001], "consent_required")
    assert strange[1]["error_codes"] == [70011]
    assert "access_token" in await app.silently(), "a refusal spends nothing"


async def test_an_app_gets_what_it_asked_for_and_no_more(app: App) -> None:
    verifier = {"code_challenge": "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0", "code_verifier": "abc"}

    async def said(scope: str) -> Said:
        answer = await app.comes_back(link(app, scope=scope, code_challenge=verifier["code_challenge"]), ADA)
        form = app.form(grant_type="authorization_code", code=answer["code"], redirect_uri=app.redirect, code_verifier="abc")
        return (await app.posts(form))[1]

    bare, identity, default = await said(BUILD), await said("openid profile"), await said(f"openid offline_access {EVERYTHING}")

    assert set(bare) == {"token_type", "scope", "expires_in", "ext_expires_in", "access_token"}
    assert "id_token" in identity
    assert jwt.decode(identity["access_token"], options={"verify_signature": False})["aud"] == GRAPH
    with pytest.raises(BadToken, match="wrong audience"):  # else it would reach as far as a service's
        app.who(identity["access_token"])
    assert default["scope"] == f"{BUILD} {RELEASE}"
    assert app.who(default["access_token"]) == (ADA, {"vso.build_execute", "vso.release_manage"})


# Administrators


async def test_after_a_revocation_nothing_that_was_given_before_works(app: App) -> None:
    before = (await app.signs_in(ADA))["access_token"]
    bystander = App(app.world, app.entra, back=app.back)
    await bystander.signs_in(GRACE)
    app.entra.revoke(ADA)

    said = await app.silently()

    assert (said["error"], said["error_codes"]) == ("invalid_grant", [50173])
    with pytest.raises(BadToken, match="revoked"):
        app.who(before)
    assert app.who((await bystander.silently())["access_token"])[0] is GRACE
    assert app.who((await app.signs_in(ADA))["access_token"])[0] is ADA, "signing in anew is the way back"


async def test_a_refresh_token_that_was_not_used_for_too_long_has_expired(app: App) -> None:
    await app.signs_in(ADA)
    app.entra.expire(ADA)

    said = await app.silently()

    assert (said["error"], said["error_codes"]) == ("invalid_grant", [700082])
    assert "error" not in await app.signs_in(ADA)


async def test_consent_that_is_taken_back_is_asked_for_again(app: App) -> None:
    await app.signs_in(ADA)
    app.entra.forget_consent(ADA)

    said = await app.silently()

    assert (said["error"], said["error_codes"]) == ("invalid_grant", [65001])
    async with Browser(app.world) as browser:
        assert "Permissions requested" in (await browser.presses(await browser.opens(link(app)), ADA.name)).text


async def test_conditional_access_blocks_somebody_who_is_signed_in_until_it_no_longer_does(app: App) -> None:
    await app.signs_in(ADA)
    app.entra.block(ADA)

    said = await app.silently()
    app.entra.block(ADA, blocked=False)

    assert (said["error"], said["error_codes"], said["classification"]) == ("invalid_grant", [53003], "message_only")
    assert "access_token" in await app.silently()


async def test_entra_misbehaves_when_asked_to(app: App) -> None:
    await app.signs_in(ADA)
    token = app.refresh_token()
    app.world.faults.arm("entra.503", 1)
    app.world.faults.arm("entra.slow", 1, seconds=0.01)

    status, said = await app.posts(app.form(refresh_token=token))

    assert (status, said["error"], said["error_codes"]) == (503, "temporarily_unavailable", [90033])
    assert not app.world.faults.armed("entra.slow")
    assert (await app.posts(app.form(refresh_token=token)))[0] == 200, "nothing was spent"


# Without HTTP


def test_what_is_kept_survives_a_restart(tmp_path: Path) -> None:
    def rules() -> Rules:
        return Rules(State(tmp_path / "state"), "http://127.0.0.1:1/signin/callback")

    before = rules()
    query = {name: value[0] for name, value in parse_qs(f"client_id={CLIENT_ID}&response_type=code&scope={BUILD}&code_challenge=c").items()}
    ask = before.asked(query | {"redirect_uri": before.redirect, "code_challenge_method": "S256"})
    before.consent(ADA, ask)
    before.allow_consent(allowed=False)
    before.block(GRACE, blocked=True)

    after = rules()

    assert after.secret == before.secret
    assert not after.needs_consent(ADA, ask)
    with pytest.raises(EntraError, match="AADSTS90094"):
        after.needs_consent(ALAN, ask)
    with pytest.raises(EntraError, match="AADSTS53003"):
        after.admit(GRACE)


def test_scopes_are_read_and_put_into_words() -> None:
    assert named(["openid", BUILD, RELEASE, BUILD]) == ("vso.build_execute", "vso.release_manage")
    assert named([EVERYTHING]) == ("vso.build_execute", "vso.release_manage")
    assert named(["openid"]) == ()
    assert in_words(["openid", "email", BUILD]) == [
        "Run pipelines and answer their approvals, as you",
        "See your email address",
        "Sign you in",
    ]


async def test_the_headless_person_leaves_this_machine_for_nothing(app: App) -> None:
    async with Browser(app.world) as browser:
        with pytest.raises(LookupError, match="not of this world"):
            await browser.opens("https://example.com/")


async def test_the_bot_is_told_who_it_is_in_entra_and_keeps_its_key(app: App) -> None:
    def told() -> dict[str, str]:
        environment = BotProcess(app.world, Slack(app.world), app.entra).environment()
        return {name: environment[name] for name in ("ENTRA_TENANT", "ENTRA_CLIENT_ID", "ENTRA_CLIENT_SECRET", "CALLBOARD_KEYS")}

    first = told()

    assert first == told()
    assert list(first.values())[:3] == [TENANT, CLIENT_ID, app.entra.client_secret]
    Fernet(first["CALLBOARD_KEYS"])  # raises where it is no key


# In a browser


@pytest.mark.page
async def test_one_signs_in_with_a_browser(app: App) -> None:
    flow = await app.begins([BUILD, RELEASE])
    local = urlsplit(flow["auth_uri"])

    async with browsing("about:blank") as page:
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        await page.goto(f"{app.world.page_url}/{HOST}{local.path}?{local.query}")
        await page.click("text=Ada Lovelace")
        assert await page.locator("main li").all_inner_texts() == in_words([BUILD, RELEASE, "offline_access", "profile", "openid"])
        await page.click("button[value=accept]")
        await page.wait_for_url(f"{app.redirect}*")

        assert await page.inner_text("body") == "Back"
        await page.goto(f"{app.world.page_url}/{HOST}{local.path}?{local.query}")
        assert "Signed in" in await page.locator("button").first.inner_text()
        assert not complaints
    assert app.who((await app.redeems(flow, app.back[-1]))["access_token"])[0] is ADA
