"""Short private answers: refusals that say what is possible, and notes."""

from __future__ import annotations

from collections.abc import Sequence

from bot.core.approvals import Denied
from bot.core.team import Model, People
from bot.messages.kit import Message, bullets, channel_link, code, escape, section, these
from bot.messages.limits import fit


def note(sentence: str) -> Message:
    """A sentence without markup."""
    return _said(escape(sentence))


def refusal(denied: Denied, may: People | None = None) -> Message:
    """Why not, and who may."""
    who = f" May: {these(may)}." if may is not None else ""
    return _said(f"🔒 {escape(denied.reason)}{who}")


def no_such_model(name: str, models: Sequence[Model]) -> Message:
    """The models there are, with their channels."""
    known = ", ".join(f"{code(model.name)} in {channel_link(model.channel)}" for model in models) or "none at all"
    return _said(f"There is no model {code(name)}. There is: {known}.")


def wrong_channel(model: Model) -> Message:
    """Where the model's commands belong."""
    return _said(f"{code(model.name)} belongs to {channel_link(model.channel)}: give the command there, where its team sees it.")


def no_model_here(models: Sequence[Model]) -> Message:
    """Where commands without a model's name can be given."""
    places = ", ".join(f"{channel_link(model.channel)} ({code(model.name)})" for model in models) or "none at all"
    return _said(f"No model belongs to this channel. Channels with models: {places}.")


def mistakes(sentences: Sequence[str]) -> Message:
    """Everything that is wrong with a command, at once."""
    return _said(f"Nothing was started:\n{bullets(sentences[:20])}")


def no_such_version(model: Model, wanted: str, versions: Sequence[str]) -> Message:
    """The versions there are, newest first."""
    known = ", ".join(code(version) for version in versions[:20]) or "none: nothing has been registered yet"
    return _said(f"{code(model.name)} has no version {code(wanted)}. Registered: {known}.")


def _said(text: str) -> Message:
    return fit(Message(text, blocks=[section(text)]))
