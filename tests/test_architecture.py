"""Rules of ARCHITECTURE.md that import contracts cannot express."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each library, and the only modules that may know it.
HOMES = {
    "azure.ai": {"bot.azure_ml_worker"},
    "azure.devops": {"bot.azure_devops.wire"},
    "msrest": {"bot.azure_devops.wire"},
    "azure.identity": {"bot.credential"},
    "procrastinate": {"bot.inbox", "bot.database", "bot.migrations"},
    "slack_bolt": {"bot.doors"},
    "slack_sdk": {"bot.app", "bot.doors", "bot.slack", "bot.doctor"},
    "aiohttp": {"bot.__main__", "bot.app", "bot.azure_ml", "bot.doors", "bot.signin", "bot.slack", "bot.doctor"},
    "psycopg": {
        "bot.app",
        "bot.board",
        "bot.database",
        "bot.identity",
        "bot.inbox",
        "bot.lanes",
        "bot.signin",
        "bot.store",
        "bot.trail",
        "bot.migrations",
    },
    "msal": {"bot.identity"},
    "cryptography": {"bot.__main__", "bot.identity"},
    "alembic": {"bot.database", "bot.migrations"},
    "handlers": {"bot.__main__"},
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    """The product's modules by name."""
    for folder in ("bot", "handlers"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            yield name, ast.parse(file.read_text(), str(file))


def imported(tree: ast.Module) -> set[str]:
    """Every module that is imported anywhere in the file, for type checking too."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def inside(name: str, package: str) -> bool:
    """Whether the module is the package or in it."""
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize("library", HOMES)
def test_a_library_is_known_where_it_belongs_and_nowhere_else(library: str) -> None:
    strangers = {
        name
        for name, tree in modules()
        if any(inside(one, library) for one in imported(tree)) and not any(inside(name, home) for home in HOMES[library])
    }

    assert not strangers - {name for name, _ in modules() if inside(name, library)}


def test_every_session_goes_through_the_environment_s_proxy() -> None:
    bare = [
        f"{name}:{node.lineno}"
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("ClientSession")
        and not any(word.arg == "trust_env" and ast.unparse(word.value) == "True" for word in node.keywords)
    ]

    assert not bare


def swallows_everything(handler: ast.ExceptHandler) -> bool:
    """Whether it catches whatever comes, and does not pass it on."""
    everything = handler.type is None or ast.unparse(handler.type) in {"Exception", "BaseException"}
    last = handler.body[-1]
    return everything and not (isinstance(last, ast.Raise) and last.exc is None)


def test_only_one_place_catches_whatever_comes() -> None:
    catchers = [
        name for name, tree in modules() for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and swallows_everything(node)
    ]

    assert catchers == ["bot.app"]
