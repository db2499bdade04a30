"""Who may do what. Denies by default; Azure DevOps stays the authority on approvals, this can only be stricter.

A reason is plain text: whoever shows it escapes it.
"""

from __future__ import annotations

from datetime import UTC

from bot.core.approvals import Allowed, Approval, ApprovalState, Decision, Denied
from bot.core.people import Member
from bot.core.references import Thing
from bot.core.runs import Run, kept_champion, parameter, reached
from bot.core.team import ADO, Environment, Model, People, Right, Team


def may(team: Team, right: Right, member: Member, model: Model | None = None) -> Decision:
    """Whether the person has the right, for the model where one is named."""
    return full_member(member) or listed(team.may(right, model), member, _DEEDS[right])


def awaited(team: Team, run: Run) -> tuple[Environment, ...]:
    """The environments whose approval the run has come to, as far as its stages show."""
    if kept_champion(run):
        return ()
    guarded = [(one, run.stage(one.stage_of(run.thing))) for one in team.environments.values() if one.needs_approval]
    return tuple(environment for environment, stage in guarded if stage is not None and reached(run, stage))


def belongs(team: Team, approval: Approval) -> Environment | None:
    """The environment that the approval is for, if it is one that is decided on in Slack."""
    if approval.thing is Thing.RELEASE:
        environments = [one for one in team.environments.values() if one.release_stage == approval.stage]
    else:
        environments = [one for one in team.environments.values() if (one.name, one.stage) == (approval.environment, approval.stage)]
    return next((one for one in environments if one.needs_approval), None)


def already(approval: Approval) -> str:
    """Who decided and when, as a sentence without markup."""
    step = approval.decided
    if step is None or step.actual is None:
        return f"This approval is {_WORDS[approval.state]}: there is nothing left to decide."
    when = f" on {step.at.astimezone(UTC):%Y-%m-%d at %H:%M} UTC" if step.at else ""
    return f"This was {_WORDS[approval.state]} by {step.actual.name}{when}."


def model_of(team: Team, run: Run) -> Model | None:
    """The team's model that the run or release is about; what nobody has listed has none."""
    if run.thing is Thing.RELEASE:
        model, named = team.released_by(run.pipeline_id), team.models.get(parameter(run, "model") or "")
        # Models that share a pipeline have their own channels and approvers: what another model's run made is not this one's.
        return model if named is None or named == model else None
    model = team.model_of(run.pipeline_id, parameter(run, "model"))
    return model if model is not None and model.pipeline_id == run.pipeline_id else None


def in_channel(model: Model, channel: str) -> bool:
    """Whether a command about the model was given where the model's team reads it."""
    return model.channel == channel


def decides_in(team: Team, channel: str) -> bool:
    """Whether decisions are taken there: in the channel of one of the models, on the app's own page, or in a direct message."""
    return not channel or channel.startswith("D") or any(in_channel(model, channel) for model in team.models.values())


_DEEDS = {
    Right.RETRAIN: "start, retry or stop trainings",
    Right.PROMOTE: "ask for a promotion",
    Right.ROLLBACK: "roll back",
    Right.LOCK: "lock or unlock an environment",
    Right.BREAK_GLASS: "break the glass",
}
_WORDS = {
    ApprovalState.PENDING: "pending",
    ApprovalState.APPROVED: "approved",
    ApprovalState.REJECTED: "rejected",
    ApprovalState.CANCELED: "canceled",
    ApprovalState.TIMED_OUT: "timed out",
    ApprovalState.SKIPPED: "skipped",
    ApprovalState.DEFERRED: "deferred",
}


def full_member(member: Member) -> Denied | None:
    """Full members of the workspace only."""
    if member.deleted:
        return Denied("This account is deactivated.")
    if member.bot:
        return Denied("Apps may not do this; a person has to.")
    if member.guest:
        return Denied("Guests of the workspace may not do this. Ask a member of the team.")
    return None


def listed(people: People, member: Member, what: str) -> Decision:
    """Listed by user id, by e-mail address in any case, by one of their Slack user groups, or by one of their Azure DevOps groups."""
    names = people.members
    email = member.email.lower() if member.email else None
    groups = member.groups | {f"{ADO}{group}" for group in member.ado_groups}
    if member.id in names or groups & names or (email is not None and email in {name.lower() for name in names if "@" in name}):
        return Allowed()
    return Denied(f"You may not {what}. Ask one of those who may.")
