"""Deciding on an approval: what it is about, who may answer it now, and whether an answer is the last one needed.

Everything is judged at the moment of the click, from what was just read. Azure DevOps stays the authority; this can only be stricter.
A reason is plain text: whoever shows it escapes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from bot.core.approvals import Allowed, Answer, Approval, ApprovalState, Decision, Denied
from bot.core.models import Delivery, ModelVersion, Verdict
from bot.core.people import Account, Asker, Member, Person
from bot.core.policy import already, full_member, listed
from bot.core.runs import Run, parameter
from bot.core.team import Duty, Environment, Freeze, Model, People

GLASS_LASTS = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision that was made in Slack: who it was, and why, in their own words."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Vote:
    """A yes that waits for others: more people have to agree before it goes to Azure DevOps. `identity` is whom Azure DevOps knows."""

    by: str
    identity: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Lock:
    """Somebody keeps everything away from an environment."""

    environment: str
    owner: str
    reason: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Glass:
    """Two people broke the glass: until then locks, freezes and our own number of approvers do not hold for one run."""

    first: str
    second: str
    reason: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that a decision is about; `serving` is what Prod serves now, None with `unknown` where nobody could say.

    `rollback`: an earlier deployment is asked for again, so what Prod serves is meant to be newer. `service`: Azure DevOps records the bot.
    """

    run: Run
    model: Model
    environment: Environment
    approval: Approval
    delivery: Delivery
    asker: Asker | None = None
    serving: ModelVersion | None = None
    unknown: bool = False
    decided: Decided | None = None
    votes: tuple[Vote, ...] = ()
    lock: Lock | None = None
    glass: Glass | None = None
    rollback: bool = False
    service: bool = False

    @property
    def approvers(self) -> People:
        """Who may decide."""
        return self.model.approvers.get(self.environment.name, self.environment.approvers)

    @property
    def open(self) -> bool:
        """Whether somebody can still answer."""
        return self.approval.state is ApprovalState.PENDING and not self.run.state.finished

    @property
    def facts(self) -> str:
        """What an approver is told, as a mark that a button can carry: version, what Prod serves, image, QA's smoke test."""
        version, image, smoke = self.delivery.version, self.delivery.image, self.delivery.smoke.get("qa")
        parts = (
            version.version if version else "",
            "unknown" if self.unknown else self.serving.version if self.serving else "",
            image.digest.removeprefix("sha256:")[:16] if image else "",
            "" if smoke is None else "passed" if smoke.passed else "failed",
        )
        return "~".join(_UNFIT.sub("", part)[:40] for part in parts)


@dataclass(frozen=True, slots=True)
class Decider:
    """Who wants to answer: the member of the workspace, whom Azure DevOps takes them for, and what they signed in with."""

    member: Member
    me: Person
    account: Account | None = None


def may_decide(who: Decider, case: Case, answer: Answer, now: datetime) -> Decision:
    """Whether the person may give this answer now."""
    approval, environment = case.approval, case.environment
    if (denied := full_member(who.member)) is not None:
        return denied
    if approval.state is not ApprovalState.PENDING:
        return Denied(already(approval))
    if case.run.state.finished:
        return Denied(f"{_named(case.run)} has ended: there is nothing left to decide.")
    stage = case.run.stage(approval.stage)
    if stage is not None and stage.attempt != approval.attempt:
        return Denied(
            f"{stage.title} is at attempt {stage.attempt} now, and this was for attempt {approval.attempt}: there is a newer message."
        )
    allowed = listed(case.approvers, who.member, f"decide on {environment.name}")
    apart = _apart(who, case)
    for decision in (apart, allowed, _answered(who, case), _asked_there(who, approval)):
        if isinstance(decision, Denied):
            return decision
    return _may_approve(case, now) if answer is Answer.APPROVE else Allowed()


def asked_by(who: Decider, run: Run, asker: Asker | None) -> bool:
    """Whether the person asked for the run or release, or it was queued for them."""
    return _is(who, asker) or any(_same(who, person) for person in (run.requested_for, run.requested_by))


def why_not_asked(case: Case) -> str | None:
    """Why nobody is asked to approve, although Azure DevOps waits: there is nothing that could be approved."""
    comparison, version = case.delivery.comparison, case.delivery.version
    if version is None:
        return "No registered model was handed on, so there is nothing to approve."
    if comparison is None:
        return "No evaluation was handed on, so nobody can say what would be approved."
    if comparison.verdict is not Verdict.PASS:
        return "The evaluation did not pass, so there is nothing to approve."
    return None


def superseded(case: Case) -> str | None:
    """Why the comparison no longer says anything about what Prod serves."""
    if case.rollback or case.delivery.comparison is None:
        return None
    if case.unknown:
        return "Azure ML does not say what Prod serves now, so the comparison cannot be relied on. Try again in a while."
    champion = case.delivery.comparison.champion
    against, now = champion.version if champion else None, case.serving.version if case.serving else None
    if against == now:
        return None
    compared = f"version {against}" if against else "nothing"
    serves = f"version {now}" if now else "nothing"
    return f"This is superseded: it was compared with {compared}, and Prod serves {serves} now. Train or promote again."


def frozen(freezes: tuple[Freeze, ...], now: datetime) -> Freeze | None:
    """The freeze that is in force."""
    return next((freeze for freeze in freezes if _holds(freeze, now)), None)


def still_needed(case: Case, who: Decider) -> int:
    """How many more people have to agree, after this one, before the answer may go to Azure DevOps.

    0 also where Azure DevOps itself waits for more than this answer: it counts those by itself.
    """
    if case.glass is not None or case.approval.left > 1:
        return 0
    agreed = {person.id or person.name for person in case.approval.approved_by} | {vote.identity for vote in case.votes} | {_identity(who)}
    return max(case.environment.minimum - len(agreed), 0)


def changed(before: str, now: str) -> tuple[str, ...]:
    """What is different between two marks of facts, in words; nothing where one of them is none."""
    old, new = before.split("~"), now.split("~")
    if len(old) != len(_FACTS) or len(new) != len(_FACTS):
        return ()
    return tuple(
        f"{name} was {then or 'nothing'} and is {today or 'nothing'} now"
        for name, then, today in zip(_FACTS, old, new, strict=True)
        if then != today
    )


_WORDS = re.compile(r"[^\s()<>,;]+")
_UNFIT = re.compile(r"[^\w.:-]")
_FACTS = ("the model's version", "what Prod serves", "the image", "QA's smoke test")


def _may_approve(case: Case, now: datetime) -> Decision:
    """What keeps a yes from being given, whoever gives it."""
    if (nothing := why_not_asked(case)) is not None:
        return Denied(nothing)
    if (old := superseded(case)) is not None:
        return Denied(old)
    if case.glass is not None and now < case.glass.until:
        return Allowed()
    if case.lock is not None:
        return Denied(f"{case.environment.name} is locked since {case.lock.since:%Y-%m-%d %H:%M} UTC: {case.lock.reason}")
    freeze = frozen(case.environment.freezes, now)
    if freeze is not None:
        return Denied(
            f"{case.environment.name} is frozen: {freeze.reason}. It is {now.astimezone(freeze.zone):%A %H:%M} in {freeze.zone.key}."
        )
    return Allowed()


def _apart(who: Decider, case: Case) -> Decision:
    """Separation of duties: whoever asked for the run, committed its head or typed the promote does not decide on it."""
    apart, run = case.environment.apart, case.run
    asked = asked_by(who, run, case.asker)
    promoted = parameter(run, "action") == "promote"
    if asked and (Duty.ASKED in apart or (promoted and Duty.PROMOTED in apart)):
        what = (
            "asked for this promotion"
            if promoted
            else "asked for this run"
            if run.source is None
            else "asked for what this release deploys"
        )
        return Denied(f"You {what}, so somebody else has to decide on it.")
    if Duty.COMMITTED in apart and run.committer is not None and _same(who, run.committer):
        return Denied("You committed what this run builds, so somebody else has to decide on it.")
    if apart & {Duty.ASKED, Duty.PROMOTED} and not _somebody_known(case):
        return Denied("Azure DevOps does not say which person asked for this run. Decide in Azure DevOps instead.")
    if apart and not _emails(who) and who.me.id is None:
        return Denied("Your Slack profile has no e-mail address, so nobody can tell whether you asked for this run yourself.")
    return Allowed()


def _somebody_known(case: Case) -> bool:
    """Whether anybody says which person asked: Slack, the run itself, or Azure DevOps (whose service identities have no address)."""
    if case.asker is not None and (case.asker.slack or parameter(case.run, "requestedBy") is not None):
        return True
    return any(person is not None and "@" in (person.email or "") for person in (case.run.requested_for, case.run.requested_by))


def _is(who: Decider, asker: Asker | None) -> bool:
    if asker is None:
        return False
    if asker.slack == who.member.id:
        return True
    said = f"{asker.name} {asker.email or ''}".lower()
    return bool({who.member.id.lower(), *_emails(who)} & set(_WORDS.findall(said)))


def _same(who: Decider, person: Person | None) -> bool:
    if person is None:
        return False
    own = who.me.id if who.account is not None else None  # without an account it is the bot's
    return (person.id is not None and person.id == own) or (person.email or "").lower() in _emails(who)


def _emails(who: Decider) -> set[str]:
    """The addresses the person is known by, in Slack, in Entra and in Azure DevOps."""
    known = (who.member.email, who.account.username if who.account else None, who.me.email if who.account else None)
    return {email.lower() for email in known if email}


def _answered(who: Decider, case: Case) -> Decision:
    """Whether they have said yes before."""
    mine = _identity(who)
    if any(mine in {person.id, person.name} for person in case.approval.approved_by) or any(vote.identity == mine for vote in case.votes):
        return Denied("You have approved this already. It waits for others.")
    return Allowed()


def _asked_there(who: Decider, approval: Approval) -> Decision:
    """What Azure DevOps says about the person, where it says anything."""
    if any(person.id is not None and person.id == who.me.id for person in approval.blocked):
        return Denied("Azure DevOps does not let you answer this: you are excluded from this approval.")
    if approval.mine is not False:
        return Allowed()
    if any(not step.turn for step in approval.steps if step.assigned.id == who.me.id):
        return Denied("It is not your turn yet: approvals are given in sequence here.")
    return Denied(
        f"Azure DevOps does not count {who.me.name} among those who may answer this. Its check on {approval.environment} says who may."
    )


def _identity(who: Decider) -> str:
    """Whom Azure DevOps would record; in the service-identity mode that is the bot for everybody, so the member stands for themselves."""
    return who.member.id if who.account is None else who.me.id or who.me.name


def _named(run: Run) -> str:
    return f"{'Run' if run.source is None else 'Release'} {run.number}"


def _holds(freeze: Freeze, now: datetime) -> bool:
    local = now.astimezone(freeze.zone)
    if freeze.start is not None and freeze.end is not None:
        return freeze.start <= local < freeze.end
    time, today = local.time().replace(tzinfo=None), local.weekday()
    if freeze.opens < freeze.closes:
        return today in freeze.days and freeze.opens <= time < freeze.closes
    # It lasts into the next day.
    return (today in freeze.days and time >= freeze.opens) or ((today - 1) % 7 in freeze.days and time < freeze.closes)
