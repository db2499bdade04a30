"""The message that asks for Prod, what becomes of it, and the modals that take a decision."""

from __future__ import annotations

from dataclasses import dataclass

from bot.core.approvals import Answer, Approval, ApprovalState
from bot.core.models import Comparison, Delivery, ModelVersion
from bot.core.people import Asker
from bot.core.references import ApprovalOf
from bot.core.runs import Run
from bot.core.team import Environment, Model
from bot.messages.comparisons import VERDICTS, changes, smoke_words
from bot.messages.kit import (
    Block,
    Message,
    Modal,
    actions,
    asked,
    asked_plainly,
    button,
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
from bot.messages.runs import commit_link

REASON = 1000  # characters of a reason

VERBS = {Answer.APPROVE: "approved", Answer.REJECT: "rejected"}
OUTCOMES = {
    ApprovalState.APPROVED: ("✅", "Approved"),
    ApprovalState.REJECTED: ("⛔", "Rejected"),
    ApprovalState.CANCELED: ("🚫", "Canceled"),
    ApprovalState.TIMED_OUT: ("⌛", "Timed out"),
    ApprovalState.SKIPPED: ("⏭️", "Skipped"),
    ApprovalState.DEFERRED: ("🕓", "Deferred"),
    ApprovalState.PENDING: ("🚦", "Approval needed"),
}


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision that was made in Slack: who it was, and why, in their own words."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Question:
    """Everything that a decision is about; `serving` is what Prod serves now, None with `unknown` where nobody could say."""

    run: Run
    model: Model
    environment: Environment
    approval: Approval
    delivery: Delivery
    asker: Asker | None = None
    serving: ModelVersion | None = None
    unknown: bool = False
    decided: Decided | None = None

    @property
    def open(self) -> bool:
        """Whether somebody can still answer."""
        return self.approval.state is ApprovalState.PENDING and not self.run.state.finished


def approval_card(question: Question) -> Message:
    """What is to be deployed and what speaks for it; buttons while it is open, who decided, when and why afterwards."""
    what, where = _what(question), place(question.environment.name)
    mark, word = _outcome(question)
    if question.open:
        blocks = [header(f"{mark} Deploy {what} to {where}?"), *facts_of(question), *_ask(question)]
    else:
        blocks = [header(f"{mark} {word}: {what} for {where}"), *_answer(question), *facts_of(question), _record(question)]
    return fit(Message(_fallback(question, what), blocks=blocks))


def facts_of(question: Question, *, digest: bool = True) -> list[Block]:
    """The verdict and what led to it, then what would be deployed; the same in the channel and in the modal."""
    run, delivery = question.run, question.delivery
    comparison, version, image = delivery.comparison, delivery.version, delivery.image
    algorithm = f", {code(short(version.algorithm, 60))}" if version and version.algorithm else ""
    return [
        section("\n".join(_verdict(question, comparison))),
        facts(
            ("Model", f"{code(_what(question))}{algorithm}"),
            _before(question),
            ("Image", (code(image.digest[:19]) if image else "not known") if digest else ""),
            ("QA smoke test", _smoke(delivery)),
            ("Commit", commit_link(run)),
            ("Asked for by", asked(question.asker)),
        ),
    ]


def approve_form(question: Question) -> Modal:
    """The facts once more, and why."""
    return _form(question, Answer.APPROVE, "Approve", "Why is it fit for Prod?")


def reject_form(question: Question) -> Modal:
    """The facts once more, and why not."""
    return _form(question, Answer.REJECT, "Reject", "What has to change first?")


def pending_list(questions: list[Question], elsewhere: tuple[str, ...] = ()) -> Message:
    """What waits for a decision, with its buttons; `elsewhere` are channels where more waits."""
    more = [context(f"More waits in {', '.join(elsewhere)}.")] if elsewhere else []
    if not questions:
        return fit(Message("Nothing waits for approval here.", blocks=[section("Nothing waits for approval here."), *more]))
    blocks: list[Block] = []
    for question in questions[:15]:
        blocks += [
            section(
                f"🚦 *{escape(_what(question))}* to *{escape(place(question.environment.name))}*, "
                f"{link(question.run.url, f'run {question.run.number}')}, asked for by {asked(question.asker)}"
            ),
            _buttons(question),
        ]
    what = "; ".join(f"{escape(_what(one))} to {escape(place(one.environment.name))} (run {one.run.id})" for one in questions[:15])
    return fit(Message(f"{len(questions)} waiting for approval: {what}.", blocks=[*blocks, *more]))


def reason_errors(values: dict[str, str]) -> dict[str, str]:
    """What is wrong with the reason in a form, by block_id; it is asked for at once, before anything is sent."""
    reason = values.get("reason", "").strip()
    if not reason:
        return {"reason": "Say why: it goes on record in Azure DevOps."}
    if len(reason) > REASON:
        return {"reason": f"Use {REASON} characters at most; these are {len(reason)}."}
    return {}


def _form(question: Question, answer: Answer, title: str, ask: str) -> Modal:
    where, image = place(question.environment.name), question.delivery.image
    return fit(
        Modal(
            title=f"{title} for {where}" if len(title) + len(where) <= 19 else title,
            blocks=[
                *facts_of(question, digest=image is None),
                *([context(f"Image {code(image.digest)}")] if image else []),
                {
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
                },
            ],
            callback="approve" if answer is Answer.APPROVE else "reject",
            submit=title,
            close="Cancel",
            state={"approval": str(ApprovalOf(question.approval.ref, question.approval.id[:200]))},
        )
    )


def _what(question: Question) -> str:
    version = question.delivery.version
    return f"{question.model.name} version {short(version.version, 40)}" if version else question.model.name


def _outcome(question: Question) -> tuple[str, str]:
    if question.approval.state is ApprovalState.PENDING and question.run.state.finished:
        return "⏹️", "Ended before anybody decided"
    return OUTCOMES[question.approval.state]


def _fallback(question: Question, what: str) -> str:
    run, where = question.run, escape(place(question.environment.name))
    who = escape(asked_plainly(question.asker))
    if question.open:
        verdict = question.delivery.comparison
        said = f" Verdict {VERDICTS[verdict.verdict][1]}: {escape(short(verdict.rule, 300))}" if verdict else ""
        return f"🚦 Approval needed: {escape(what)} to {where}, run {escape(run.number)}, asked for by {who}.{said}"
    mark, word = _outcome(question)
    by, reason = _who(question), _reason(question)
    return f"{mark} {word}{by}: {escape(what)} for {where}, run {escape(run.number)}.{reason and f' Reason: {reason}'}"


def _ask(question: Question) -> list[Block]:
    """The buttons, who may press them, and under whose name the answer is recorded."""
    instructions = question.approval.instructions
    return [
        _buttons(question),
        context(
            f"May decide: {these(question.environment.approvers)}, but not whoever asked for the run. "
            f"{escape(short(instructions, 300))}\nRecorded in Azure DevOps under this app's identity, with your name in the comment."
        ),
    ]


def _buttons(question: Question) -> Block:
    reference = ApprovalOf(question.approval.ref, question.approval.id)
    return actions(
        f"decide:{reference}:{question.approval.attempt}",
        button("approve", "Approve", str(reference), style="primary"),
        button("reject", "Reject", str(reference)),
        *link_buttons(("open_run", "Open in Azure DevOps", question.run.url)),
    )


def _answer(question: Question) -> list[Block]:
    """Who decided, when and why; nothing where nobody did."""
    step, reason = question.approval.decided, _reason(question)
    at = f", {when(step.at)}" if step is not None and step.at else ""
    said = f"{_who(question)}{at}{reason and f': {reason}'}"
    return [section(f"*{_outcome(question)[1]}*{said}")] if said else []


def _record(question: Question) -> Block:
    """Where it is on record, and under whose name."""
    step = question.approval.decided
    run = link(question.run.url, f"Run {question.run.number} in Azure DevOps")
    if question.decided is None or step is None or step.actual is None:
        return context(run)
    return context(run, f"Decided in Slack, recorded there as {escape(short(step.actual.name, 100))}")


def _who(question: Question) -> str:
    """By whom, in mrkdwn: the person in Slack, else whom Azure DevOps names."""
    if question.decided is not None:
        return f" by {mention(question.decided.by)}"
    step = question.approval.decided
    return f" by {escape(short(step.actual.name, 100))}" if step is not None and step.actual is not None else ""


def _reason(question: Question) -> str:
    """Why, in mrkdwn, in the person's own words."""
    step = question.approval.decided
    said = question.decided.reason if question.decided is not None else step.comment if step is not None else ""
    return f"“{escape(short(said, REASON))}”" if said.strip() else ""


def _before(question: Question) -> tuple[str, str]:
    """What Prod serves now, while that is the question; later, what it was compared with."""
    comparison = question.delivery.comparison
    if not question.open:
        champion = comparison.champion if comparison else None
        return "Compared with", code(f"version {short(champion.version, 40)}") if champion and champion.version else ""
    if question.unknown:
        return "Prod serves now", "Azure ML could not say"
    return "Prod serves now", code(f"version {short(question.serving.version, 40)}") if question.serving else "nothing yet"


def _verdict(question: Question, comparison: Comparison | None) -> list[str]:
    if comparison is None:
        return ["⚠️ *No evaluation was handed on.*"]
    mark, word = VERDICTS[comparison.verdict]
    return [f"{mark} *{word}: {escape(short(comparison.rule, 500))}*", *_changes(question, comparison)]


def _smoke(delivery: Delivery) -> str:
    smoke = delivery.smoke.get("qa")
    if smoke is None:
        return "⚠️ none was handed on"
    if delivery.image is not None and smoke.digest not in {"", delivery.image.digest}:
        return f"⚠️ of another image: {code(short(smoke.digest, 20))}"
    return f"{'✅' if smoke.passed else '❌'} {smoke_words(smoke)}"


def _changes(question: Question, comparison: Comparison) -> list[str]:
    """The change per metric, and a warning where it is not against what Prod serves now."""
    lines = changes(comparison)[:10]
    against, serving = comparison.champion.version if comparison.champion else None, question.serving
    if question.open and serving is not None and serving.version != against:
        compared = f"version {short(against, 40)}" if against else "nothing"
        lines.append(f"⚠️ Prod serves version {escape(short(serving.version, 40))} now; this was compared with {escape(compared)}.")
    return lines
