"""`make pictures`: a shortened story, played on the pages with clicks and keys, and a picture of everything a person sees."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sandbox.browser import chromium, looking
from sandbox.launch import NotReadyError
from sandbox.names import ADA, GRACE, ORGANIZATION, PROJECT, Character
from sandbox.story import LOSING, WEAK
from sandbox.town import Town, town

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page

WIDTH, HEIGHT = 1500, 920
PATIENCE = 120_000  # milliseconds for a run to come to where the next picture is
README = "channel.png"


class Camera:
    """A person at the Slack page, and the folder their pictures go to."""

    def __init__(self, here: Town, page: Page, folder: Path) -> None:
        self._here = here
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.page = page

    async def go(self, path: str) -> None:
        """Open one of the sandbox's pages."""
        await self.page.goto(f"{self._here.world.page_url}/{path}")

    async def channel(self) -> None:
        """Open the team's channel."""
        await self.go("slack/")
        await self.page.locator("#composer-text").wait_for()

    async def be(self, who: Character) -> None:
        """Switch to somebody."""
        await self.page.click("#switch")
        await self.page.click(f'[data-user="{who.slack}"]')
        await self.page.locator("#switch", has_text=who.name).wait_for()

    async def types(self, text: str) -> None:
        """Type into the channel and press Enter."""
        await self.page.fill("#composer-text", "")
        await self.page.click("#composer-text")
        await self.page.keyboard.type(f"{text} ")
        await self.page.keyboard.press("Enter")

    def last(self, text: str) -> Locator:
        """The newest message in the channel that has this text."""
        return self.page.locator("#messages .message").filter(has_text=text).last

    async def retrain(self, command: str, *, signing_in: Character | None = None) -> int:
        """Start a training as one does, and return the number of its run."""
        known = {run["id"] for run in self._here.azure.runs()}
        await self.types(command)
        await self.last("Only visible to you").get_by_role("button", name="Start").click()
        if signing_in is not None:
            asked = self.last("Only visible to you").get_by_role("link", name="Sign in")
            await asked.wait_for()
            await self.picture("signin-asked")
            await self.sign_in(asked, signing_in)
        await self._here.azure.wait_for(lambda: any(run["id"] not in known for run in self._here.azure.runs()), 30)
        run = next(run for run in self._here.azure.runs() if run["id"] not in known)
        await self.card(run["buildNumber"]).wait_for(timeout=PATIENCE)
        return int(run["id"])

    async def sign_in(self, button: Locator, who: Character, *, pictures: bool = True) -> None:
        """Sign in to Entra in the page that the button opens, and link the two accounts."""
        async with self.page.context.expect_page() as opened:
            await button.click()
        entra = await opened.value
        steps = (("signin-pick", who.name), ("signin-consent", "Accept"), ("signin-link", "Link them"))
        for name, press in steps:
            pressed = entra.get_by_role("button", name=press)
            await pressed.wait_for()
            if pictures:
                await self.picture(name, page=entra)
            await pressed.click()
        await entra.get_by_role("heading", name="You are signed in").wait_for()
        if pictures:
            await self.picture("signin-done", page=entra)
        await entra.close()

    def card(self, number: str) -> Locator:
        """The living card of a run."""
        return self.page.locator("#messages .message").filter(has=self.page.locator(".plan")).filter(has_text=f"run {number} ")

    async def thread_of(self, message: Locator) -> Locator:
        """Open the message's thread."""
        await message.locator(".replies").click()
        thread = self.page.locator("#thread")
        await thread.wait_for()
        return thread

    async def picture(self, name: str, *, of: Locator | None = None, page: Page | None = None) -> None:
        """Save what is seen, or one part of it, or another page."""
        path, page = self._folder / f"{name}.png", page or self.page
        await page.wait_for_timeout(400)  # what moves comes to rest
        if of is None:
            await page.screenshot(path=path)
        else:
            await of.screenshot(path=path)
        print(f"  {path}", flush=True)


async def pictures(folder: Path) -> int:
    """Play and take the pictures; returns the exit code."""
    executable = chromium()
    if executable is None:
        print("No Chromium found; set CHROMIUM to one.")
        return 1
    with TemporaryDirectory(prefix="callboard-pictures-", ignore_cleanup_errors=True) as memory:
        try:
            async with town(Path(memory)) as here, looking(executable, width=WIDTH, height=HEIGHT) as page:
                await here.bot.start()
                await here.bot.command("hooks", "apply")
                await _play(here, Camera(here, page, folder))
            async with town(Path(memory)) as here:  # the same world, seen by others
                await _look_again(here, executable, folder)
        except NotReadyError as trouble:
            print(f"No pictures: {trouble}")
            return 1
    return 0


async def _play(here: Town, camera: Camera) -> None:
    await camera.channel()
    await camera.picture("empty")
    await _ask_privately(camera)
    first = await _first_model(here, camera)
    await _decide(here, camera, first)
    await _second_model(here, camera)
    await _fail(here, camera)
    await _keep(here, camera)
    await _elsewhere(camera)


async def _ask_privately(camera: Camera) -> None:
    page = camera.page
    await page.click("#composer-text")
    await page.keyboard.type("/")
    await camera.picture("commands")
    await camera.types("/mlops help")
    await camera.last("What you can say").wait_for()
    await camera.picture("help")
    await camera.types("/retrain")
    form = page.get_by_role("dialog")
    await form.get_by_label("alpha").fill("much")
    await form.get_by_role("button", name="Start").click()
    await form.locator(".wrong").first.wait_for()
    await camera.picture("form")
    await form.get_by_role("button", name="Cancel").click()
    await camera.types("/retrain nonsense")
    await camera.last("There is no model").wait_for()


async def _first_model(here: Town, camera: Camera) -> int:
    run = await camera.retrain(f"/retrain diabetes {WEAK}", signing_in=ADA)
    card = camera.card(here.azure.run(run)["buildNumber"])
    await card.locator(".task-in_progress", has_text="Train").wait_for(timeout=PATIENCE)
    await camera.picture("running")
    await _waits(camera)
    await camera.picture("prod-first")
    return run


async def _waits(camera: Camera) -> Locator:
    prod = camera.page.locator("#messages .message").filter(has=camera.page.get_by_role("button", name="Approve")).last
    await prod.wait_for(timeout=PATIENCE)
    return prod


async def _decide(here: Town, camera: Camera, run: int) -> None:
    page, prod = camera.page, await _waits(camera)
    dialog = page.get_by_role("dialog")
    await prod.get_by_role("button", name="Approve").click()
    await dialog.get_by_text("asked for").first.wait_for()
    await camera.picture("refused")
    await dialog.get_by_role("button", name="Close").last.click()
    await camera.be(GRACE)
    prod = await _waits(camera)
    await prod.get_by_role("button", name="Approve").click()
    await camera.sign_in(dialog.get_by_role("link", name="Sign in"), GRACE, pictures=False)
    await dialog.get_by_label("Reason").wait_for()
    await dialog.get_by_role("button", name="Approve").click()
    await dialog.locator(".wrong").wait_for()
    await camera.picture("approve")
    await dialog.get_by_label("Reason").fill("QA answers as the model does; the first one we serve")
    await dialog.get_by_role("button", name="Approve").click()
    await camera.card(here.azure.run(run)["buildNumber"]).get_by_role("heading", name="succeeded").wait_for(timeout=PATIENCE)
    await camera.last("Approved").wait_for()
    await camera.picture("decided")
    await camera.be(ADA)


async def _second_model(here: Town, camera: Camera) -> None:
    run = await camera.retrain("/retrain diabetes")
    prod = await _waits(camera)
    await camera.last("Deploy").get_by_text("Prod serves now").wait_for(timeout=PATIENCE)
    card = camera.card(here.azure.run(run)["buildNumber"])
    thread = await camera.thread_of(card)
    await thread.locator("img").first.wait_for(timeout=PATIENCE)
    table = thread.locator("table")
    await table.wait_for()
    await camera.picture("prod", of=prod)
    await camera.page.set_viewport_size({"width": WIDTH, "height": 1800})
    await camera.picture("thread", of=thread)
    await camera.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    await (
        camera.page.locator("#thread .message")
        .filter(has=camera.page.locator("table"))
        .evaluate("node => node.scrollIntoView({block: 'start'})")
    )
    await prod.scroll_into_view_if_needed()
    await camera.picture(README.removesuffix(".png"))
    await camera.page.get_by_role("button", name="Close thread").click()


async def _fail(here: Town, camera: Camera) -> None:
    here.world.faults.arm("aml.preempt")
    run = await camera.retrain("/retrain diabetes alpha=2")
    card = camera.card(here.azure.run(run)["buildNumber"])
    await card.get_by_role("heading", name="failed").wait_for(timeout=PATIENCE)
    thread = await camera.thread_of(card)
    await thread.get_by_role("button", name="Retry failed stage").wait_for(timeout=PATIENCE)
    await camera.picture("failed")
    await thread.get_by_role("button", name="Retry failed stage").click()
    await camera.page.get_by_role("dialog").wait_for()
    await camera.picture("retry")
    await camera.page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    await camera.page.get_by_role("button", name="Close thread").click()


async def _keep(here: Town, camera: Camera) -> None:
    run = await camera.retrain(f"/retrain diabetes {LOSING}")
    card = camera.card(here.azure.run(run)["buildNumber"])
    await card.get_by_role("heading", name="kept").wait_for(timeout=PATIENCE)
    thread = await camera.thread_of(card)
    await thread.locator("table").wait_for(timeout=PATIENCE)
    await thread.locator("img").first.wait_for(timeout=PATIENCE)
    await camera.picture("kept")
    await camera.page.get_by_role("button", name="Close thread").click()
    for command in ("models", "models diabetes", "runs", "status"):
        await camera.types(f"/mlops {command}")
        await camera.page.wait_for_timeout(2_000)
    await camera.page.set_viewport_size({"width": WIDTH, "height": 1800})
    await camera.picture("lists")
    await camera.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    await camera.types("/approve")
    await camera.page.wait_for_timeout(2_000)
    await camera.picture("pending")


async def _elsewhere(camera: Camera) -> None:
    """Azure DevOps and Azure ML."""
    page, home = camera.page, f"dev.azure.com/{ORGANIZATION}/{PROJECT}/_build"
    await camera.go(home)
    await camera.picture("azure-runs")
    await camera.go(f"{home}/results?buildId=2")
    await camera.picture("azure-run")
    await camera.go(f"{home}/results?buildId=3&view=logs")
    await camera.picture("azure-log")
    await camera.go("ml.azure.com/")
    await camera.picture("ml")
    await page.get_by_role("link", name="diabetes", exact=True).first.click()
    await camera.picture("ml-model")


async def _look_again(here: Town, executable: str, folder: Path) -> None:
    """The same channel in the dark and on a phone, and what is said while the bot is away."""
    for name, width, dark in (("dark", WIDTH, True), ("narrow", 420, False)):
        async with looking(executable, width=width, height=HEIGHT, dark=dark) as page:
            camera = Camera(here, page, folder)
            await camera.channel()
            await camera.page.locator(".replies").first.wait_for()
            await camera.picture(f"{name}-channel")
            await camera.thread_of(camera.page.locator("#messages .message").filter(has=camera.page.locator(".replies")).last)
            await page.locator("#thread img").first.wait_for()
            await camera.picture(f"{name}-thread")
            await camera.go(f"dev.azure.com/{ORGANIZATION}/{PROJECT}/_build/results?buildId=2")
            await camera.picture(f"{name}-azure-run")
            if not dark:
                continue
            await camera.channel()
            await camera.types("/mlops status")
            await page.wait_for_timeout(4_000)
            await camera.picture("bot-away")
