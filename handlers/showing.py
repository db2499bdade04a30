"""Makes the channel show a run or a release as it is now. No feature: features call it instead of each other.

Everything is read again and shown whole, so it may be called at any time, any number of times.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from bot.core import delivery
from bot.core.approvals import Approval, ApprovalState
from bot.core.deciding import Case, Decided, Vote
from bot.core.errors import Gone, OutsideError
from bot.core.models import Comparison, Delivery, champion_of
from bot.core.policy import awaited, belongs, model_of
from bot.core.references import Ref, Thing, token
from bot.core.runs import EVALUATE, Run, State, asker, called, failed_stages, parameter, settled, with_source
from bot.core.team import Environment, Model
from bot.messages.approvals import approval_card
from bot.messages.comparisons import comparison_card, smoke_card, unreadable_card
from bot.messages.failures import failure_card, refused_card
from bot.messages.runs import run_card
from bot.ports import Bot, File, Operation, Pipelines

log = logging.getLogger(__name__)


async def refresh(bot: Bot, ref: Ref) -> Run:
    """Read the run or release, and show everything there is to show about it; nothing for what no model has. Raises Gone."""
    reading = await bot.board.reading()
    run = await read(bot.pipelines, ref)
    model = model_of(bot.team, run)
    if model is None:
        return run
    asked = asker(run, await asked_in_slack(bot, run))
    await bot.board.show(model.channel, subject(run), run_card(run, model, asked), reading=reading)
    if run.thing is Thing.RUN:
        await _show_comparison(bot, run, model)
    await _show_failures(bot, run, model)
    await _show_smoke_tests(bot, run, model)
    await _show_approvals(bot, run, model, reading)
    await bot.store.watch(run.ref, final=settled(run))
    return run


async def read(pipelines: Pipelines, ref: Ref) -> Run:
    """The run or release, as this identity sees it; a release together with what the run says that it deploys. Raises Gone."""
    if ref.thing is Thing.RUN:
        return await pipelines.run(ref.id)
    release = await pipelines.release(ref.id)
    if release.source is None:
        return release
    try:
        return with_source(release, await pipelines.run(release.source))
    except Gone:  # runs are deleted after a while
        return release


def subject(run: Run, *parts: object) -> str:
    """What a message is about, for the board."""
    return "/".join([str(run.ref), *(str(part) for part in parts)])


async def asked_in_slack(bot: Bot, run: Run) -> str | None:
    """The Slack user whose operation started the run, or the run that the release deploys."""
    request = parameter(run, "requestId")
    operation = await bot.store.operation(request) if request is not None else None
    return operation.person if operation is not None else None


async def question(bot: Bot, run: Run, model: Model, approval: Approval, environment: Environment) -> Case:
    """Everything that a decision is about, as it is now."""
    try:
        serving, unknown = champion_of(await bot.models.versions(model.name)), False
    except OutsideError as error:
        log.warning("Azure ML could not say what %s serves: %s", environment.name, error)
        serving, unknown = None, True
    rollbacks = [one for one in await bot.store.operations_of("rollback", str(run.ref)) if one.state in {"doing", "done"}]
    return Case(
        run=run,
        model=model,
        environment=environment,
        approval=approval,
        delivery=await _delivered(bot, run),
        asker=asker(run, await asked_in_slack(bot, run)),
        serving=serving,
        unknown=unknown,
        decided=await _decided(bot, approval),
        votes=await votes(bot, approval),
        rollback=any(one.detail.get("stage") == approval.stage for one in rollbacks),
        service=bot.team.service_identity,
    )


async def handed_on(bot: Bot, run: Run) -> Mapping[str, bytes]:
    """The files that the run, or the one that the release deploys, has handed on so far; none where that one is deleted."""
    if run.thing is Thing.RUN:
        return await bot.pipelines.artifact(run.id, "delivery")
    if run.source is None:
        return {}
    try:
        return await bot.pipelines.artifact(run.source, "delivery")
    except Gone:  # runs are deleted after a while
        return {}


async def votes(bot: Bot, approval: Approval) -> tuple[Vote, ...]:
    """Who has agreed and waits for others to."""
    held = await bot.store.operations_of("vote", about(approval))
    return tuple(Vote(one.person, one.detail.get("identity", ""), one.detail.get("reason", "")) for one in held)


def card_of(approval: Approval) -> str:
    """What the message about an approval is called: a stage of a run asks once, a stage of a release asks each approver."""
    if approval.thing is Thing.RELEASE:
        return about(approval)
    return f"{approval.ref}/approval/{approval.stage}/{approval.attempt}"


def about(approval: Approval) -> str:
    """What an approval is called in the audit trail, and by the operations that belong to it."""
    return f"{approval.ref}/approval/{approval.id}"


async def _show_comparison(bot: Bot, run: Run, model: Model) -> None:
    """The comparison and its chart, once the evaluate stage is over; a repeated evaluation replaces it."""
    stage = run.stage(EVALUATE)
    if stage is None or not stage.state.finished or stage.state is State.SKIPPED:
        return
    drawn = _Drawn(bot, run, "comparison", stage.attempt)
    if await drawn.before():
        return
    files = await bot.pipelines.artifact(run.id, "evaluation")
    content = delivery.pick(files, "evaluation.json")
    if content is None:
        return
    try:
        message = comparison_card(delivery.comparison(content), run)
    except delivery.Unreadable as error:
        log.error("Run %s: %s", run.id, error)  # noqa: TRY400 the sentence says it all
        message = unreadable_card(str(error), run)
    await bot.board.show(model.channel, subject(run, "comparison"), message, under=subject(run))
    chart = delivery.pick(files, "candidates.png")
    if chart is not None:
        picture = File("candidates.png", f"The contenders of run {run.number}", chart)
        await bot.board.attach(model.channel, subject(run, "chart"), picture, under=subject(run))
    await drawn.now()


async def _show_failures(bot: Bot, run: Run, model: Model) -> None:
    """Why each failed stage failed; once per attempt, because reading logs is slow and a finished attempt does not change."""
    if run.state is State.FAILED and not run.stages:
        await _show_refusal(bot, run, model)
    for stage in failed_stages(run):
        drawn = _Drawn(bot, run, "failure", stage.name, stage.attempt)
        if await drawn.before():
            continue
        failure = await bot.pipelines.failure(run)
        if failure is not None and failure.stage not in {stage.name, stage.title} and len(failed_stages(run)) > 1:
            failure = None  # it tells of the other stage
        await bot.board.show(model.channel, drawn.subject, failure_card(run, model, stage, failure), under=subject(run))
        await drawn.now()


async def _show_refusal(bot: Bot, run: Run, model: Model) -> None:
    """Why a run failed without coming to any stage."""
    drawn = _Drawn(bot, run, "failure")
    if await drawn.before():
        return
    failure = await bot.pipelines.failure(run)
    if failure is not None:
        await bot.board.show(model.channel, drawn.subject, refused_card(run, model, failure), under=subject(run))
        await drawn.now()


async def _show_smoke_tests(bot: Bot, run: Run, model: Model) -> None:
    """What each environment's endpoint answered once its stage had deployed it."""
    for environment in bot.team.environments.values():
        stage = run.stage(environment.stage_of(run.thing))
        if stage is None or stage.state not in {State.SUCCEEDED, State.PARTIAL, State.FAILED}:
            continue
        drawn = _Drawn(bot, run, "smoke", environment.name, stage.attempt)
        if await drawn.before():
            continue
        name = f"{environment.name}.json"
        content = delivery.pick(await _tested(bot, run, environment.name), name)
        if content is None:
            continue
        try:
            message = smoke_card(model.name, delivery.smoke_test(content, name), run)
        except delivery.Unreadable as error:
            log.error("%s: %s", called(run), error)  # noqa: TRY400
            continue
        await bot.board.show(model.channel, drawn.subject, message, under=subject(run))
        await drawn.now()


async def _show_approvals(bot: Bot, run: Run, model: Model, reading: int) -> None:
    """The approvals of environments that are decided on in Slack, drawn once for each state they come to."""
    if not awaited(bot.team, run):
        return
    for approval in await bot.pipelines.approvals(run):
        environment = belongs(bot.team, approval)
        if environment is None:
            continue
        ended = approval.state is ApprovalState.PENDING and run.state.finished
        agreed = len(approval.approved_by) + len(await votes(bot, approval))
        names = "+".join(step.assigned.id or step.assigned.name for step in approval.steps)
        drawn = _Drawn(bot, run, "approval", approval.id, approval.state.value, "ended" if ended else "", agreed, token("approvers", names))
        if await drawn.before():
            continue
        asks = await question(bot, run, model, approval, environment)
        await bot.board.show(model.channel, card_of(approval), approval_card(asks), reading=reading)
        if not asks.unknown:
            await drawn.now()


class _Drawn:
    """Something that is shown once: what it tells is slow to read, and does not change any more."""

    def __init__(self, bot: Bot, run: Run, *parts: object) -> None:
        self._bot = bot
        self.subject = subject(run, *parts)

    async def before(self) -> bool:
        """Whether the board has it already."""
        return await self._bot.store.operation(token("drawn", self.subject)) is not None

    async def now(self) -> None:
        """The board has it: do not read it again."""
        await self._bot.store.offer(Operation(token("drawn", self.subject), "drawn", "", self.subject, "done", {}, self._bot.now()))


async def _delivered(bot: Bot, run: Run) -> Delivery:
    """What the run, or the one that the release deploys, has handed on so far; what cannot be read is missing, and the card says so."""
    files = await handed_on(bot, run)
    tested = await _tested(bot, run, "qa")
    evaluation, version, image = (delivery.pick(files, name) for name in ("evaluation.json", "model.json", "image.json"))
    qa = delivery.pick(tested, "qa.json")
    made = Delivery()
    try:
        comparison: Comparison | None = delivery.comparison(evaluation) if evaluation is not None else None
        made = Delivery(
            comparison,
            delivery.version(version) if version is not None else None,
            delivery.image(image) if image is not None else None,
            {"qa": delivery.smoke_test(qa, "qa.json")} if qa is not None else {},
        )
    except delivery.Unreadable as error:
        log.error("%s: %s", called(run), error)  # noqa: TRY400
    return made


async def _tested(bot: Bot, run: Run, environment: str) -> Mapping[str, bytes]:
    """The smoke test of an environment: an artifact of a run; a release has none, its tasks carry it."""
    if run.thing is Thing.RUN:
        return await bot.pipelines.artifact(run.id, environment)
    known = bot.team.environments.get(environment)
    return await bot.pipelines.attached(run, known.release_stage) if known is not None and known.release_stage else {}


async def _decided(bot: Bot, approval: Approval) -> Decided | None:
    """Who decided in Slack, if the answer on record is theirs: our operation, by whom Azure DevOps names."""
    step = approval.decided
    if step is None or step.actual is None:
        return None
    for operation in reversed(await bot.store.operations_of("decide", about(approval))):
        ours = operation.detail.get("identity") == (step.actual.id or step.actual.name) and operation.person in step.comment
        if ours and operation.detail.get("answer") == step.state.value and operation.state in {"doing", "done"}:
            return Decided(operation.person, operation.detail.get("reason", ""))
    return None
