"""The project's git repository: bare, under the sandbox's folder, seeded from the working tree and changed by merged pull requests only."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from sandbox.names import ADA, Character

MAIN = "refs/heads/main"
# What the working tree looked like when it was last taken over: tells a developer's edit from a merge made in the sandbox.
SEED = "refs/sandbox/seed"
CONTENT = ("deploy", "callboard.toml", "requirements.lock", "pyproject.toml", "README.md")

_RECORD = "%H%x00%P%x00%an%x00%ae%x00%aI%x00%cn%x00%ce%x00%cI%x00%T%x00%B"


class NoSuchThing(Exception):
    """The repository has no such commit, branch or file; the message says which."""


@dataclass(frozen=True, slots=True)
class Signature:
    """Who did it, and when."""

    name: str
    email: str
    date: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """One file of a commit, compared with the commit's first parent; `kind` is `add`, `edit` or `delete`."""

    path: str
    kind: str


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit."""

    sha: str
    parents: tuple[str, ...]
    author: Signature
    committer: Signature
    tree: str
    message: str

    @property
    def title(self) -> str:
        """The first line of the message."""
        return self.message.partition("\n")[0]


class Repository:
    """Git through its command line, with the identities given here and nothing of the user's own configuration."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        self._root = root

    def seed(self) -> None:
        """Make the repository on first use; later, take over what changed in the working tree since, and keep every merge."""
        if not (self.folder / "HEAD").exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._git("init", "--quiet", "--bare", "--initial-branch=main", str(self.folder))
        now = self._snapshot()
        if self._ref(SEED) is None:
            self._git("update-ref", MAIN, self._commit(now, (), ADA, "Train, evaluate and deliver the diabetes model"))
        elif changed := self._changed(self._tree(SEED), now):
            files = {path: self._git("cat-file", "blob", f"{now}:{path}") if kind != "delete" else None for path, kind in changed}
            before = self.head()
            tree = self._with(before, files)
            if tree != self._tree(before):
                after = self._commit(tree, (before,), ADA, "Take over the working tree\n\n" + "\n".join(sorted(files)))
                self._git("update-ref", MAIN, after, before)
        else:
            return
        self._git("update-ref", SEED, self._commit(now, (), ADA, "Seed"))

    def head(self, branch: str = MAIN) -> str:
        """The commit a branch points to. Raises NoSuchThing."""
        sha = self._ref(branch if branch.startswith("refs/") else f"refs/heads/{branch}")
        if sha is None:
            raise NoSuchThing(f"The branch {branch} does not exist.")
        return sha

    def branches(self) -> dict[str, str]:
        """Branches and the commits they point to, by full name."""
        lines = self._git("for-each-ref", "--format=%(refname) %(objectname)", "refs/heads").decode().splitlines()
        return dict(line.split(" ", 1) for line in lines)

    def commit(self, sha: str) -> Commit:
        """One commit, by its (abbreviated) sha. Raises NoSuchThing."""
        found = self._log("-1", self._resolve(sha))
        return found[0]

    def commits(self, start: str = MAIN, limit: int = 50, skip: int = 0) -> tuple[Commit, ...]:
        """The first parents' history from a commit or branch, newest first. Raises NoSuchThing."""
        return self._log("--first-parent", f"-{limit}", f"--skip={skip}", self._resolve(start))

    def changes(self, sha: str) -> tuple[Change, ...]:
        """What a commit changed against its first parent."""
        commit = self.commit(sha)
        before = self._tree(commit.parents[0]) if commit.parents else self._empty()
        return tuple(Change(path, kind) for path, kind in self._changed(before, commit.tree))

    def diff(self, sha: str) -> str:
        """A commit's changes against its first parent, as a unified diff."""
        commit = self.commit(sha)
        before = commit.parents[0] if commit.parents else self._empty()
        return self._git("diff", "--no-color", "--no-ext-diff", "-M", before, commit.sha).decode(errors="replace")

    def files(self, version: str = MAIN) -> tuple[str, ...]:
        """Every file of a version."""
        listed = self._git("ls-tree", "-r", "-z", "--name-only", self._resolve(version)).decode()
        return tuple(path for path in listed.split("\0") if path)

    def read(self, path: str, version: str = MAIN) -> str:
        """A file's text. Raises NoSuchThing."""
        if not _plain(path):
            raise NoSuchThing(f"The file {path} does not exist.")
        try:
            return self._git("cat-file", "blob", f"{self._resolve(version)}:{path}").decode(errors="replace")
        except subprocess.CalledProcessError:
            raise NoSuchThing(f"The file {path} does not exist at {version}.") from None

    def export(self, version: str, folder: Path) -> None:
        """Write every file of a version into the folder. Raises NoSuchThing."""
        packed = self._git("archive", "--format=tar", self._resolve(version))
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")

    def merge(self, author: Character, message: str, changes: Mapping[str, str], *, number: int) -> str:
        """Merge pull request `number`, which gives these files new content, into main; returns the merge commit's sha.

        Without a change of content there is nothing to merge. Raises NoSuchThing for a path outside the repository.
        """
        if wrong := [path for path in changes if not _plain(path)]:
            raise NoSuchThing(f"Not a path of this repository: {wrong[0]}")
        before = self.head()
        tree = self._with(before, {path: content.encode() for path, content in changes.items()})
        if tree == self._tree(before):
            raise NoSuchThing("The change leaves every file as it is: there is nothing to merge.")
        topic = self._commit(tree, (before,), author, message)
        merged = self._commit(tree, (before, topic), author, f"Merged PR {number}: {message}")
        self._git("update-ref", MAIN, merged, before)
        return merged

    def _snapshot(self) -> str:
        """The tree of the working tree's content."""
        return self._with(None, {path: (self._root / path).read_bytes() for path in _content(self._root)}, root=self._root)

    def _with(self, base: str | None, files: Mapping[str, bytes | None], root: Path | None = None) -> str:
        """A tree like that of the commit `base`, with these files changed (None deletes)."""
        with tempfile.TemporaryDirectory() as folder:
            index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
            if base:
                self._git("read-tree", base, environment=index)
            lines = []
            for path, content in files.items():
                if content is None:
                    lines.append(f"0 {'0' * 40}\t{path}")
                    continue
                blob = self._git("hash-object", "-w", "--stdin", feed=content).decode().strip()
                mode = "100755" if root and os.access(root / path, os.X_OK) else "100644"
                lines.append(f"{mode} {blob}\t{path}")
            self._git("update-index", "-z", "--index-info", feed="".join(line + "\0" for line in lines).encode(), environment=index)
            return self._git("write-tree", environment=index).decode().strip()

    def _commit(self, tree: str, parents: Sequence[str], author: Character, message: str) -> str:
        who = {
            f"GIT_{role}_{part}": value
            for role in ("AUTHOR", "COMMITTER")
            for part, value in (("NAME", author.name), ("EMAIL", author.email))
        }
        options = [word for parent in parents for word in ("-p", parent)]
        return self._git("commit-tree", tree, *options, feed=message.encode(), environment=who).decode().strip()

    def _changed(self, before: str, after: str) -> list[tuple[str, str]]:
        words = self._git("diff-tree", "-r", "-z", "--no-renames", "--name-status", before, after).decode().split("\0")
        kinds = {"A": "add", "D": "delete"}
        return [(path, kinds.get(letter, "edit")) for letter, path in zip(words[0::2], words[1::2], strict=False)]

    def _log(self, *options: str) -> tuple[Commit, ...]:
        records = self._git("log", "-z", f"--format={_RECORD}", *options, "--").decode(errors="replace")
        fields = records.rstrip("\0").split("\0")
        return tuple(_commit_of(fields[at : at + 10]) for at in range(0, len(fields) - 9, 10))

    def _ref(self, name: str) -> str | None:
        try:
            return self._git("rev-parse", "--verify", "--quiet", "--end-of-options", name).decode().strip()
        except subprocess.CalledProcessError:
            return None

    def _resolve(self, version: str) -> str:
        sha = self._ref(f"{version}^{{commit}}")
        if sha is None:
            raise NoSuchThing(f"The commit {version} does not exist in this repository.")
        return sha

    def _tree(self, commit: str) -> str:
        return self._git("rev-parse", f"{commit}^{{tree}}").decode().strip()

    def _empty(self) -> str:
        return self._git("hash-object", "-t", "tree", "--stdin", feed=b"").decode().strip()

    def _git(self, *words: str, feed: bytes | None = None, environment: Mapping[str, str] | None = None) -> bytes:
        command = ["git", "-c", "core.quotePath=false", "-c", "gc.auto=0", *words]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        alone = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_TERMINAL_PROMPT": "0", "GIT_DIR": str(self.folder)}
        done = subprocess.run(command, input=feed, capture_output=True, check=True, env=clean | alone | dict(environment or {}), timeout=60)
        return done.stdout


def _plain(path: str) -> bool:
    """Whether this is a relative path that stays inside."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and not {"..", ".git"} & set(parts) and "\0" not in path


def _content(root: Path) -> list[str]:
    """The files of the working tree that the pipeline needs: what git would track, or all of them where there is no git."""
    try:
        listed = subprocess.run(
            ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *CONTENT],
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout.decode()
        names = {name for name in listed.split("\0") if name}
    except (subprocess.CalledProcessError, FileNotFoundError):
        names = set()
    if not names:
        places = [root / name for name in CONTENT]
        found = [file for place in places for file in (place.rglob("*") if place.is_dir() else [place])]
        names = {file.relative_to(root).as_posix() for file in found if "__pycache__" not in file.parts}
    return sorted(name for name in names if (root / name).is_file() and not (root / name).is_symlink())


def _commit_of(fields: Sequence[str]) -> Commit:
    sha, parents, author, author_email, authored, committer, committer_email, committed, tree, message = fields
    return Commit(
        sha=sha,
        parents=tuple(parents.split()),
        author=Signature(author, author_email, datetime.fromisoformat(authored)),
        committer=Signature(committer, committer_email, datetime.fromisoformat(committed)),
        tree=tree,
        message=message.strip(),
    )
