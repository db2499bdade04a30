"""The rest of the story: a classic release, a freeze, broken glass, rolling back, the audit trail, and a look for secrets."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg import sql

from sandbox.launch import NotReadyError
from sandbox.names import ADA, CHANNEL, GRACE, KATHERINE, PEOPLE, RADIA
from sandbox.slack.person import Person
from sandbox.story import Broken, Clock, Message, Story, blocks, buttons, ended, must, until, words
from sandbox.town import Town

PROD = "Prod - Deploy on AKS"
FREEZE = """
[[environments.prod.freezes]]
reason = "nobody deploys during the audit"
timezone = "Europe/Berlin"
days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
"""
# What tokens look like, whoever made them.
PATTERNS = (r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}", r"xox[abp]-[\w-]{8,}", r"xapp-[\w-]{8,}")


class Trust(Story):
    """The whole story."""

    def __init__(self, here: Town, clock: Clock) -> None:
        super().__init__(here, clock)
        self._katherine, self._radia = Person(here.slack, KATHERINE), Person(here.slack, RADIA)

    # A classic release

    async def classic(self) -> None:
        """Version 2 comes to Prod by the classic release `Deploy Webservice`, through a freeze that two people break."""
        here = self._here
        async with self._clock.step("Ada promotes version 2 with cd=release: CI ends without deploying, and its build starts the release"):
            run = await here.azure.queue(ADA, {"action": "promote", "version": "2", "cd": "release"})
            done = await ended(here, run)
            must(done["result"] == "succeeded", f"CI is green: {done['result']}")
            await until(here, "a release", here.azure.releases, 30)
            release = int(here.azure.releases()[0]["id"])
            await self._channel.until("a card for the release", lambda: self._channel.release(release, lambda m: blocks(m, "plan")), 30)
        async with self._clock.step("The release deploys to QA by itself and has a living card; Prod asks the group"):
            asks: Message = await self._channel.until("Prod asks", lambda: self._channel.release(release, _asks), 90)
            must("version 2" in words(asks) and "QA smoke test" in words(asks), f"with its facts: {words(asks)[:300]}")
        async with self._clock.step("A freeze in callboard.toml: Katherine presses Approve and is told the reason"):
            await self._with_settings(FREEZE)
            refusal = await self._press_and_read(self._katherine, asks, "approve")
            must("nobody deploys during the audit" in refusal, f"the reason: {refusal}")
        async with self._clock.step("Grace asks to break the glass; she cannot confirm it herself, Radia does; everybody sees it"):
            await self._break_glass(release)
        async with self._clock.step("Katherine signs in, approves for her group, and the release deploys to Prod"):
            await self._approve_release(release, asks)
            await self._with_settings("")

    async def _break_glass(self, release: int) -> None:
        await self._offer_words(self._grace, f"/mlops breakglass release/{release} The clinic waits for it")

        def asked() -> Message | None:
            return next((m for m in self._channel.tops() if "glass_confirm" in buttons(m)), None)

        question: Message = await self._channel.until("the question in the channel", asked, 15)
        own = await self._press_and_read(self._grace, question, "glass_confirm")
        must("second person" in own, f"she cannot confirm it herself: {own}")
        await self._press_and_read(self._radia, question, "glass_confirm")
        broken = await self._channel.until(
            "the announcement", lambda: next((m for m in self._channel.tops() if "is broken for" in words(m)), None), 15
        )
        must(f"<@{GRACE.slack}>" in words(broken) and f"<@{RADIA.slack}>" in words(broken), f"both are named: {words(broken)}")

    async def _approve_release(self, release: int, asks: Message) -> None:
        here, katherine = self._here, self._katherine
        old = copy.deepcopy(asks)
        await katherine.clicks(asks, "approve")
        await self._sign_in(katherine)
        view = await self._channel.until("the form", lambda: (v := katherine.modal()) and v.get("submit") and v, 15)
        must((await katherine.fills(view, {"reason": "Approved through the glass"})).accepted, "the answer is taken")
        decided = await self._channel.until("the decision", lambda: self._channel.release(release, _decided), 30)
        must("Katherine Johnson" in words(decided) or KATHERINE.slack in words(decided), f"who: {words(decided)}")
        (approval,) = [one for one in _approvals(here, release) if one["status"] == "approved" and one.get("approvedBy")]
        must(approval["approvedBy"]["id"] == KATHERINE.oid, f"Azure DevOps has her name: {approval['approvedBy']}")
        must("Approved through the glass" in approval["comments"], f"and her reason: {approval['comments']}")
        await self._channel.until("the release's card ends green", lambda: self._channel.release(release, _green), 90)
        must(here.ml.champion("diabetes") == "2", f"Prod serves version 2: {here.ml.champion('diabetes')}")
        stale = await self._press_and_read(self._grace, old, "approve", stale=True)
        must("approved" in stale.lower(), f"an old button changes nothing: {stale}")

    # Back

    async def rolls_back(self) -> None:
        """Prod goes back to version 2; somebody decides in Azure DevOps while the bot is away."""
        here = self._here
        async with self._clock.step("/mlops rollback offers what Prod served before; Katherine starts it under her own name"):
            offer = await self._offer(self._katherine, "/mlops rollback diabetes")
            must("version 2" in words(offer) and "steer_start" in buttons(offer), f"what it goes back to: {words(offer)}")
            await self._katherine.clicks(offer, "steer_start")
            release = int(here.azure.releases()[0]["id"])
            await self._channel.until("Prod asks again", lambda: self._channel.release(release, _asks), 60)
        async with self._clock.step("The bot is stopped, Grace approves in Azure DevOps; soon after its return the message is right"):
            await here.bot.stop()
            pending = next(one for one in _approvals(here, release) if one["status"] == "pending")
            here.azure.approve_release_as(GRACE, pending["id"], "approved", "Back, please")
            await here.bot.start()

            def by_grace(message: Message) -> bool:
                return _decided(message) and "Grace Hopper" in words(message) and "Back, please" in words(message)

            await self._channel.until("who decided, and why", lambda: self._channel.release(release, by_grace), 60)
        async with self._clock.step("Prod serves version 2 again, and says so"):
            await until(here, "version 2 is the champion", lambda: here.ml.champion("diabetes") == "2", 90)
            await self._channel.until("the release's card ends green", lambda: self._channel.release(release, _green), 90)

    # On record

    async def is_on_record(self) -> None:
        """The audit trail holds and tells; a line that is edited by hand is named; no secret is anywhere."""
        here = self._here
        async with self._clock.step("/mlops audit tells who decided, and who was refused; python -m bot audit verify: the chain holds"):
            told = await self._offer_words(self._grace, "/mlops audit 1")
            must(f"<@{GRACE.slack}>" in told and "You asked for this run" in told, f"the decision and the refusal: {told[:600]}")
            verdict = await here.bot.command("audit", "verify")
            must("The chain holds" in verdict, verdict)
            print(f"      {verdict.strip().splitlines()[0]}")
        async with self._clock.step("A scanner reads the database, the log and every message: no token, no secret"):
            known = self._secrets()
            places = {
                "the database": self._database(),
                "the log": [here.bot.log.read_text(errors="replace")],
                "a message": self._messages(),
            }
            found = {f"{what} in {place}" for place, texts in places.items() for what in leaks(texts, known)}
            must(not found, f"secrets were found: {sorted(found)}")
            print(f"      {len(known)} known secrets and {len(PATTERNS)} patterns, {sum(map(len, places.values())):,} texts")
        async with self._clock.step("One line of the audit trail is edited by hand: audit verify names it"):
            line = self._tamper()
            try:
                await here.bot.command("audit", "verify")
                raise Broken("an edited line is found")
            except NotReadyError as error:
                must(f"Line {line}" in str(error), f"and named: {error}")

    def _secrets(self) -> set[str]:
        """Every secret of this world that the bot has, or has seen."""
        here = self._here
        environment = here.bot.environment()
        names = ("SLACK_BOT_TOKEN", "SLACK_SIGNING_SECRET", "HOOKS_PASSWORD", "HOOKS_SECRET", "ENTRA_CLIENT_SECRET", "CALLBOARD_KEYS")
        return {environment[name] for name in names} | set(here.entra.issued)

    def _database(self) -> list[str]:
        """Every row of every table."""
        rows: list[str] = []
        with self._connected() as connection:
            tables = connection.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
            for (table,) in tables:
                found = connection.execute(sql.SQL("select * from {}").format(sql.Identifier(table))).fetchall()
                rows += [" ".join(_text(cell) for cell in row) for row in found]
        return rows

    def _messages(self) -> list[str]:
        """Everything that anybody was shown."""
        whispers = [message for person in PEOPLE for message in self._here.slack.workspace.ephemerals.get(person.slack, ())]
        direct = [f"D{person.slack[1:]}" for person in PEOPLE]
        shown = [message for channel in (CHANNEL, *direct) for message in self._here.slack.messages(channel)]
        return [words(message) for message in (*shown, *whispers)]

    def _tamper(self) -> int:
        """Edit one line, as somebody with the database's password could."""
        with self._connected() as connection:
            connection.execute("alter table audit disable trigger all")
            row = connection.execute("update audit set reason = 'fine' where id = (select min(id) + 5 from audit) returning id").fetchone()
            connection.execute("alter table audit enable trigger all")
        assert row is not None
        return int(row[0])

    def _connected(self) -> psycopg.Connection[Any]:
        return psycopg.connect(f"host={self._here.bot.data}/postgres user=postgres dbname=postgres", autocommit=True)

    # Helpers

    async def _with_settings(self, more: str) -> None:
        """Start the bot again, with something more in its callboard.toml."""
        here = self._here
        await here.bot.stop()
        settings = (here.world.root / "callboard.toml").read_text()
        changed = here.world.folder / "callboard.toml"
        changed.write_text(settings.replace("\n[models.diabetes]\n", f"{more}\n[models.diabetes]\n", 1))
        here.bot.config = changed
        await here.bot.start()

    async def _offer_words(self, person: Person, command: str) -> str:
        """Type a command and return what the private answer says."""
        return words(await self._offer(person, command))


def leaks(texts: Iterable[str], known: Iterable[str]) -> set[str]:
    """What in these texts is a known secret (told by its beginning only), or looks like a token."""
    found: set[str] = set()
    for text in texts:
        found |= {f"{secret[:4]}…" for secret in known if secret in text}
        found |= {pattern for pattern in PATTERNS if re.search(pattern, text)}
    return found


def _text(cell: object) -> str:
    return cell.decode("latin-1") if isinstance(cell, bytes) else str(cell)


def _approvals(here: Town, release: int) -> list[dict[str, Any]]:
    """The approvals before the release's Prod stage, of every attempt."""
    environments = here.azure.release(release)["environments"]
    return [one for environment in environments if environment["name"] == PROD for one in environment["preDeployApprovals"]]


def _asks(message: Message) -> bool:
    return "approve" in buttons(message)


def _decided(message: Message) -> bool:
    return not blocks(message, "plan") and "Approved" in words(message) and not buttons(message) & {"approve", "reject"}


def _green(message: Message) -> bool:
    statuses = {task["status"] for plan in blocks(message, "plan") for task in plan["tasks"]}
    return statuses == {"complete"}
