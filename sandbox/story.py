"""`make story`: the main job end to end, with every promise looked at on the way; the first broken one ends it."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from yarl import URL

from sandbox.azure_devops.approvals import Denied
from sandbox.entra.person import Browser
from sandbox.launch import NotReadyError
from sandbox.names import ADA, ALAN, BOT, CHANNEL, GRACE, GUEST, KATHERINE, RADIA, Character
from sandbox.slack.person import Person
from sandbox.town import Town, town

Message = dict[str, Any]

WEAK = "rows=60 alpha=100 trees=5 depth=1"
LOSING = "alpha=100000 trees=1 depth=1 rate=0.0001"
STAGES = 9
LOADING = "One moment…"


class Broken(Exception):
    """A promise that was not kept."""


def must(kept: object, promise: str) -> None:
    """Raise Broken with the promise unless it was kept."""
    if not kept:
        raise Broken(promise)


@dataclass
class Clock:
    """Prints each step with its time."""

    began: float = field(default_factory=time.monotonic)
    steps: int = 0

    @asynccontextmanager
    async def step(self, title: str) -> AsyncIterator[None]:
        """One step of the story."""
        began = time.monotonic()
        self.steps += 1
        try:
            yield
        except BaseException:
            print(f"{self.steps:3} ✗ {time.monotonic() - began:6.1f} s  {title}", flush=True)
            raise
        print(f"{self.steps:3} ✓ {time.monotonic() - began:6.1f} s  {title}", flush=True)


def _strings(node: object) -> Iterator[str]:
    match node:
        case str():
            yield node
        case dict():
            for value in node.values():
                yield from _strings(value)
        case list():
            for value in node:
                yield from _strings(value)
        case _:
            pass


def words(message: Message) -> str:
    """Everything that is written in a message."""
    return "\n".join(_strings([message.get("text", ""), message.get("blocks", []), message.get("files", [])]))


def blocks(message: Message, kind: str) -> list[dict[str, Any]]:
    """The message's blocks of one type."""
    return [block for block in message.get("blocks", []) if block["type"] == kind]


def buttons(message: Message) -> set[str]:
    """The action ids a person could press."""
    return {element["action_id"] for block in blocks(message, "actions") for element in block["elements"]}


class Channel:
    """What the team's channel shows about runs."""

    def __init__(self, here: Town) -> None:
        self._slack = here.slack

    def tops(self) -> list[Message]:
        """Messages outside threads, oldest first."""
        return [m for m in self._slack.messages(CHANNEL) if m.get("thread_ts") in {None, m["ts"]}]

    def card(self, run: int) -> Message | None:
        """The living card of a run."""
        return self._one([m for m in self.tops() if blocks(m, "plan") and _about(m, run) and "releaseId=" not in words(m)])

    def prod(self, run: int) -> Message | None:
        """The message that asks about Prod, or its newest where a stage was tried again."""
        asks = [m for m in self.tops() if not blocks(m, "plan") and _about(m, run) and "releaseId=" not in words(m)]
        return self._one([m for m in asks if "glass" not in words(m)])

    def release(self, release: int, fits: Callable[[Message], object]) -> Message | None:
        """The newest message outside threads that is about a classic release, and fits."""
        return next((m for m in reversed(self.tops()) if f"releaseId={release}" in words(m) and fits(m)), None)

    def thread(self, run: int, fits: Callable[[Message], object]) -> Message | None:
        """The reply under the run's card that fits."""
        card = self.card(run)
        if card is None:
            return None
        return self._one([m for m in self._slack.messages(CHANNEL) if m.get("thread_ts") == card["ts"] != m["ts"] and fits(m)])

    def stages(self, run: int) -> dict[str, str]:
        """The stages of the card by name, with their status."""
        card = self.card(run)
        return {task["task_id"].partition(":")[2]: task["status"] for task in blocks(card, "plan")[0]["tasks"]} if card else {}

    async def until(self, what: str, found: Callable[[], Any], seconds: float = 90) -> Any:
        """Wait for something to show. Raises Broken with `what`."""
        try:
            return await self._slack.wait_for(found, seconds)
        except TimeoutError:
            raise Broken(f"not within {seconds:.0f} s: {what}") from None

    @staticmethod
    def _one(found: list[Message]) -> Message | None:
        must(len(found) <= 1, f"a message is there {len(found)} times: {[words(m)[:80] for m in found]}")
        return found[0] if found else None


def _about(message: Message, run: int) -> bool:
    text = words(message)
    return f"buildId={run}&" in f"{text}&".replace("\n", "&").replace("|", "&")


class Story:
    """The acts, in order; each leaves the world as the next one needs it."""

    def __init__(self, here: Town, clock: Clock) -> None:
        self._here = here
        self._clock = clock
        self._channel = Channel(here)
        self._ada, self._grace = Person(here.slack, ADA), Person(here.slack, GRACE)
        self._alan, self._guest = Person(here.slack, ALAN), Person(here.slack, GUEST)

    async def tell(self) -> None:
        """Play it all."""
        await self._opening()
        first = await self._first_model()
        await self._approve_in_slack(first)
        await self._prod_serves(first, version="1")
        second = await self._breaks_in_training()
        await self._reject(second)
        await self._champion_kept()
        await self.classic()
        third = await self._merge_to_main()
        await self._approve_in_azure_devops(third)
        await self.rolls_back()
        await self._commands()
        await self._refusals()
        await self.is_on_record()
        await self._ending()

    async def classic(self) -> None:
        """A classic release, from the build to Prod."""

    async def rolls_back(self) -> None:
        """Prod goes back to what it served before."""

    async def is_on_record(self) -> None:
        """The audit trail holds, and no secret is anywhere."""

    async def _opening(self) -> None:
        here = self._here
        async with self._clock.step("The bot starts, unchanged, with a PostgreSQL of its own"):
            await here.bot.start()
        async with self._clock.step("python -m bot hooks apply: subscriptions created; a second time: nothing to change"):
            created = await here.bot.command("hooks", "apply")
            again = await here.bot.command("hooks", "apply")
            must("created" in created.lower(), f"hooks apply says what it created: {created}")
            must("created" not in again.lower(), f"hooks apply is idempotent: {again}")

    async def _offer(self, person: Person, command: str) -> Message:
        """Type a command and return the private answer to it."""
        before = {m["ts"] for m in person.sees()}
        answer = await person.types(command)
        if answer is not None and answer["ts"] not in before and buttons(answer):
            return answer

        def fresh() -> Message | None:
            return next(
                (m for m in person.sees() if m["ts"] not in before and m.get("ephemeral_for", person.who.slack) == person.who.slack), None
            )

        found: Message = await self._channel.until(f"an answer to {command}", fresh, 15)
        return found

    async def _retrain(self, command: str, *, twice: bool = False) -> int:
        """Start a training run as Ada and return its number, once its card shows."""
        known = {run["id"] for run in self._here.azure.runs()}
        offer = await self._offer(self._ada, command)
        must("retrain_start" in buttons(offer), f"{command} is confirmed before anything starts: {words(offer)}")
        await self._ada.clicks(offer, "retrain_start")
        if twice:
            await self._press_again(offer)
            must({run["id"] for run in self._here.azure.runs()} == known, "nothing starts under nobody's name")
            await self._sign_in(self._ada)
        run = await self._next_run(known)
        await self._channel.until(f"a card for run {run}", lambda: self._channel.card(run), 30)
        return run

    async def _sign_in(self, person: Person, account: Character | None = None, button: str = "Link them") -> str:
        """Follow the private Sign in button all the way; what the last page says."""
        link: str = await self._channel.until(f"a Sign in button for {person.who.name}", lambda: sign_in_link(person), 15)
        async with Browser(self._here.world) as browser:
            page = await browser.signs_in(link, account or person.who)
            must("Are both of these you?" in page.text, f"both names are shown and asked about: {page.text}")
            must(person.who.name in page.text, f"the Slack name: {page.text}")
            said = (await browser.presses(page, button)).text
            again = await browser.signs_in(link, account or person.who)
            must("used before" in again.text, f"the link works once: {again.text}")
            must(button != "Link them" or "You are signed in" in said, f"the page says so: {said}")
        return said

    async def _press_again(self, offer: Message) -> None:
        try:
            await self._ada.clicks(offer, "retrain_start")
        except LookupError:
            return  # the offer is already gone, which is as good

    async def _next_run(self, known: set[int], seconds: float = 30) -> int:
        def new_ones() -> list[int]:
            return [r["id"] for r in self._here.azure.runs() if r["id"] not in known]

        await until(self._here, "a new run", new_ones, seconds)
        new = new_ones()
        must(len(new) == 1, f"one run was started, not {len(new)}")
        return int(new[0])

    async def _first_model(self) -> int:
        async with self._clock.step(f"Ada types /retrain diabetes {WEAK}, presses Start twice, signs in: one run and one card in her name"):
            run = await self._retrain(f"/retrain diabetes {WEAK}", twice=True)
        async with self._clock.step("The card follows nine stages; QA is deployed by itself"):
            await self._until_prod_asks(run)
            asked = self._here.azure.run(run)
            must(asked["requestedFor"]["id"] == ADA.oid, f"Azure DevOps knows who asked: {asked['requestedFor']['displayName']}")
            stages = self._channel.stages(run)
            must(len(stages) == STAGES, f"the card has nine stages: {stages}")
            must(list(stages.values())[:8] == ["complete"] * 8, f"eight of them are complete: {stages}")
            must(len(self._here.azure.runs()) == 1, "pressing Start twice started one run")
        async with self._clock.step("The thread has the comparison table with its verdict, and a chart"):
            table = await self._channel.until("a comparison table", lambda: self._channel.thread(run, lambda m: blocks(m, "table")), 15)
            must("PASS" in words(table), f"the verdict is stated: {words(table)[:200]}")
            must("PASS" in table["text"], f"and in the text that stands alone: {table['text']}")
            await self._channel.until("a chart", lambda: self._channel.thread(run, lambda m: m.get("files")), 15)
        async with self._clock.step("QA is a real process: it passed its smoke test, is healthy, and refuses a stranger"):
            qa = self._artifact(run, "qa", "qa.json")
            must(qa["passed"] and qa["target"] == "aci" and qa["checked"] > 0, f"the smoke test passed: {qa}")
            image = self._artifact(run, "delivery", "image.json")
            must(qa["digest"] == image["digest"], "QA runs the digest that was built")
            async with aiohttp.ClientSession() as session:
                async with session.get(str(URL(qa["endpoint"]).with_path("/ping"))) as answer:
                    must(answer.status == 200, f"QA is healthy: {answer.status}")
                async with session.post(qa["endpoint"], json={}) as answer:
                    must(answer.status == 401, f"QA asks for its key: {answer.status}")
        return run

    async def _until_prod_asks(self, run: int, seconds: float = 120) -> Message:
        def asks() -> Message | None:
            must(self._here.azure.run(run).get("result") != "failed", f"run {run} failed: {self._why(run)}")
            prod = self._channel.prod(run)
            return prod if prod and "approve" in buttons(prod) else None

        found: Message = await self._channel.until(f"Prod asks about run {run}", asks, seconds)
        return found

    def _why(self, run: int) -> str:
        reason = self._channel.thread(run, lambda m: "log" in words(m).lower())
        return words(reason) if reason else json.dumps(self._channel.stages(run))

    def _artifact(self, run: int, name: str, file: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self._here.azure.project.places.artifacts(run) / name / file).read_text())
        return found

    async def _approve_in_slack(self, run: int) -> None:
        prod = copy.deepcopy(self._channel.prod(run))
        assert prod is not None
        for person, why in ((self._ada, "asked for this run"), (self._alan, "may not"), (self._guest, "guest")):
            async with self._clock.step(f"{person.who.name} presses Approve and is refused: {why}"):
                refusal = await self._press_and_read(person, prod, "approve")
                must(why in refusal.lower(), f"the reason is said: {refusal}")
                must("approve" in buttons(self._channel.prod(run) or {}), "and nothing changed")
        async with self._clock.step("Grace presses Approve and signs in: the dialog goes on by itself, with the facts"):
            await self._grace.clicks(prod, "approve")
            await self._sign_in(self._grace)
            view = await self._channel.until("the form", lambda: (v := self._grace.modal()) and v.get("submit") and v, 15)
            must("sha256:" in json.dumps(view), "the modal repeats the digest")
            sent = await self._grace.fills(view, {"reason": "  "})
            must("reason" in sent.errors, f"an inline error at the reason: {sent}")
        async with self._clock.step("Grace gives a reason and approves: the buttons go, the card says who, when and why"):
            sent = await self._grace.fills(self._grace.modal(), {"reason": "Better than nothing <b>& checked</b>"})
            must(sent.accepted, f"the modal is taken: {sent}")
            decided = await self._until_decided(run)
            must("Grace Hopper" in words(decided) or GRACE.slack in words(decided), f"the card names her: {words(decided)}")
            must("&amp; checked" in json.dumps(decided, ensure_ascii=False), "and her reason, escaped")
            await self._on_record(run, GRACE, "Better than nothing <b>& checked</b>")
        async with self._clock.step("An old copy's button changes nothing: it says that this was decided"):
            answer = await self._press_and_read(self._grace, prod, "approve", stale=True)
            must("decided" in answer.lower() or "approved" in answer.lower(), f"it says who decided: {answer}")

    async def _on_record(self, run: int, who: Character, reason: str) -> None:
        """Azure DevOps names the person, with the reason and a link to the message; its page shows it."""
        steps = [step for approval in self._here.azure.run(run)["approvals"] for step in approval["steps"] if "actualApprover" in step]
        must([step["actualApprover"]["id"] for step in steps] == [who.oid], f"{who.name} is on record: {steps}")
        comment = steps[0]["comment"]
        must(reason in comment and f"https://contoso.slack.com/archives/{CHANNEL}" in comment, f"why, and where: {comment}")
        address = f"{self._here.world.page_url}/dev.azure.com/contoso/ml-delivery/_build/results?buildId={run}"
        async with aiohttp.ClientSession() as session, session.get(address) as answer:
            must(who.name in await answer.text(), f"the page of the run shows {who.name}")

    async def _press_and_read(self, person: Person, message: Message, action: str, *, stale: bool = False) -> str:
        """Press a button that opens a modal or whispers (of the message as it looked, if `stale`); return what the person then reads."""
        before = {m["ts"] for m in person.sees()}
        if stale:
            block = next(iter(blocks(message, "actions")))
            place = {"channel": CHANNEL, "ts": message["ts"]}
            await self._here.slack.client.press(person.who.slack, place, block["block_id"], action, copy=message)
        else:
            await person.clicks(message, action)

        def read() -> str | None:
            view = person.modal()
            if view and not view.get("submit") and LOADING not in json.dumps(view, ensure_ascii=False):
                return "\n".join(_strings(view["blocks"]))
            own = [m for m in person.sees() if m["ts"] not in before]
            return words(own[-1]) if own and not view else None

        text: str = await self._channel.until(f"an answer for {person.who.name}", read, 15)
        await person.closes()
        return text

    async def _open(self, person: Person, message: Message, action: str) -> dict[str, Any]:
        """Press a button and return the modal once it has its form."""
        await person.clicks(message, action)
        view: dict[str, Any] = await self._channel.until("a modal with a form", lambda: (v := person.modal()) and v.get("submit") and v, 15)
        return view

    async def _until_decided(self, run: int, seconds: float = 30) -> Message:
        def decided() -> Message | None:
            prod = self._channel.prod(run)
            return prod if prod and not buttons(prod) & {"approve", "reject"} else None

        found: Message = await self._channel.until(f"the Prod message of run {run} has no buttons", decided, seconds)
        return found

    async def _prod_serves(self, run: int, version: str) -> None:
        async with self._clock.step("Prod is deployed on AKS and the card ends green"):
            await self._channel.until("nine complete stages", lambda: list(self._channel.stages(run).values()) == ["complete"] * STAGES, 90)
        async with self._clock.step("Prod's answer equals the registered model's own prediction"):
            await self._equal(version)
        async with self._clock.step(f"The champion tag is on version {version}"):
            must(self._here.ml.champion("diabetes") == version, f"champion: {self._here.ml.champion('diabetes')}")

    async def _equal(self, version: str) -> None:
        """Ask Prod and the registered model the same, in a process with the real SDK."""
        probe = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sandbox.probe",
            "diabetes",
            version,
            "diabetes",
            cwd=self._here.world.root,
            env=self._here.world.outside(BOT),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, trouble = await probe.communicate()
        must(probe.returncode == 0, f"Prod answers: {trouble.decode()[-2000:]}")
        answers = json.loads(output.decode().splitlines()[-1])
        pairs = list(zip(answers["prod"], answers["registered"], strict=True))
        must(pairs and all(abs(served - own) < 1e-6 for served, own in pairs), f"the predictions are equal: {pairs}")

    async def _breaks_in_training(self) -> int:
        here = self._here
        here.world.faults.arm("aml.preempt")
        here.world.faults.arm("hooks.duplicate", 6)
        async with self._clock.step("A training node goes away: the thread says the true reason; hooks came twice"):
            run = await self._retrain("/retrain diabetes")
            failure = await self._channel.until("a failure card", lambda: self._channel.thread(run, _retries), 90)
            said = words(failure)
            must("preempted" in said, f"the true reason: {said}")
            must("Train" in said, f"and the stage: {said}")
            must(not here.world.faults.armed("hooks.duplicate"), "six hooks were delivered twice")
        async with self._clock.step("Retry failed stage: the run goes on; hooks arrive in the wrong order"):
            here.world.faults.arm("hooks.shuffle", 6)
            await self._ada.clicks(failure, "retry_stage")
            await until(here, "the run goes on", lambda: here.azure.run(run)["status"] != "completed", 20)
        async with self._clock.step("The bot is killed in the middle of the run and started again: the card ends right, nothing twice"):

            def trains_again() -> bool:
                card = self._channel.card(run)
                return card is not None and "attempt 2" in words(card) and self._channel.stages(run)["train"] == "in_progress"

            await self._channel.until("the second attempt trains", trains_again, 60)
            await here.bot.kill()
            await until(here, "the models are evaluated", lambda: _stage(here.azure.run(run), "evaluate") == "completed", 90)
            await here.bot.start()
            await self._until_prod_asks(run)
            must(self._channel.thread(run, lambda m: blocks(m, "table")), "one comparison table")
            must(len(self._channel.stages(run)) == STAGES, "one card of nine stages")
            must(not here.world.faults.armed("hooks.shuffle"), "six hooks were delivered in reverse")
        return run

    async def _reject(self, run: int) -> None:
        prod = self._channel.prod(run)
        assert prod is not None
        async with self._clock.step("The Prod message compares with the champion; Grace rejects with a reason, and the run ends rejected"):
            must("champion" in words(prod).lower(), f"the change against the champion: {words(prod)}")
            view = await self._open(self._grace, prod, "reject")
            must("reason" in (await self._grace.fills(view, {"reason": ""})).errors, "a reason is required")
            must((await self._grace.fills(self._grace.modal(), {"reason": "Not before the audit"})).accepted, "the rejection is taken")
            decided = await self._until_decided(run)
            must("Not before the audit" in words(decided), f"the card says why: {words(decided)}")
            await ended(self._here, run)
            must(self._here.ml.champion("diabetes") == "1", "the champion is as it was")

    async def _champion_kept(self) -> None:
        async with self._clock.step("Candidates that lose: champion kept, the run is green, nothing registered, nobody asked"):
            versions = len(self._here.ml.versions("diabetes"))
            run = await self._retrain(f"/retrain diabetes {LOSING}")
            run_now = await ended(self._here, run)
            must(run_now["result"] == "succeeded", f"green: {run_now['result']}")

            def kept() -> object:
                card = self._channel.card(run)
                return card and "kept" in words(card).lower()

            await self._channel.until("the card says that the champion was kept", kept, 30)
            table = await self._channel.until("a table", lambda: self._channel.thread(run, lambda m: blocks(m, "table")), 15)
            must("KEPT" in words(table), f"the verdict: {words(table)[:200]}")
            must(len(self._here.ml.versions("diabetes")) == versions, "nothing was registered")
            must(self._channel.prod(run) is None, "nobody was asked")

    async def _merge_to_main(self) -> int:
        here = self._here
        async with self._clock.step("Two of three shall approve; a merge to main starts CI by itself; its card names the committer"):
            here.azure.protect("prod", [GRACE, KATHERINE, RADIA], minimum=2)
            known = {run["id"] for run in here.azure.runs()}
            settings = (here.world.root / "callboard.toml").read_text()
            await here.azure.merge(ALAN, "Penalise ridge less", {"callboard.toml": improved(settings)})
            run = await self._next_run(known)
            card = await self._channel.until("a card", lambda: self._channel.card(run), 30)
            must("Alan Turing" in words(card), f"the card names who merged: {words(card)}")
            await self._until_prod_asks(run)
        return run

    async def _approve_in_azure_devops(self, run: int) -> None:
        here = self._here
        async with self._clock.step("Grace approves in Slack: one of two, and Prod still waits"):
            prod = await self._until_prod_asks(run)
            view = await self._open(self._grace, prod, "approve")
            must((await self._grace.fills(view, {"reason": "Fits the plan"})).accepted, "her answer is taken")

            def one_of_two() -> bool:
                asks = self._channel.prod(run)
                return asks is not None and "1 of 2 have agreed: Grace Hopper" in words(asks) and "approve" in buttons(asks)

            await self._channel.until("the card says that one of two has agreed", one_of_two, 30)
        async with self._clock.step("Every hook is lost; Alan may not approve in Azure DevOps, Katherine does: the message follows"):
            here.world.faults.arm("hooks.drop", -1)
            approval = next(a["id"] for a in here.azure.run(run)["approvals"] if a["status"] == "pending")
            try:
                here.azure.approve_as(ALAN, approval, "approved", "me too")
                raise Broken("Azure DevOps refuses who is no approver")
            except Denied:
                pass
            here.azure.approve_as(KATHERINE, approval, "approved", "Seen on the run's page")
            decided = await self._until_decided(run, 60)
            must("Katherine Johnson" in words(decided) and "Seen on the run" in words(decided), f"who and why: {words(decided)}")
        await self._prod_serves(run, version="3")
        here.world.faults.arm("hooks.drop", 0)

    async def _commands(self) -> None:
        expected = {
            "/mlops help": "/retrain",
            "/mlops models": "champion",
            "/mlops runs diabetes": "20",
            "/mlops status": "diabetes",
            "/approve": "nothing waits",
            "/retrain nonsense": "diabetes",
            "/retrain diabetes depth=a lots=1": "depth",
            "/promote diabetes 99": "3",
            "/mlops dance": "help",
        }
        async with self._clock.step(f"{len(expected)} other commands answer, each only to who typed it"):
            for command, part in expected.items():
                answer = await self._offer(self._grace, command)
                must(part.lower() in words(answer).lower(), f"{command}: {words(answer)}")
        async with self._clock.step(
            "/retrain without arguments opens a form; a wrong value is said beside its field; closing it starts nothing"
        ):
            runs = len(self._here.azure.runs())
            await self._ada.types("/retrain")
            view = await self._channel.until("a form", lambda: (v := self._ada.modal()) and v.get("submit") and v, 15)
            field = next(block["block_id"] for block in view["blocks"] if "alpha" in block.get("block_id", ""))
            sent = await self._ada.fills(view, {field: "much"})
            must(field in sent.errors, f"an inline error: {sent}")
            await self._ada.closes()
            must(len(self._here.azure.runs()) == runs, "nothing started")

    async def _refusals(self) -> None:
        here = self._here
        assert here.world.proxy is not None
        proxy, trust = f"http://127.0.0.1:{here.world.proxy.port}", ssl.create_default_context(cafile=str(here.world.authority.ca))
        async with self._clock.step("The sandbox refuses what the real services refuse"):
            wide = {"type": "table", "rows": [[{"type": "raw_text", "text": "x"}] * 21]}
            bot = AsyncWebClient(token=here.slack.bot_token, proxy=proxy, ssl=trust)
            stranger = AsyncWebClient(token="xoxb-nobody", proxy=proxy, ssl=trust)
            said = [
                await _slack_error(stranger.auth_test()),
                await _slack_error(bot.reactions_add(channel=CHANNEL, name="eyes", timestamp="1.0")),
                await _slack_error(bot.chat_postMessage(channel=CHANNEL, text="wide", blocks=[wide])),
            ]
            must(said[0].startswith("invalid_auth"), f"an unknown token: {said[0]}")
            must(said[1].startswith("missing_scope"), f"a missing scope: {said[1]}")
            must(said[2].startswith("invalid_blocks"), f"21 columns: {said[2]}")
            async with aiohttp.ClientSession() as session:
                try:
                    await session.get("https://example.com", proxy=proxy)
                    raise Broken("the proxy lets nobody through to a third party")
                except aiohttp.ClientHttpProxyError as refusal:
                    said.append(f"{refusal.status} {refusal.message}")
                async with session.get(
                    "https://dev.azure.com/contoso/_apis/projects", proxy=proxy, ssl=trust, headers={"Authorization": "Bearer x"}
                ) as answer:
                    must(answer.status == 401, f"an unknown token at Azure DevOps: {answer.status}")
                    said.append(f"{answer.status} {answer.reason}")
            print("      " + "; ".join(said))

    async def _ending(self) -> None:
        here = self._here
        async with self._clock.step(
            "Every run has one card in its final state; nobody tried to leave the machine; the bot ends in good order"
        ):
            for run in here.azure.runs():
                must(self._channel.card(run["id"]), f"run {run['id']} has a card")
                must(run["status"] == "completed", f"run {run['id']} has ended")
                await self._channel.until(f"the card of run {run['id']} says how it ended", partial(self._says_how_it_ended, run), 20)
            must(
                here.world.proxy is not None and here.world.proxy.refused == ["CONNECT example.com:443"],
                f"refused: {here.world.proxy and here.world.proxy.refused}",
            )
            code = await here.bot.stop()
            must(code == 0, f"the bot's exit code is 0, not {code}")

    def _says_how_it_ended(self, run: dict[str, Any]) -> bool:
        """Whether the header and the stages of the run's card agree with Azure DevOps."""
        card = self._channel.card(run["id"])
        ends = ("succeeded", "kept the champion") if run["result"] == "succeeded" else ("was rejected",)
        said = blocks(card, "header")[0]["text"]["text"] if card else ""
        return (
            any(said.endswith(end) or f"{end} at" in said for end in ends) and "in_progress" not in self._channel.stages(run["id"]).values()
        )


def improved(settings: str) -> str:
    """`callboard.toml` with candidates that do better: what a data scientist would merge."""
    better = settings.replace("ridge = { alpha = 100.0 }", "ridge = { alpha = 1.0 }")
    must(better != settings, "callboard.toml holds the candidates that the story changes")
    return better


def sign_in_link(person: Person) -> str | None:
    """Where the newest Sign in button that only this person sees leads."""
    shown = [*person.sees(), *([view] if (view := person.modal()) else [])]
    links = [
        element["url"]
        for message in shown
        for block in message.get("blocks", [])
        for element in block.get("elements", [])
        if element.get("action_id") == "open_signin"
    ]
    return links[-1] if links else None


def _retries(message: Message) -> bool:
    return "retry_stage" in buttons(message)


def _stage(run: dict[str, Any], name: str) -> str:
    stages = [one for one in run["timeline"]["records"] if one["type"] == "Stage" and one["identifier"] == name]
    return str(stages[0]["state"]) if stages else ""


async def ended(here: Town, run: int, seconds: float = 90) -> dict[str, Any]:
    """The run, once Azure DevOps says that it has completed."""
    await until(here, f"run {run} ends", lambda: here.azure.run(run)["status"] == "completed", seconds)
    return here.azure.run(run)


async def until(here: Town, what: str, holds: Callable[[], object], seconds: float) -> None:
    """Wait for something to be so in Azure DevOps. Raises Broken with `what`."""
    try:
        await here.azure.wait_for(lambda: bool(holds()), seconds)
    except TimeoutError:
        raise Broken(f"not within {seconds:.0f} s: {what}") from None


async def _slack_error(call: Awaitable[object]) -> str:
    try:
        await call
    except SlackApiError as error:
        more = error.response.get("needed") or "; ".join(error.response.get("response_metadata", {}).get("messages", []))
        return f"{error.response['error']} ({more})" if more else str(error.response["error"])
    return "no error"


async def story(folder: Path, told: Callable[[Town, Clock], Story]) -> int:
    """Play what is told in this folder; returns the exit code."""
    clock = Clock()
    logging.getLogger("sandbox.proxy").setLevel(logging.ERROR)  # the story provokes a refusal, and shows it
    print("Callboard's story, in the sandbox:", flush=True)
    try:
        async with town(folder) as here:
            try:
                await told(here, clock).tell()
            except Exception:
                print(f"\n--- the end of {here.bot.log}\n{here.bot.tail()}", flush=True)
                raise
    except (Broken, NotReadyError) as broken:
        print(f"\nThe story ends here: {broken}")
        return 1
    left = processes(folder)
    if left:
        print(f"\nProcesses were left behind: {left}")
        return 1
    print(f"\nAll {clock.steps} steps, {time.monotonic() - clock.began:.0f} s. No process is left.")
    return 0


def processes(folder: Path) -> list[str]:
    """The processes that have this folder in their command line or their working directory, besides us."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            where = str((entry / "cwd").readlink())
        except OSError:
            continue
        ours = int(entry.name) in {os.getpid(), os.getppid()}
        if not ours and (str(folder.resolve()) in line or where.startswith(str(folder.resolve()))):
            found.append(f"{entry.name} {line[:120]}")
    return found
