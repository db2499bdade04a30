"""The README tells the truth about commands, settings and files."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from bot.routing import Command
from handlers import router

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def row(command: Command, own: frozenset[str]) -> str:
    """A command's line in the README's table; those that Slack does not know by themselves stand behind `/mlops`."""
    usage = f" {command.usage}".replace("|", r"\|") if command.usage else ""  # a bare | ends the cell, in code too
    behind = "" if f"/{command.name}" in own else "mlops "
    return f"| `/{behind}{command.name}{usage}` | {command.help} |"


def between(text: str, name: str) -> str:
    """What stands between two marks."""
    found = re.search(rf"<!-- {name}\b[^>]*-->\n(.*?)<!-- /{name} -->", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_table_of_commands_is_the_code_s() -> None:
    manifest = json.loads((ROOT / "deploy" / "bot" / "manifest.json").read_text())
    own = frozenset(command["command"] for command in manifest["features"]["slash_commands"])
    rows = [row(command, own) for command in router.commands.values()]
    text = README.read_text()
    if os.environ.get("UPDATE_GOLDEN"):
        text = text.replace(between(text, "commands"), "| command | what it does |\n|---|---|\n" + "\n".join(rows) + "\n")
        README.write_text(text)

    table = between(text, "commands").splitlines()

    assert table == ["| command | what it does |", "|---|---|", *rows]


def test_every_file_that_a_document_links_to_is_there() -> None:
    for document in (README, ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", ROOT / "deploy" / "README.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for document in (README, ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"`make ([a-z]+)`", document.read_text()):
            assert re.search(rf"(?m)^{target}:", makefile), f"make {target}"
