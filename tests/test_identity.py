"""People under their own names: real msal, a real database, and the sandbox's Entra; and the pages where they say who they are."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from aiohttp import web
from cryptography.fernet import Fernet
from pydantic import SecretStr

from bot.core.approvals import Denied
from bot.core.errors import NotNow, Refused, SignInNeeded
from bot.core.people import Account, Person
from bot.database import Database
from bot.doctor import sign_in
from bot.identity import EntraIdentities, Keys, Linked, ServiceIdentity, rotate
from bot.logs import QUIET
from bot.ports import Hands
from bot.settings import Entra as Registration
from bot.settings import Settings
from bot.signin import SignInPages
from sandbox.entra.person import Browser, Form, Page
from sandbox.entra.server import Entra
from sandbox.names import ADA, CLIENT_ID, GRACE, GUEST, LINUS, TENANT, Character
from sandbox.processes import free_port
from sandbox.tokens import AZURE_DEVOPS, BadToken
from sandbox.world import World
from tests.examples import BOT_ADO
from tests.fakes import FakeChat, FakeHands, FakePipelines, FakeStore
from tests.test_app import settings
from tests.test_azure_devops import point_at

pytestmark = pytest.mark.world

WORKSPACE = "T0CONTOSO"


class Guarded(FakeHands):
    """An Azure DevOps that takes the sandbox's tokens, and nobody else's. As the real one, it remembers whose hands it is."""

    def __init__(self, world: World, token: Callable[[], str]) -> None:
        super().__init__(FakePipelines(), BOT_ADO)
        self._world = world
        self._token = token
        self._known: Person | None = None

    async def me(self) -> Person:
        if self._known is None:
            self._known = self._asked()
        return self._known

    def _asked(self) -> Person:
        try:
            who = self._world.tokens.check(f"Bearer {self._token()}", AZURE_DEVOPS).who
        except BadToken:
            raise SignInNeeded("Azure DevOps does not accept your sign-in any more.") from None
        if who is LINUS:
            raise Refused("You are not a member of the Azure DevOps organisation.")
        return Person(who.name, who.email, who.oid)


@dataclass
class House:
    """The bot's part of signing in, with its pages listening where Entra sends people back to."""

    world: World
    entra: Entra
    database: Database
    keys: Keys
    identities: EntraIdentities
    store: FakeStore
    linked: list[Linked] = field(default_factory=list)

    def made(self, keys: Keys | None = None) -> EntraIdentities:
        """Another replica."""

        def hands(token: Callable[[], str]) -> Hands:
            return Guarded(self.world, token)

        return EntraIdentities(
            self.database,
            tenant=TENANT,
            client=CLIENT_ID,
            secret=self.entra.client_secret,
            keys=keys or self.keys,
            redirect=self.entra.rules.redirect,
            hands=hands,
            workspace=lambda: WORKSPACE,
        )

    async def signs_in(self, who: Character, account: Character | None = None, *, link: str = "", answer: str = "Link them") -> Page:
        """Somebody goes all the way with an account (their own, if no other is named)."""
        async with Browser(self.world) as browser:
            page = await browser.signs_in(link or await self.identities.link(who.slack, "d1"), account or who)
            return await browser.presses(page, answer) if "both of these" in page.text else page


@asynccontextmanager
async def opened(folder: Path, database: Database, port: int) -> AsyncIterator[House]:
    world = World(folder, bot_url=f"http://127.0.0.1:{port}")
    entra = Entra(world)
    await world.start([entra])
    house = House(world, entra, database, Keys(Fernet.generate_key().decode()), None, FakeStore())  # type: ignore[arg-type]
    house.identities = house.made()

    async def told(linked: Linked) -> None:
        house.linked.append(linked)

    app = web.Application()
    chat = FakeChat()
    SignInPages(house.identities, chat, house.store, linked=told, workspace=lambda: "Contoso", secure=False).add_to(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield house
    finally:
        house.identities.close()
        await runner.cleanup()
        await world.stop()


@pytest.fixture
async def house(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    async with opened(tmp_path / "world", database, free_port()) as made:
        point_at(made.world, monkeypatch)
        yield made


ADAS = Account(TENANT, ADA.oid, ADA.name, ADA.email)


async def everything(database: Database) -> str:
    """Every byte that the two tables hold."""
    async with database.pool.connection() as connection:
        rows = [*await (await connection.execute("select * from account")).fetchall()]
        rows += await (await connection.execute("select * from signin")).fetchall()
    return str([[bytes(cell) if isinstance(cell, memoryview) else cell for cell in row] for row in rows])


# All the way


async def test_whom_azure_devops_takes_somebody_for_is_asked_anew_after_a_while(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.identity.ME_FRESH", -1.0)
    await house.signs_in(ADA)
    await house.identities.acting(ADA.slack)
    house.entra.revoke(ADA)

    with pytest.raises(SignInNeeded):
        await house.identities.acting(ADA.slack)


async def test_somebody_signs_in_and_acts_under_their_own_name(house: House) -> None:
    with pytest.raises(SignInNeeded, match="under your own name"):
        await house.identities.acting(ADA.slack)

    page = await house.signs_in(ADA)

    assert "You are signed in As Ada Lovelace" in page.text
    assert [(one.person, one.account, one.delivery) for one in house.linked] == [(ADA.slack, ADAS, "d1")]
    acting = await house.identities.acting(ADA.slack)
    assert (acting.account, acting.me) == (ADAS, Person(ADA.name, ADA.email, ADA.oid))
    assert await house.identities.account(GRACE.slack) is None
    assert [(entry.action, entry.account) for entry in house.store.audit] == [("sign in", ADAS)]


async def test_the_page_shows_both_names_and_asks_once_more(house: House) -> None:
    async with Browser(house.world) as browser:
        page = await browser.signs_in(await house.identities.link(ADA.slack, "d1"), GRACE)

        assert "Are both of these you?" in page.text
        assert "Slack Ada Lovelace ada@contoso.example in Contoso Entra Grace Hopper grace@contoso.example" in page.text
        done = await browser.presses(page, "Cancel")

    assert "Nothing was linked" in done.text
    assert house.linked == []
    assert await house.identities.account(ADA.slack) is None


async def test_what_is_kept_says_nothing_without_the_key(house: House) -> None:
    link = await house.identities.link(ADA.slack, "d1")
    state = parse_qs(urlsplit(link).query)["state"][0]
    assert state.split(".")[0] not in await everything(house.database)
    await house.signs_in(ADA)

    async with house.database.pool.connection() as connection:
        row = await (await connection.execute("select tokens from account")).fetchone()
    assert row is not None
    opened = house.keys.open(f"{WORKSPACE}/{ADA.slack}", bytes(row[0]))
    assert opened is not None
    secrets = re.findall(r'"secret": "([^"]+)"', str(opened["cache"]))
    kept = await everything(house.database)
    assert len(secrets) >= 3, "an access token, a refresh token and an id token are kept"
    assert not [secret for secret in secrets if secret in kept]
    stranger = house.made(Keys(Fernet.generate_key().decode()))
    with pytest.raises(SignInNeeded, match="can no longer read"):
        await stranger.acting(ADA.slack)


async def test_a_row_that_is_given_to_somebody_else_does_not_open(house: House) -> None:
    await house.signs_in(ADA)
    await house.signs_in(GRACE)
    async with house.database.pool.connection() as connection:
        await connection.execute(
            "update account set tokens = (select tokens from account where person = %s) where person = %s", (GRACE.slack, ADA.slack)
        )

    with pytest.raises(SignInNeeded, match="can no longer read"):
        await house.made().acting(ADA.slack)


async def test_after_a_rotation_the_old_key_is_not_needed(house: House) -> None:
    first, second = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    house.keys = Keys(first)
    await house.signs_in(ADA)
    async with house.database.pool.connection() as connection:
        closed = Keys(first).close(f"{WORKSPACE}/{ADA.slack}", {"cache": "{}"})
        await connection.execute("update account set tokens = %s", (closed,))

    assert await rotate(house.database, Keys(second)) == (0, 1), "what no key opens is counted, and left"
    assert await rotate(house.database, Keys(f"{second}, {first}")) == (1, 0)

    async with house.database.pool.connection() as connection:
        row = await (await connection.execute("select tokens from account")).fetchone()
    assert row is not None
    assert Keys(second).open(f"{WORKSPACE}/{ADA.slack}", bytes(row[0])) == {"cache": "{}"}
    assert Keys(first).open(f"{WORKSPACE}/{ADA.slack}", bytes(row[0])) is None


async def test_signing_out_forgets_the_tokens(house: House) -> None:
    await house.signs_in(ADA)

    assert await house.identities.forget(ADA.slack)
    assert not await house.identities.forget(ADA.slack)

    with pytest.raises(SignInNeeded):
        await house.identities.acting(ADA.slack)


# Links


async def test_a_link_works_once(house: House) -> None:
    link = await house.identities.link(ADA.slack, "d1")
    await house.signs_in(ADA, link=link)

    page = await house.signs_in(ADA, link=link)

    assert page.status == 400
    assert "was used before" in page.text
    assert len(house.linked) == 1


async def test_who_presses_twice_gets_one_link_and_what_was_asked_for_last_goes_on(house: House) -> None:
    links = [await house.identities.link(ADA.slack, delivery) for delivery in ("d1", "d2")]

    await house.signs_in(ADA, link=links[0])

    assert links[0] == links[1]
    assert [one.delivery for one in house.linked] == ["d2"]


async def test_who_asks_again_while_signing_in_does_not_lose_what_was_begun(house: House) -> None:
    async with Browser(house.world) as browser:
        page = await browser.signs_in(await house.identities.link(ADA.slack, "d1"), ADA)
        await house.identities.link(ADA.slack, "d2")
        done = await browser.presses(page, "Link them")

    assert "You are signed in" in done.text
    assert [one.delivery for one in house.linked] == ["d1"]


async def test_a_newer_link_ends_the_older_one(house: House) -> None:
    link = await house.identities.link(ADA.slack, "d1")
    async with house.database.pool.connection() as connection:
        await connection.execute("update signin set created = now() - interval '6 minutes'")
    assert await house.identities.link(ADA.slack, "d2") != link

    assert "unknown, was used before" in (await house.signs_in(ADA, link=link)).text


async def test_an_old_link_is_over(house: House) -> None:
    link = await house.identities.link(ADA.slack, "d1")
    async with house.database.pool.connection() as connection:
        await connection.execute("update signin set created = now() - interval '11 minutes'")

    assert "older than ten minutes" in (await house.signs_in(ADA, link=link)).text
    await house.identities.tidy()


@pytest.mark.parametrize("state", ["", "x", "a.b.c", "a.1.b", "{id}.9999999999.{signature}", "{id}.{expires}.0000"])
async def test_a_forged_state_leads_nowhere(house: House, state: str) -> None:
    link = await house.identities.link(ADA.slack, "d1")
    key, expires, signature = parse_qs(urlsplit(link).query)["state"][0].split(".")

    forged = state.format(id=key, expires=expires, signature=signature)
    page = await house.signs_in(ADA, link=link.replace(f"{key}.{expires}.{signature}", forged))

    assert page.status == 400
    assert house.linked == []
    assert all(isinstance(entry.decision, Denied) for entry in house.store.audit)


async def test_the_page_confirms_nothing_for_another_browser_and_nothing_twice(house: House) -> None:
    async with Browser(house.world) as browser, Browser(house.world) as other:
        page = await browser.signs_in(await house.identities.link(ADA.slack, "d1"), ADA)
        stolen = await other.presses(page, "Link them")
        await browser.presses(page, "Link them")
        again = await browser.presses(page, "Link them")

    assert "This sign-in is over" in stolen.text
    assert "This sign-in is over" in again.text
    assert len(house.linked) == 1


async def test_one_account_belongs_to_one_person(house: House) -> None:
    await house.signs_in(ADA)

    page = await house.signs_in(GRACE, ADA)

    assert "ada@contoso.example is linked to another Slack account" in page.text
    assert await house.identities.account(GRACE.slack) is None


async def test_coming_by_hand_or_with_rubbish_is_answered_with_where_to_begin(house: House) -> None:
    callback = house.entra.rules.redirect
    async with Browser(house.world) as browser:
        assert (await browser.opens(callback)).status == 404
        page = Page(200, callback, "", "", [Form(callback, {"code": "x"}, [("", "", "Go")])])
        assert (await browser.presses(page, "Go")).status == 400
        link = await house.identities.link(ADA.slack, "d1")
        page.forms[0].fields = {"state": parse_qs(urlsplit(link).query)["state"][0]}
        assert "sent nothing that could be used" in (await browser.presses(page, "Go")).text


# What Entra says


async def test_who_declines_is_told_that_nothing_was_linked(house: House) -> None:
    async with Browser(house.world) as browser:
        page = await browser.signs_in(await house.identities.link(ADA.slack, "d1"), ADA, accept=False)

    assert "You did not agree" in page.text


async def test_where_people_may_not_consent_the_administrators_address_is_shown(house: House) -> None:
    house.entra.user_consent(allowed=False)

    page = await house.signs_in(ADA)

    assert f"https://login.microsoftonline.com/{TENANT}/adminconsent?client_id={CLIENT_ID}" in page.text
    house.entra.user_consent(allowed=True)
    assert "You are signed in" in (await house.signs_in(ADA)).text


async def test_a_guest_stays_outside(house: House) -> None:
    assert "AADSTS50020" in (await house.signs_in(GUEST)).text


async def test_who_is_no_member_is_signed_in_and_told_so(house: House) -> None:
    page = await house.signs_in(ADA, LINUS)
    assert "You are signed in" in page.text

    with pytest.raises(Refused, match="not a member"):
        await house.identities.acting(ADA.slack)


async def test_a_wrong_client_secret_is_the_owners_to_mend(house: House) -> None:
    house.entra.rules.secret = "another"

    assert "app registration is not set up right (AADSTS7000215)" in (await house.signs_in(ADA)).text


async def test_the_doctor_tells_a_right_app_registration_from_a_wrong_one(house: House) -> None:
    def told(tenant: str = TENANT, client: str = CLIENT_ID, secret: str = house.entra.client_secret) -> Settings:
        entra = Registration(tenant, client, SecretStr(secret), SecretStr(Fernet.generate_key().decode()))
        return replace(settings(CALLBOARD_URL="https://callboard.contoso.example/"), entra=entra)

    assert await sign_in(told()) == (
        True,
        "Entra takes the app registration; its redirect URI has to be https://callboard.contoso.example/signin/callback",
    )
    for wrong in (told(secret="another"), told(client="6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a0000")):
        fine, said = await sign_in(wrong)
        assert not fine
        assert "not set up right (AADSTS" in said
    with pytest.raises(Refused, match="mend ENTRA_TENANT"):
        await sign_in(told(tenant="elsewhere.example"))
    house.world.faults.arm("entra.503", 9)
    with pytest.raises(NotNow):
        await sign_in(told())
    assert (await sign_in(settings()))[1].startswith("nobody signs in")


@pytest.mark.parametrize(("how", "sentence"), [("revoke", "was revoked"), ("expire", "has expired")])
async def test_a_sign_in_that_is_over_asks_for_a_new_one(house: House, how: str, sentence: str) -> None:
    await house.signs_in(ADA)
    await house.identities.acting(ADA.slack)
    getattr(house.entra, how)(ADA)

    other = house.made()
    with pytest.raises(SignInNeeded, match="not accept"):
        await other.acting(ADA.slack)
    with pytest.raises(SignInNeeded, match=sentence):
        await other.renew(ADA.slack)

    await house.signs_in(ADA)
    assert (await other.acting(ADA.slack)).me.name == ADA.name


async def test_a_token_that_azure_devops_no_longer_takes_is_renewed_once(house: House) -> None:
    await house.signs_in(ADA)
    other = house.made()
    assert not await other.renew(ADA.slack), "it has no token yet"
    await other.acting(ADA.slack)
    house.world.tokens.revoke(ADA)  # the token alone, not what renews it

    with pytest.raises(SignInNeeded):
        await house.made().acting(ADA.slack)  # out of the cache, as it was
    assert await other.renew(ADA.slack)

    assert (await other.acting(ADA.slack)).me.name == ADA.name
    house.entra.revoke(ADA)
    with pytest.raises(SignInNeeded, match="was revoked"):
        await other.renew(ADA.slack)


async def test_who_signs_in_anew_is_known_anew_by_every_replica(house: House) -> None:
    await house.signs_in(ADA)
    other = house.made()
    first = await other.acting(ADA.slack)
    house.entra.revoke(ADA)
    await house.signs_in(ADA)

    second = await other.acting(ADA.slack)

    assert second.pipelines is not first.pipelines
    assert (await second.pipelines.me()).name == ADA.name
    assert first.account is not None
    assert first.account.since is not None
    assert second.account is not None
    assert second.account.since is not None
    assert first.account.since < second.account.since


async def test_a_link_outlives_a_rotation_of_the_keys(house: House) -> None:
    first, second = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    text = "id|1|T|U"

    assert Keys(f"{second},{first}").signed(text, Keys(first).sign(text))
    assert not Keys(second).signed(text, Keys(first).sign(text))


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "multipart/form-data"}, b"state=x"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"rubbish"),
        ({"Content-Type": "application/x-www-form-urlencoded; charset=klingon"}, b"state=x"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"state=%ff%00&answer=yes"),
        ({"Content-Type": "application/json"}, b"{}"),
        ({"Content-Type": "application/x-www-form-urlencoded", "Cookie": "callboard-signin=\u00ff"}, b"answer=yes"),
    ],
)
async def test_what_is_no_form_gets_a_page_that_says_where_to_begin(house: House, headers: dict[str, str], body: bytes) -> None:
    callback = house.entra.rules.redirect
    async with aiohttp.ClientSession() as session:
        for address in (callback, callback.replace("callback", "confirm")):
            async with session.post(address, data=body, headers=headers) as answer:
                text = await answer.text()

                assert answer.status == 400 or "Nothing was linked" in text
                assert "Begin again in Slack" in text or "Nothing was linked" in text
                assert answer.headers["Cache-Control"] == "no-store"


async def test_without_the_database_the_page_says_so(house: House) -> None:
    async with Browser(house.world) as browser:
        page = await browser.signs_in(await house.identities.link(ADA.slack, "d1"), ADA)
        await house.database.pool.close()
        pressed = await browser.presses(page, "Link them")

    assert pressed.status == 503
    assert "cannot reach its database" in pressed.text


async def test_tokens_are_renewed_in_time_by_one_replica_after_the_other(house: House) -> None:
    house.world.token_lifetime = 60  # shorter than what we want a token to be good for
    await house.signs_in(ADA)
    replicas = [house.identities, house.made(), house.made()]

    for _ in range(3):
        seen = await asyncio.gather(*(replica.acting(ADA.slack) for replica in replicas for _ in range(3)))
        assert {one.me.name for one in seen} == {ADA.name}
    for replica in replicas[1:]:
        replica.close()


async def test_while_entra_is_away_it_is_tried_again_later(house: House) -> None:
    house.world.faults.arm("entra.503", 9)

    with pytest.raises(NotNow):
        await house.identities.link(ADA.slack, "d1")
    house.world.faults.arm("entra.503", 0)
    await house.signs_in(ADA)
    async with Browser(house.world) as browser:
        link = await house.identities.link(ADA.slack, "d2")
        page = await browser.presses(await browser.opens(link), ADA.name)
        house.world.faults.arm("entra.503", 9)
        assert (await browser.presses(page, "Continue")).status == 503
        house.world.faults.arm("entra.503", 0)


async def test_nothing_secret_is_logged(house: House, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        await house.signs_in(ADA)
        await house.identities.acting(ADA.slack)
        house.entra.revoke(ADA)
        with pytest.raises(SignInNeeded):
            await house.made().acting(ADA.slack)

    assert QUIET["msal"] == logging.WARNING, "at DEBUG it logs whole answers"
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.split(".")[0] not in QUIET)
    assert "eyJ" not in ours
    assert house.entra.client_secret not in ours


async def test_in_the_service_mode_everybody_is_the_bot() -> None:
    identities = ServiceIdentity(FakeHands(FakePipelines(), BOT_ADO))

    acting = await identities.acting(ADA.slack)

    assert (acting.me, acting.account) == (BOT_ADO, None)
    assert await identities.account(ADA.slack) is None
    assert not await identities.forget(ADA.slack)
