"""What is asked before a run is started, and what is said once it has been."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bot.core.models import Contender, ModelVersion
from bot.core.parameters import limits
from bot.core.references import Thing
from bot.core.runs import Run, called, what_happened
from bot.core.team import Kind, Model, Parameter
from bot.messages.comparisons import metric_lines
from bot.messages.kit import Block, Message, Modal, actions, button, code, context, escape, facts, header, link, plain_text, section, short
from bot.messages.limits import fit

# Before the name of a parameter in the form's block_ids: a parameter may be called "model".
SETTING = "setting:"


def retrain_offer(operation: str, model: Model, settings: Mapping[str, str]) -> Message:
    """What a training would be, with Start and Cancel."""
    shown = " ".join(f"{name}={value}" for name, value in settings.items()) or "the defaults"
    text = f"Train {escape(model.name)} with {escape(short(shown, 500))}? Press Start in Slack; nothing has been started yet."
    return fit(
        Message(
            text,
            blocks=[
                header(f"Train {model.name}?"),
                facts(
                    ("Model", code(model.name)),
                    ("Branch", code(short(model.branch.removeprefix("refs/heads/"), 100))),
                    ("Settings", code(short(shown, 500))),
                ),
                _choice("retrain", operation),
                context("Trains, compares with the champion, deploys to QA. Prod is asked for separately."),
            ],
        )
    )


def promote_offer(operation: str, model: Model, version: ModelVersion, champion: ModelVersion | None) -> Message:
    """What a promotion would be, with Start and Cancel."""
    now = f"version {champion.version}" if champion else "nothing yet"
    text = f"Promote {escape(model.name)} version {escape(version.version)}? Prod serves {escape(now)}. Nothing has been started yet."
    changes = metric_lines(
        model.metrics,
        Contender(version.name, version.algorithm, version.metrics),
        Contender(champion.name, champion.algorithm, champion.metrics) if champion else None,
    )
    return fit(
        Message(
            text,
            blocks=[
                header(f"Promote {model.name} version {version.version}?"),
                facts(
                    ("Model", code(f"{model.name} version {short(version.version, 40)}")),
                    ("Prod serves now", code(short(now, 60))),
                    ("Algorithm", code(short(version.algorithm, 60)) if version.algorithm else ""),
                    ("Commit", code(version.commit[:8]) if version.commit else ""),
                ),
                *([section("\n".join(["*As registered:*", *changes[:10]]))] if changes else []),
                _choice("promote", operation),
                context("Evaluates it again, builds its image, deploys to QA. Prod is asked for separately."),
            ],
        )
    )


@dataclass(frozen=True, slots=True)
class Deed:
    """What is offered to be done with a run: `kind` is cancel, rerun or rollback; a rollback knows what to, and from what."""

    kind: str
    run: Run
    model: Model
    stage: str = ""
    version: ModelVersion | None = None
    serving: ModelVersion | None = None


def steer_offer(operation: str, deed: Deed) -> Message:
    """What would be done with a run, with Start and Cancel."""
    run, back = deed.run, deed.version
    match deed.kind:
        case "cancel":
            title, then = f"Stop {called(run)}?", "What it has not finished is not done. It can be started again."
        case "rerun":
            title = f"Run {deed.stage} of {called(run)} again?"
            then = (
                "Only the jobs that failed. What comes after it follows."
                if run.thing is Thing.RUN
                else "It is deployed again; approvals for it are asked for again."
            )
        case _:
            to = f"version {back.version}" if back else "what it served before"
            title, then = f"Roll {deed.model.name} back to {to}?", "Approval is asked for again, as a new message."
    return fit(
        Message(
            f"{escape(title)} Nothing has been done yet.",
            blocks=[
                header(title),
                facts(
                    (run.thing.value.capitalize(), link(run.url, called(run))),
                    ("State", escape(what_happened(run))),
                    ("Prod serves now", code(f"version {short(deed.serving.version, 40)}") if deed.serving else ""),
                    ("It deployed", code(f"version {short(back.version, 40)}") if back else ""),
                ),
                _choice("steer", operation),
                context(then),
            ],
        )
    )


def started_note(run: Run, model: Model, *, again: bool = False) -> Message:
    """The run that an operation has started."""
    text = f"{'This was started already' if again else 'Started'}: {link(run.url, called(run))} of {escape(model.name)}."
    return fit(Message(f"✅ {text} Its card is in the channel.", blocks=[section(f"✅ {text} Its card is in the channel.")]))


def retrain_form(models: Sequence[Model]) -> Modal:
    """A training's settings as a form: the model, and an input for each parameter that any of the models has."""
    options = [{"text": plain_text(model.name), "value": model.name} for model in models]
    parameters = {parameter.name: parameter for model in models for parameter in model.parameters}
    return fit(
        Modal(
            title="Train a model",
            blocks=[
                {
                    "type": "input",
                    "block_id": "model",
                    "label": plain_text("Model"),
                    "element": {
                        "type": "static_select",
                        "action_id": "model",
                        "options": options,
                        "initial_option": options[0],
                    },
                },
                *(_input(parameter) for parameter in list(parameters.values())[:90]),
            ],
            callback="retrain",
            submit="Start",
            close="Cancel",
        )
    )


def _input(parameter: Parameter) -> Block:
    """An optional input; what is left empty keeps the default of callboard.toml."""
    accepted = limits(parameter)
    hint = f"{parameter.help.rstrip('.') + '. ' if parameter.help else ''}{accepted[:1].upper()}{accepted[1:]}."
    element: dict[str, object] = {"action_id": parameter.name[:255], "placeholder": plain_text("Default")}
    if parameter.kind is Kind.CHOICE:
        element |= {"type": "static_select", "options": [{"text": plain_text(one), "value": one} for one in parameter.choices]}
    else:
        element |= {"type": "plain_text_input", "max_length": 40}
    return {
        "type": "input",
        "block_id": f"{SETTING}{parameter.name}"[:255],
        "optional": True,
        "label": plain_text(parameter.name),
        "hint": plain_text(hint),
        "element": element,
    }


def _choice(kind: str, operation: str) -> Block:
    return actions(
        f"{kind}:{operation}",
        button(f"{kind}_start", "Start", operation, style="primary"),
        button(f"{kind}_cancel", "Cancel", operation),
    )
