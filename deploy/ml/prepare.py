"""Stage `prepare`: the Python that the other stages run with, exactly as `requirements.lock` says.

An agent whose own Python satisfies the lock uses it; any other gets a virtual environment, kept in its tools folder under the lock's hash.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from deploy.ml import stage

LOCK = Path(__file__).with_name("requirements.lock")
_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)(?:\s*;\s*(?P<marker>[^\\]+))?", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Pin:
    """One line of the lock; `marker` says on which Pythons and systems it counts."""

    name: str
    version: str
    marker: str = ""


def pins(lock: str) -> tuple[Pin, ...]:
    """Every pin of a lock."""
    return tuple(Pin(found["name"], found["version"], (found["marker"] or "").strip()) for found in _PIN.finditer(lock))


def key(lock: str) -> str:
    """A short name for a lock's content on this Python."""
    return hashlib.sha256(lock.encode()).hexdigest()[:12]


def missing(wanted: Sequence[Pin], installed: Mapping[str, str]) -> Iterator[str]:
    """What keeps this interpreter from satisfying the pins, one sentence each; `installed` maps normalized names to versions."""
    for pin in wanted:
        if pin.marker and not _counts(pin.marker):
            continue
        has = installed.get(_normal(pin.name))
        if has is None:
            yield f"{pin.name} {pin.version} is not installed"
        elif has != pin.version:
            yield f"{pin.name} is {has}, the lock says {pin.version}"


def installed() -> dict[str, str]:
    """What this interpreter can import, by normalized name."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        # The folder's name says it without the file in it being parsed: a tenth of the time.
        folder = getattr(getattr(distribution, "_path", None), "name", "")
        name, _, version = folder.removesuffix(".dist-info").partition("-") if folder.endswith(".dist-info") else ("", "", "")
        found.setdefault(_normal(name or distribution.metadata["Name"]), version or distribution.version)
    return found


def make(lock: Path, folder: Path) -> Path:
    """A virtual environment with what the lock says; made once, whole or not at all. Raises Failed."""
    python = folder / "bin" / "python"
    whole = folder / "whole"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)  # the other agents of this machine have the same tools folder
        if whole.exists():
            return python
        shutil.rmtree(folder, ignore_errors=True)
        stage.say(f"Making {folder}")
        for command in (
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--require-hashes", "-r", str(lock)],
        ):
            if subprocess.run(command, check=False).returncode:
                raise stage.Failed(f"The environment could not be made: {' '.join(command[1:4])} failed; see the lines above.")
        whole.touch()
    return python


def main(argv: Sequence[str]) -> None:
    """Tell the pipeline which Python to use."""
    if argv:
        raise stage.Failed(f"This script takes no arguments, not {' '.join(argv)}.")
    lock = LOCK.read_text(encoding="utf-8")
    lacking = list(missing(pins(lock), installed()))
    if not lacking:
        stage.say(f"{sys.executable} satisfies {LOCK.name}")
        stage.set_variable("python", sys.executable)
        return
    for sentence in lacking[:5]:
        stage.say(sentence)
    if len(lacking) > 5:
        stage.say(f"and {len(lacking) - 5} more")
    tools = Path(os.environ.get("AGENT_TOOLSDIRECTORY") or Path.home() / ".cache")
    name = f"{key(lock)}-{sys.implementation.cache_tag}"
    stage.set_variable("python", str(make(LOCK, tools / "cache" / "callboard-ml" / name)))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _counts(marker: str) -> bool:
    # A bare Python has the module that reads markers only inside its pip.
    try:
        markers = importlib.import_module("packaging.markers")
    except ImportError:
        markers = importlib.import_module("pip._vendor.packaging.markers")
    return bool(markers.Marker(marker).evaluate())


if __name__ == "__main__":
    stage.run(main)
