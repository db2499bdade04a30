"""Who may do what. Denies by default; Azure DevOps stays the authority on approvals, this can only be stricter.

A reason is plain text: whoever shows it escapes it.
"""

from __future__ import annotations

from datetime import UTC

from bot.core.approvals import Allowed, Approval, ApprovalState, Decision, Denied
from bot.core.people import Member
from bot.core.runs import Run, kept_champion, parameter, reached
from bot.core.team import Environment, Model, People, Right, Team


def may_retrain(team: Team, member: Member) -> Decision:
    """Whether the person may start trainings, and retry what failed."""
    return _member(member) or _listed(team.may(Right.RETRAIN), member, "start or retry trainings")


def may_promote(team: Team, member: Member) -> Decision:
    """Whether the person may ask for a registered version to be brought to Prod."""
    return _member(member) or _listed(team.may(Right.PROMOTE), member, "ask for a promotion")


def may_decide(team: Team, member: Member, run: Run, approval: Approval, asked_in_slack: str | None) -> Decision:
    """Whether the person may approve or reject: `asked_in_slack` is the Slack id of who asked for the run, where they did so here.

    Four eyes: whoever asked for a run does not decide on it.
    """
    if (denied := _member(member)) is not None:
        return denied
    if approval.state is not ApprovalState.PENDING:
        return Denied(already(approval))
    if run.state.finished:
        return Denied(f"Run {run.number} has ended: there is nothing left to decide.")
    environment = belongs(team, approval)
    if environment is None:
        return Denied(f"{approval.environment} is not decided on in Slack: callboard.toml does not list it as needing approval.")
    four_eyes = _four_eyes(member, run, asked_in_slack)
    return four_eyes if isinstance(four_eyes, Denied) else _listed(environment.approvers, member, f"decide on {environment.name}")


def awaited(team: Team, run: Run) -> tuple[Environment, ...]:
    """The environments whose approval the run has come to, as far as its stages show."""
    if kept_champion(run):
        return ()
    guarded = [(environment, run.stage(environment.stage)) for environment in team.environments.values() if environment.needs_approval]
    return tuple(environment for environment, stage in guarded if stage is not None and reached(run, stage))


def belongs(team: Team, approval: Approval) -> Environment | None:
    """The environment that the approval is for, if it is one that is decided on in Slack."""
    environment = team.environments.get(approval.environment)
    return environment if environment is not None and environment.needs_approval and environment.stage == approval.stage else None


def already(approval: Approval) -> str:
    """Who decided and when, as a sentence without markup."""
    step = approval.decided
    if step is None or step.actual is None:
        return f"This approval is {_WORDS[approval.state]}: there is nothing left to decide."
    when = f" on {step.at.astimezone(UTC):%Y-%m-%d at %H:%M} UTC" if step.at else ""
    return f"This was {_WORDS[approval.state]} by {step.actual.name}{when}."


def model_of(team: Team, run: Run) -> Model | None:
    """The team's model that the run is about; a pipeline nobody has listed has none."""
    model = team.model_of(run.pipeline_id, parameter(run, "model"))
    return model if model is not None and model.pipeline_id == run.pipeline_id else None


def in_channel(model: Model, channel: str) -> bool:
    """Whether a command about the model was given where the model's team reads it."""
    return model.channel == channel


_WORDS = {
    ApprovalState.PENDING: "pending",
    ApprovalState.APPROVED: "approved",
    ApprovalState.REJECTED: "rejected",
    ApprovalState.CANCELED: "canceled",
    ApprovalState.TIMED_OUT: "timed out",
    ApprovalState.SKIPPED: "skipped",
    ApprovalState.DEFERRED: "deferred",
}


def _member(member: Member) -> Denied | None:
    """Full members of the workspace only."""
    if member.deleted:
        return Denied("This account is deactivated.")
    if member.bot:
        return Denied("Apps may not do this; a person has to.")
    if member.guest:
        return Denied("Guests of the workspace may not do this. Ask a member of the team.")
    return None


def _listed(people: People, member: Member, what: str) -> Decision:
    """Listed by user id, by one of their user groups, or by e-mail address in any case."""
    names = people.members
    email = member.email.lower() if member.email else None
    if member.id in names or member.groups & names or (email is not None and email in {name.lower() for name in names if "@" in name}):
        return Allowed()
    return Denied(f"You may not {what}. Ask one of those who may.")


def _four_eyes(member: Member, run: Run, asked_in_slack: str | None) -> Decision:
    own = Denied("You asked for this run, so somebody else has to decide on it.")
    said = parameter(run, "requestedBy")
    email = member.email.lower() if member.email else None
    if asked_in_slack == member.id:
        return own
    if said is not None and ((email is not None and email in said.lower()) or member.id in said):
        return own
    people = [person for person in (run.requested_for, run.requested_by) if person is not None]
    if email is not None and email in {person.email.lower() for person in people if person.email}:
        return own
    if asked_in_slack is not None or said is not None:
        return Allowed()
    # What follows compares e-mail addresses alone, so both sides must have one.
    if not any(person.email for person in people):
        return Denied("Azure DevOps does not say which person asked for this run. Decide in Azure DevOps instead.")
    if email is None:
        return Denied("Your Slack profile has no e-mail address, so nobody can tell whether you asked for this run yourself.")
    return Allowed()
