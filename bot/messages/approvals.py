"""The message that asks for Prod, what becomes of it, and the modals that take a decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from bot.core.approvals import ApprovalState
from bot.core.deciding import Case, changed, superseded, why_not_asked
from bot.core.models import Comparison, Delivery
from bot.core.references import ApprovalOf, Thing
from bot.core.runs import called
from bot.core.team import Duty
from bot.core.waiting import Waiting, Yours, so_long
from bot.messages.comparisons import VERDICTS, changes, smoke_words
from bot.messages.kit import (
    Block,
    Message,
    Modal,
    actions,
    asked,
    asked_plainly,
    button,
    channel_link,
    code,
    context,
    escape,
    facts,
    header,
    link,
    link_buttons,
    mention,
    place,
    plain_text,
    section,
    short,
    these,
    when,
)
from bot.messages.limits import fit
from bot.messages.runs import commit_link, source_link

_DUTIES = {Duty.ASKED: "asked for the run", Duty.COMMITTED: "committed its head", Duty.PROMOTED: "typed the promote"}

REASON = 1000  # characters of a reason

LATER = {"1": "In an hour", "4": "In 4 hours", "12": "In 12 hours", "24": "In a day", "48": "In 2 days", "72": "In 3 days"}
OUTCOMES = {
    ApprovalState.APPROVED: ("✅", "Approved"),
    ApprovalState.REJECTED: ("⛔", "Rejected"),
    ApprovalState.CANCELED: ("🚫", "Canceled"),
    ApprovalState.TIMED_OUT: ("⌛", "Timed out"),
    ApprovalState.SKIPPED: ("⏭️", "Skipped"),
    ApprovalState.DEFERRED: ("🕓", "Deferred"),
    ApprovalState.PENDING: ("🚦", "Approval needed"),
}
ENDED = ("⏹️", "Ended before anybody decided")


def approval_card(question: Case) -> Message:
    """What is to be deployed and what speaks for it; buttons while it is open, who decided, when and why afterwards."""
    what, where = what_of(question), place(question.environment.name)
    mark, word = _outcome(question)
    if question.open:
        asks = f"Is {what} fit to stay in {where}?" if question.approval.post else f"Deploy {what} to {where}?"
        blocks = [header(f"{mark} {asks}"), *facts_of(question), *_ask(question)]
    else:
        blocks = [header(f"{mark} {word}: {what} for {where}"), *_answer(question), *facts_of(question), _record(question)]
    return fit(Message(_fallback(question, what), blocks=blocks))


def facts_of(question: Case, *, digest: bool = True) -> list[Block]:
    """The verdict and what led to it, then what would be deployed; the same in the channel and in the modal."""
    run, delivery = question.run, question.delivery
    comparison, version, image = delivery.comparison, delivery.version, delivery.image
    algorithm = f", {code(short(version.algorithm, 60))}" if version and version.algorithm else ""
    return [
        section("\n".join(_verdict(question, comparison))),
        facts(
            ("Model", f"{code(what_of(question))}{algorithm}"),
            _before(question),
            ("Image", (code(image.digest[:19]) if image else "not known") if digest else ""),
            ("QA smoke test", _smoke(delivery)),
            ("Commit", commit_link(run)),
            ("Deploys", source_link(run)),
            ("Asked for by", asked(question.asker)),
        ),
    ]


def approve_form(question: Case, seen: str = "") -> Modal:
    """The facts once more, and why; `seen` is the mark of those on the message that was clicked."""
    return _form(question, "approve", "Approve", [_reason_input("Why is it fit for Prod?")], seen)


def reject_form(question: Case, seen: str = "") -> Modal:
    """The facts once more, and why not."""
    return _form(question, "reject", "Reject", [_reason_input("What has to change first?")], seen)


def defer_form(question: Case, seen: str = "") -> Modal:
    """The facts once more, from when on it may be deployed, and why."""
    later: Block = {
        "type": "input",
        "block_id": "until",
        "label": plain_text("From when on"),
        "hint": plain_text("Your approval is given now, and takes effect then."),
        "element": {
            "type": "static_select",
            "action_id": "until",
            "options": [{"text": plain_text(words), "value": hours} for hours, words in LATER.items()],
        },
    }
    return _form(question, "defer", "Approve later", [later, _reason_input("Why is it fit for Prod, and why then?")], seen)


def reassign_form(question: Case, seen: str = "") -> Modal:
    """Who shall answer instead, and why."""
    to: Block = {
        "type": "input",
        "block_id": "to",
        "label": plain_text("Who decides instead"),
        "element": {"type": "users_select", "action_id": "to", "placeholder": plain_text("Somebody of your team")},
    }
    return _form(question, "reassign", "Hand over", [to, _reason_input("Why are they the right one?")], seen)


def waiting_list(waiting: Waiting, now: datetime, *, buttons: bool = True) -> Message:
    """What waits for one person's decision, oldest first; without buttons where decisions are not taken."""
    shown = waiting.yours
    where = [] if buttons or not shown else [context("Decide in the model's channel, or on the Home page of this app.")]
    if not shown:
        text = " ".join(("Nothing waits for you.", *_elsewhere(waiting)))
        return fit(Message(text, blocks=[section(text)]))
    named = (f"{escape(what_of(one.case))} to {escape(place(one.case.environment.name))} ({_typed(one.case)})" for one in shown)
    text = " ".join((f"{len(shown) + waiting.more} waiting for you: {'; '.join(named)}.", *_elsewhere(waiting)))
    return fit(Message(text, blocks=[*waiting_blocks(waiting, now, buttons=buttons), *where]))


def waiting_blocks(waiting: Waiting, now: datetime, *, buttons: bool = True) -> list[Block]:
    """Each approval with its facts and buttons; the last line counts what is not shown."""
    blocks: list[Block] = []
    for one in waiting.yours:
        blocks.append(section("\n".join(_waits(one, now))))
        if buttons:
            blocks.append(_buttons(one.case, few=True))
    rest = " ".join(_elsewhere(waiting))
    return [*blocks, *([context(rest)] if rest else [])]


def _waits(one: Yours, now: datetime) -> list[str]:
    """What waits, for how long, who asked, where it belongs; and what stands in its way."""
    case = one.case
    what = f"*{escape(what_of(case))}* to *{escape(place(case.environment.name))}*"
    lines = [
        f"🚦 {what} in {channel_link(case.model.channel)}, {link(case.run.url, called(case.run))}",
        f"Waiting for {so_long(now - case.approval.created)}, asked for by {asked(case.asker)}",
    ]
    return [*lines, f"⚠️ {escape(short(one.obstacle, 300))}"] if one.obstacle else lines


def _elsewhere(waiting: Waiting) -> list[str]:
    """What is not shown, counted."""
    counted = ((waiting.more, "you"), (waiting.others, "others"))
    more = " more" if waiting.yours else ""
    return [f"{number}{more} {'waits' if number == 1 else 'wait'} for {whom}." for number, whom in counted if number]


def _typed(question: Case) -> str:
    """What one types after `/approve`."""
    ref = question.run.ref
    return f"run {ref.id}" if ref.thing is Thing.RUN else str(ref)


def reason_errors(values: Mapping[str, str]) -> dict[str, str]:
    """What is wrong with the reason in a form, by block_id; it is asked for at once, before anything is sent."""
    reason = values.get("reason", "").strip()
    if not reason:
        return {"reason": "Say why: it goes on record in Azure DevOps."}
    if len(reason) > REASON:
        return {"reason": f"Use {REASON} characters at most; these are {len(reason)}."}
    return {}


def _form(question: Case, callback: str, title: str, inputs: Sequence[Block], seen: str) -> Modal:
    where, image = place(question.environment.name), question.delivery.image
    new = changed(seen, question.facts)
    warning = [section(f"⚠️ *Changed since the message was shown:* {escape('; '.join(new))}.")] if new else []
    return fit(
        Modal(
            title=f"{title} for {where}" if len(title) + len(where) <= 19 else title,
            blocks=[
                *warning,
                *facts_of(question, digest=image is None),
                *([context(f"Image {code(image.digest)}")] if image else []),
                *inputs,
            ],
            callback=callback,
            submit=title,
            close="Cancel",
            state={"approval": str(ApprovalOf(question.approval.ref, question.approval.id[:200], question.facts))},
        )
    )


def _reason_input(ask: str) -> Block:
    return {
        "type": "input",
        "block_id": "reason",
        "label": plain_text("Reason"),
        "hint": plain_text("It goes on record in Azure DevOps, with your name."),
        "element": {
            "type": "plain_text_input",
            "action_id": "reason",
            "multiline": True,
            "max_length": REASON,
            "placeholder": plain_text(ask),
        },
    }


def what_of(question: Case) -> str:
    """What is to be deployed: the model and its version, where one was handed on."""
    version = question.delivery.version
    return f"{question.model.name} version {short(version.version, 40)}" if version else question.model.name


def _outcome(question: Case) -> tuple[str, str]:
    if question.approval.state is ApprovalState.PENDING and question.run.state.finished:
        return ENDED
    return OUTCOMES[question.approval.state]


def _fallback(question: Case, what: str) -> str:
    run, where = question.run, escape(place(question.environment.name))
    who = escape(asked_plainly(question.asker))
    if question.open:
        verdict = question.delivery.comparison
        said = f" Verdict {VERDICTS[verdict.verdict][1]}: {escape(short(verdict.rule, 300))}" if verdict else ""
        return f"🚦 Approval needed: {escape(what)} to {where}, {escape(called(run))}, asked for by {who}.{said}"
    mark, word = _outcome(question)
    by, reason = _who(question), _reason(question)
    return f"{mark} {word}{by}: {escape(what)} for {where}, {escape(called(run))}.{reason and f' Reason: {reason}'}"


def _ask(question: Case) -> list[Block]:
    """The buttons, who may press them, who has agreed so far, and under whose name the answer is recorded."""
    recorded = (
        "Recorded in Azure DevOps under this app's identity, with your name in the comment."
        if question.service
        else "Recorded in Azure DevOps under your own name."
    )
    instructions = escape(short(question.approval.instructions, 300))
    agreed = _agreed(question)
    return [
        _buttons(question),
        context(f"May decide: {these(question.approvers)}, but {_apart(question.environment.apart)}. {instructions}\n{recorded}"),
        *([context(agreed)] if agreed else []),
    ]


def _buttons(question: Case, *, few: bool = False) -> Block:
    """What one can answer; `few` leaves only yes and no, where many questions are listed."""
    bare = ApprovalOf(question.approval.ref, question.approval.id)
    value = str(ApprovalOf(question.approval.ref, question.approval.id, question.facts))
    yes = why_not_asked(question) is None
    over = yes and not question.service and not few
    later = over and question.approval.thing is Thing.RUN
    return actions(
        f"decide:{bare}:{question.approval.attempt}",
        *([button("approve", "Approve", value, style="primary")] if yes else []),
        button("reject", "Reject", value),
        *([button("defer", "Later…", value)] if later else []),
        *([button("reassign", "Hand over…", value)] if over else []),
        *([] if few else link_buttons(("open_run", "Open in Azure DevOps", question.run.url))),
    )


def _apart(duties: frozenset[Duty]) -> str:
    """Who may not, in words."""
    words = [_DUTIES[duty] for duty in Duty if duty in duties and not (duty is Duty.PROMOTED and Duty.ASKED in duties)]
    return f"not whoever {' or '.join(words)}" if words else "nobody is excluded"


def _agreed(question: Case) -> str:
    """Who has agreed, where several have to."""
    needed = max(question.environment.minimum, question.approval.minimum)
    agreed = [escape(short(person.name, 60)) for person in question.approval.approved_by] + [mention(vote.by) for vote in question.votes]
    return f"{len(agreed)} of {needed} have agreed{': ' if agreed else ''}{', '.join(agreed)}." if needed > 1 else ""


def _answer(question: Case) -> list[Block]:
    """Who decided, when and why; nothing where nobody did."""
    step, reason = question.approval.decided, _reason(question)
    at = f", {when(step.at)}" if step is not None and step.at else ""
    until = f", from {when(step.until)} on" if step is not None and step.until else ""
    said = f"{_who(question)}{at}{until}{reason and f': {reason}'}"
    return [section(f"*{_outcome(question)[1]}*{said}")] if said else []


def _record(question: Case) -> Block:
    """Where it is on record, and under whose name."""
    step = question.approval.decided
    run = link(question.run.url, f"{called(question.run, first=True)} in Azure DevOps")
    if question.decided is None or step is None or step.actual is None:
        return context(run)
    return context(run, f"Decided in Slack, recorded there as {escape(short(step.actual.name, 100))}")


def _who(question: Case) -> str:
    """By whom, in mrkdwn: the person in Slack, else whom Azure DevOps names."""
    if question.decided is not None:
        return f" by {mention(question.decided.by)}"
    step = question.approval.decided
    return f" by {escape(short(step.actual.name, 100))}" if step is not None and step.actual is not None else ""


def _reason(question: Case) -> str:
    """Why, in mrkdwn, in the person's own words."""
    step = question.approval.decided
    said = question.decided.reason if question.decided is not None else step.comment if step is not None else ""
    return f"“{escape(short(said, REASON))}”" if said.strip() else ""


def _before(question: Case) -> tuple[str, str]:
    """What Prod serves now, while that is the question; later, what it was compared with."""
    comparison = question.delivery.comparison
    if not question.open:
        champion = comparison.champion if comparison else None
        return "Compared with", code(f"version {short(champion.version, 40)}") if champion and champion.version else ""
    if question.unknown:
        return "Prod serves now", "Azure ML could not say"
    return "Prod serves now", code(f"version {short(question.serving.version, 40)}") if question.serving else "nothing yet"


def _verdict(question: Case, comparison: Comparison | None) -> list[str]:
    if comparison is None:
        return ["⚠️ *No evaluation was handed on.*", *_warnings(question)]
    mark, word = VERDICTS[comparison.verdict]
    return [f"{mark} *{word}: {escape(short(comparison.rule, 500))}*", *_changes(question, comparison)]


def _smoke(delivery: Delivery) -> str:
    smoke = delivery.smoke.get("qa")
    if smoke is None:
        return "⚠️ none was handed on"
    if delivery.image is not None and smoke.digest not in {"", delivery.image.digest}:
        return f"⚠️ of another image: {code(short(smoke.digest, 20))}"
    return f"{'✅' if smoke.passed else '❌'} {smoke_words(smoke)}"


def _changes(question: Case, comparison: Comparison) -> list[str]:
    """The change per metric, and what keeps it from being approved."""
    return [*changes(comparison)[:10], *_warnings(question)]


def _warnings(question: Case) -> list[str]:
    """Why it cannot be approved as it stands."""
    warnings = (why_not_asked(question), superseded(question)) if question.open else ()
    return [f"⚠️ {escape(short(warning, 300))}" for warning in warnings if warning]
