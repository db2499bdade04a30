"""The pages of the local Azure DevOps: what people see, whom they act as, and what the pages refuse."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from sandbox.azure_devops import show
from sandbox.azure_devops.agent import JobOutcome, Space, Watch
from sandbox.azure_devops.plan import Plan, PlanJob, PlanStage, PlanStep, Result
from sandbox.azure_devops.server import AzureDevOps
from sandbox.names import ADA, ALAN, GRACE, KATHERINE, RADIA, RELEASE_MANAGERS, Character
from sandbox.world import World
from tests.browser import browsing

pytestmark = pytest.mark.world

SETTINGS = "[models.diabetes.candidates]\nridge = { alpha = 10.0 }\nforest = { trees = 60, depth = 5 }\n"
YAML = "parameters:\n- {name: action, displayName: What to do, type: string, default: train, values: [train, promote]}\n"
PLAN = Plan(
    "$(Date:yyyyMMdd)$(Rev:.r)",
    (
        PlanStage("train", "Train", (PlanJob("train", "Train <all>", (PlanStep("script", "Fit & score"),)),)),
        PlanStage("prod", "Prod - Deploy on AKS", (PlanJob("release", "Release", (), environment="prod"),), ("train",)),
    ),
    {"action": "train"},
    branches=("main",),
    paths=("callboard.toml",),
)


async def work(job: PlanJob, space: Space, watch: Watch) -> JobOutcome:
    """An agent whose logs try to be more than text."""
    if job.name == "train":
        watch.step_started(0)
        watch.line(0, "2026-09-13T12:00:00.0000000Z <script>document.title = 'mine'</script>")
        watch.line(0, "2026-09-13T12:00:01.0000000Z ##[error]\x1b[31mno such column\x1b[0m")
        (space.artifacts / "evaluation").mkdir(exist_ok=True)
        (space.artifacts / "evaluation" / "page.html").write_text("<script>alert(1)</script>")
        watch.artifact("evaluation", space.artifacts / "evaluation", "PipelineArtifact")
        watch.step_finished(0, Result.SUCCEEDED)
    return JobOutcome(Result.SUCCEEDED, {})


@dataclass
class Site:
    """The pages, and a browser without a face."""

    world: World
    azure: AzureDevOps
    session: aiohttp.ClientSession

    @property
    def home(self) -> str:
        return f"{self.world.page_url}/dev.azure.com/contoso/ml-delivery"

    async def see(self, path: str) -> str:
        async with self.session.get(self.home + path) as answer:
            assert answer.status == 200, path
            return await answer.text()

    async def post(
        self, path: str, form: Mapping[str, str] | list[tuple[str, str]], *, origin: str | None = None, host: str | None = None
    ) -> tuple[int, str]:
        headers = {"Origin": origin or self.world.page_url} | ({"Host": host} if host else {})
        async with self.session.post(self.home + path, data=form, headers=headers) as answer:
            return answer.status, await answer.text()

    async def become(self, who: Character) -> None:
        status, _ = await self.post("/_person", {"person": who.oid, "back": "/dev.azure.com/contoso/ml-delivery/_build"})
        assert status == 200

    async def waiting(self) -> tuple[int, str]:
        """A run that waits for approval, and the approval."""
        run = await self.azure.queue(ADA)
        await self.azure.wait_for(lambda: any(one["status"] == "pending" for one in self.azure.run(run)["approvals"]), 8)
        return run, self.azure.run(run)["approvals"][0]["id"]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    root = tmp_path / "tree"
    (root / "deploy" / "pipelines").mkdir(parents=True)
    (root / "deploy" / "pipelines" / "azure-pipelines.yml").write_text(YAML)
    (root / "callboard.toml").write_text(SETTINGS)
    world = World(tmp_path / "world", root=root)
    azure = AzureDevOps(world, run_job=work, compile=lambda *_: PLAN)
    azure.project.hooks.pace = azure.project.hooks.latency = 0.001
    await world.start([azure])
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield Site(world, azure, session)
    await world.stop()


async def test_every_page_shows_itself_and_allows_nothing_from_elsewhere(site: Site) -> None:
    run, _ = await site.waiting()
    sha = site.azure.run(run)["sourceVersion"]
    pages = {
        "/_build": "Train, evaluate and deliver",
        f"/_build/results?buildId={run}": "waits for an approval of",
        f"/_build/results?buildId={run}&view=logs": "no such column",
        f"/_build/results?buildId={run}&view=artifacts": "page.html",
        "/_build/run": "What to do",
        "/_git/ml-delivery": "Merge a change to main",
        f"/_git/ml-delivery/commit/{sha}": "callboard.toml",
        "/_environments": "Azure Kubernetes Service",
        "/_environments/2": "1 of 3 must approve",
        "/_settings/serviceHooks": "Nobody is subscribed",
    }

    seen = {path: await site.see(path) for path in pages}
    async with site.session.get(f"{site.home}/_build") as answer:
        policy = answer.headers["Content-Security-Policy"]

    assert [path for path, says in pages.items() if says not in seen[path]] == []
    assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'")
    assert not any(re.search(r"<script(?! src)|\son\w+=|style=", text) for text in seen.values())


async def test_what_a_log_says_stays_text(site: Site) -> None:
    run, _ = await site.waiting()
    tasks = [one for one in site.azure.run(run)["timeline"]["records"] if one["name"] == "Fit & score"]

    page = await site.see(f"/_build/results?buildId={run}&view=logs&j={tasks[0]['parentId']}&t={tasks[0]['id']}&l=2")

    assert "&lt;script&gt;document.title" in page
    assert '<li id="L2" class="error wanted">' in page
    assert "\x1b" not in page
    assert "Train &lt;all&gt;" in page


async def test_an_artifact_is_never_shown_as_a_page(site: Site) -> None:
    run, _ = await site.waiting()

    async with site.session.get(f"{site.home}/_build/artifact?buildId={run}&artifactName=evaluation&path=page.html") as answer:
        kind, disposition = answer.content_type, answer.headers["Content-Disposition"]
    async with site.session.get(f"{site.home}/_build/artifact?buildId={run}&artifactName=evaluation&path=../../logs/1.log") as answer:
        outside = answer.status

    assert (kind, disposition, outside) == ("application/octet-stream", "attachment; filename*=UTF-8''page.html", 404)


async def test_one_approves_as_the_person_one_chose(site: Site) -> None:
    run, approval = await site.waiting()
    form = {"run": str(run), "approval": approval, "status": "approved", "comment": "Good."}

    refused, page = await site.post("/_build/approval", form)
    await site.become(GRACE)
    accepted, after = await site.post("/_build/approval", form)
    await site.azure.wait_for(lambda: bool(site.azure.run(run)["status"] == "completed"), 8)

    assert (refused, accepted) == (403, 200)
    assert "Ada Lovelace is not an approver of this check" in page
    assert "<b>Grace Hopper</b> approved" in after
    assert site.azure.run(run)["approvals"][0]["steps"][0]["actualApprover"]["displayName"] == "Grace Hopper"


async def test_the_page_says_whose_part_each_is_and_what_became_of_it(site: Site) -> None:
    site.azure.protect("prod", [KATHERINE, RADIA, RELEASE_MANAGERS], minimum=2, order="inSequence", instructions="Look at <QA>.")
    run, approval = await site.waiting()
    site.azure.reassign_as(KATHERINE, approval, ALAN, "On leave.")

    before = await site.see(f"/_build/results?buildId={run}")
    site.azure.approve_as(ALAN, approval, "approved", "Good.")
    site.azure.defer_as(RADIA, approval, datetime(2127, 1, 1, 12, tzinfo=UTC), "After the freeze.")
    after = await site.see(f"/_build/results?buildId={run}")

    for says in (
        "Look at &lt;QA&gt;.",
        "Handed over by Katherine Johnson: On leave.",
        r"[ml-delivery]\Release Managers",
        "(Grace Hopper, Katherine Johnson, Radia Perlman)",
        "· Not yet their turn",
        "2 of 3 must approve, one after the other; whoever requested the run may not.",
        "Ada Lovelace is not an approver of this check and may not answer it.",
    ):
        assert says in before
    assert "Approved by Alan Turing" in after
    assert "Approved by Radia Perlman, as of 01 Jan 2127, 12:00 UTC" in after
    assert "<blockquote>After the freeze.</blockquote>" in after


async def test_one_defers_and_hands_over_as_the_person_one_chose(site: Site) -> None:
    run, approval = await site.waiting()
    form = {"run": str(run), "approval": approval, "comment": "Later."}
    await site.become(GRACE)

    untimed, page = await site.post("/_build/approval", form | {"status": "deferred", "until": ""})
    nonsense, _ = await site.post("/_build/approval", form | {"status": "deferred", "until": "soon"})
    deferred, _ = await site.post("/_build/approval", form | {"status": "deferred", "until": "2127-01-01T12:00"})
    await site.become(RADIA)
    taken, _ = await site.post("/_build/approval", form | {"status": "reassigned", "to": KATHERINE.oid})
    given, _ = await site.post("/_build/approval", form | {"status": "reassigned", "to": ALAN.oid, "until": "2127-01-01T12:00"})

    assert (untimed, nonsense, deferred, taken, given) == (400, 400, 200, 400, 200)
    assert "has a time that it is deferred to" in page
    grace, _, alan = site.azure.run(run)["approvals"][0]["steps"]
    assert (grace["status"], grace["deferredTo"]) == ("deferred", "2127-01-01T12:00:00.000Z")
    assert (alan["status"], alan["assignedApprover"]["displayName"]) == ("pending", "Alan Turing")


async def test_administrators_change_who_approves_and_others_only_see_it(site: Site) -> None:
    wanted = [("approver", RELEASE_MANAGERS.oid), ("approver", ALAN.oid), ("minimum", "2"), ("order", "inSequence"), ("requester", "may")]
    form = [("check", "1"), ("instructions", "Look twice."), *wanted]
    seen = await site.see("/_environments/2")

    refused, _ = await site.post("/_environments/2/check", form)
    await site.become(GRACE)
    editable = await site.see("/_environments/2")
    wrong, says = await site.post("/_environments/2/check", [*form[:4], ("minimum", "many")])
    impossible, _ = await site.post("/_environments/2/check", [form[0], ("approver", ALAN.oid), *form[4:]])
    changed, page = await site.post("/_environments/2/check", form)
    added, _ = await site.post("/_environments/1/check", [("check", "0"), ("approver", GRACE.oid), ("minimum", "1"), ("order", "anyOrder")])

    assert (refused, wrong, impossible, changed, added) == (403, 400, 400, 200, 200)
    assert "must be a whole number, not &#39;many&#39;" in says
    assert ("Delete environment" in seen, "Delete environment" in editable) == (False, True)
    assert "2 of 2 must approve, one after the other. Times out after 30 days." in page
    checks = {check.environment: check for check in site.azure.project.store.checks}
    assert checks[2].approvers == [RELEASE_MANAGERS.oid, ALAN.oid]
    assert (checks[2].requester_excluded, checks[2].instructions, checks[1].approvers) == (False, "Look twice.", [GRACE.oid])


async def test_a_deleted_environment_is_gone_from_the_pages_and_its_run_says_why_it_failed(site: Site) -> None:
    run, _ = await site.waiting()

    refused, _ = await site.post("/_environments/2/delete", {})
    await site.become(GRACE)
    deleted, page = await site.post("/_environments/2/delete", {})
    await site.azure.wait_for(lambda: bool(site.azure.run(run)["status"] == "completed"), 8)
    async with site.session.get(f"{site.home}/_environments/2") as answer:
        missing = answer.status
    summary = await site.see(f"/_build/results?buildId={run}")

    assert (refused, deleted, missing) == (403, 200, 404)
    assert "Azure Kubernetes Service" not in page
    assert "Environment prod does not exist or has been deleted." in summary
    assert "The approval for <b>Prod - Deploy on AKS</b> was canceled." in summary


async def test_who_has_no_licence_looks_and_does_nothing(site: Site) -> None:
    run, approval = await site.waiting()
    await site.become(GRACE)
    site.azure.without_licence(GRACE)

    refused, page = await site.post("/_build/approval", {"run": str(run), "approval": approval, "status": "approved"})
    await site.become(RADIA)
    accepted, _ = await site.post("/_build/approval", {"run": str(run), "approval": approval, "status": "approved"})

    assert (refused, accepted) == (403, 200)
    assert "needs the Basic access level" in page


async def test_other_pages_cannot_make_one_act(site: Site) -> None:
    run, approval = await site.waiting()
    form = {"run": str(run), "approval": approval, "status": "approved"}
    await site.become(GRACE)

    foreign, _ = await site.post("/_build/approval", form, origin="http://evil.example")
    rebound, _ = await site.post("/_build/approval", form, origin="http://evil.example", host="evil.example")
    async with site.session.post(f"{site.home}/_build/approval", data=form) as answer:
        silent = answer.status

    assert (foreign, rebound, silent) == (403, 403, 403)
    assert site.azure.run(run)["approvals"][0]["status"] == "pending"


async def test_one_runs_cancels_and_merges_from_the_page(site: Site) -> None:
    started, _ = await site.post("/_build/run", {"p.action": "promote"})
    canceled, page = await site.post("/_build/cancel", {"run": "1"})
    merged, after = await site.post(
        "/_git/ml-delivery/merge",
        {"model": "diabetes", "title": "Less <b>penalty</b>", "s.ridge.alpha": "5", "s.forest.trees": "60", "s.forest.depth": "5"},
    )
    wrong, says = await site.post("/_git/ml-delivery/merge", {"model": "diabetes", "s.forest.trees": "many"})

    assert (started, canceled, merged, wrong) == (200, 200, 200, 400)
    assert site.azure.run(1)["templateParameters"] == {"action": "promote"}
    assert "Cancel" in page
    assert "Merged PR 12: Less &lt;b&gt;penalty&lt;/b&gt;" in after
    assert site.azure.run(2)["reason"] == "individualCI"
    assert "ridge = { alpha = 5.0 }" in await site.see("/_git/ml-delivery?path=callboard.toml")
    assert "trees must be a whole number, not &#39;many&#39;." in says


async def test_what_is_not_there_is_said_to_be_missing(site: Site) -> None:
    answers = {}
    for path in ("/_build/results?buildId=99", "/nowhere", "/_environments/9", "/_git/ml-delivery/commit/abcdef"):
        async with site.session.get(site.home + path) as answer:
            answers[path] = (answer.status, "Back to the runs" in await answer.text())

    assert set(answers.values()) <= {(404, True), (400, True)}


@pytest.mark.parametrize("path", ["/dev.azure.com", "/dev.azure.com/", "/dev.azure.com/contoso", "/dev.azure.com/contoso/ml-delivery"])
async def test_every_way_in_leads_to_the_runs(site: Site, path: str) -> None:
    async with site.session.get(site.world.page_url + path) as answer:
        assert (answer.status, answer.url.path) == (200, "/dev.azure.com/contoso/ml-delivery/_build")


@pytest.mark.page
async def test_a_part_is_handed_over_and_a_check_is_changed_in_a_browser(site: Site) -> None:
    run, _ = await site.waiting()
    async with browsing(f"{site.home}/_build/results?buildId={run}") as page:
        await page.wait_for_selector("button[value=approved]:disabled")
        await page.select_option("#person", value=GRACE.oid)
        await page.select_option("select[name=to]", value=RELEASE_MANAGERS.oid)
        await page.click("button[value=reassigned]")
        await page.wait_for_selector("text=Handed over by Grace Hopper")

        await page.goto(f"{site.home}/_environments/2")
        await page.uncheck(f"input[value='{RADIA.oid}']")
        await page.fill("input[name=minimum]", "2")
        await page.click("text=Save")
        await page.wait_for_selector("text=2 of 2 must approve, in any order")

    first, *_ = site.azure.run(run)["approvals"][0]["steps"]
    assert first["assignedApprover"]["id"] == RELEASE_MANAGERS.oid


@pytest.mark.page
async def test_the_page_follows_the_run_and_the_approval_by_itself(site: Site) -> None:
    run, _ = await site.waiting()
    async with browsing(f"{site.home}/_build/results?buildId={run}") as page:
        await page.select_option("#person", value=GRACE.oid)
        await page.wait_for_selector("text=as Grace Hopper")
        await page.fill("textarea", "Looks good.")
        await page.click("button[value=approved]")
        await page.wait_for_selector(".stage.succeeded >> text=Prod - Deploy on AKS")

        async with browsing(f"{site.home}/_build") as runs:
            await site.azure.queue(ADA)
            await runs.wait_for_selector("tbody tr:nth-child(2)")
        title = await page.title()

    assert title.startswith("#")
    assert site.azure.run(run)["result"] == "succeeded"


NOON = datetime(2026, 9, 13, 12, tzinfo=UTC)


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "<1s"), (42, "42s"), (185, "3m 5s"), (3900, "1h 5m"), (-3, "<1s")])
def test_durations_read_as_on_the_real_page(seconds: float, words: str) -> None:
    assert show.length(NOON, NOON + timedelta(seconds=seconds)) == words


def test_a_diff_is_shown_without_its_plumbing() -> None:
    text = "diff --git a/x b/x\nindex 1..2 100644\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-old\n+new\n same"

    assert [(line.kind, line.text) for line in show.diff_lines(text)] == [
        ("file", "x"),
        ("hunk", "@@ -1 +1 @@"),
        ("remove", "-old"),
        ("add", "+new"),
        ("same", " same"),
    ]
