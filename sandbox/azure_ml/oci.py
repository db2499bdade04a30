"""Images without a container engine: a Dockerfile's instructions carried out as far as files go, kept in an OCI image layout.

Everything here is deterministic: the same context gives the same digest. RUN is written into the image's history and not carried out;
the sandbox serves an image with the Python of this machine.
Formats: https://github.com/opencontainers/image-spec (layout, manifest, config), https://docs.docker.com/reference/dockerfile/
"""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
import re
import shlex
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
_TAG = "org.opencontainers.image.ref.name"
EPOCH = "1970-01-01T00:00:00Z"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
# Every instruction Docker knows; those we do not carry out are refused under their own name.
_CARRIED_OUT = frozenset({"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "LABEL", "RUN", "USER", "WORKDIR"})
_DOCKERS = _CARRIED_OUT | {"ADD", "HEALTHCHECK", "MAINTAINER", "ONBUILD", "SHELL", "STOPSIGNAL", "VOLUME"}


class BuildFailed(Exception):
    """The build ends here; the message is the line Docker would print."""


class Corrupt(Exception):
    """What is stored does not have the digest it is stored under."""


class Unknown(Exception):
    """The repository holds no such tag or digest."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a Dockerfile: its upper-case word, its arguments as written, and the line it starts on."""

    word: str
    rest: str
    line: int

    def __str__(self) -> str:
        return f"{self.word} {self.rest}"


@dataclass(frozen=True, slots=True)
class Image:
    """What a container needs to know of an image: how to start it, and its layers from the lowest to the highest."""

    digest: str
    command: tuple[str, ...]
    folder: str
    environment: Mapping[str, str]
    ports: tuple[int, ...]
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Draft:
    """An image half built. `base` is empty until FROM; `given` are the build's arguments, `declared` those that ARG has named."""

    given: Mapping[str, str] = field(default_factory=dict)
    declared: Mapping[str, str] = field(default_factory=dict)
    base: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    folder: str = "/"
    user: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    history: tuple[Mapping[str, Any], ...] = ()


def parse(text: str) -> tuple[Instruction, ...]:
    """The instructions of a Dockerfile. Raises BuildFailed."""
    found: list[Instruction] = []
    pending, start = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line.startswith("#") or (not line and not pending):
            continue
        start = start if pending else number
        pending += line
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        word, _, rest = pending.partition(" ")
        pending = ""
        if word.upper() not in _DOCKERS:
            raise BuildFailed(f"dockerfile parse error on line {start}: unknown instruction: {word}")
        if not rest.strip():
            raise BuildFailed(f"dockerfile parse error on line {start}: {word.upper()} requires at least one argument")
        found.append(Instruction(word.upper(), rest.strip(), start))
    if not found:
        raise BuildFailed("the Dockerfile cannot be empty")
    if next((each.word for each in found if each.word != "ARG"), "") != "FROM":
        raise BuildFailed("no build stage in current context")
    return tuple(found)


class Layout:
    """One repository's images in a folder: `oci-layout`, `index.json` and `blobs/sha256/...`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def build(self, context: Path, dockerfile: str, say: Callable[[str], None], arguments: Mapping[str, str] | None = None) -> str:
        """Build the image of a context folder and keep it; returns its digest. Raises BuildFailed."""
        instructions = parse(_dockerfile(context, dockerfile))
        draft = _Draft(given=arguments or {})
        for number, instruction in enumerate(instructions, 1):
            say(f"Step {number}/{len(instructions)} : {instruction}")
            draft = self._step(draft, instruction, context, say)
        digest = self._keep(_json(self._manifest(draft)))
        say(f"Successfully built {digest.removeprefix('sha256:')[:12]}")
        return digest

    def tag(self, digest: str, tag: str) -> None:
        """Let the tag name the image; what it named before stays, without a tag."""
        others = [{key: value for key, value in entry.items() if _tag(entry) != tag or key != "annotations"} for entry in self._index()]
        kept = [entry for entry in others if _tag(entry) or entry["digest"] != digest]
        entry = {"mediaType": MANIFEST, "digest": digest, "size": len(self.blob(digest)), "annotations": {_TAG: tag}}
        (self.folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        (self.folder / "index.json").write_bytes(_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [*kept, entry]}))

    def tags(self) -> dict[str, str]:
        """Digests by tag."""
        return {tag: entry["digest"] for entry in self._index() if (tag := _tag(entry))}

    def resolve(self, reference: str) -> str:
        """The digest of a manifest's tag or digest. Raises Unknown."""
        known = {entry["digest"]: entry["digest"] for entry in self._index()} | self.tags()
        if reference not in known:
            raise Unknown(reference)
        return str(known[reference])

    def blob(self, digest: str) -> bytes:
        """The content under a digest, checked. Raises Unknown and Corrupt."""
        file = self._file(digest)
        if not DIGEST.fullmatch(digest) or not file.is_file():
            raise Unknown(digest)
        content = file.read_bytes()
        if _digest(content) != digest:
            raise Corrupt(digest)
        return content

    def image(self, reference: str) -> Image:
        """The image of a tag or digest. Raises Unknown and Corrupt."""
        digest = self.resolve(reference)
        manifest = json.loads(self.blob(digest))
        config = json.loads(self.blob(manifest["config"]["digest"]))["config"]
        return Image(
            digest=digest,
            command=(*config.get("Entrypoint", ()), *config.get("Cmd", ())),
            folder=config.get("WorkingDir", "/"),
            environment=dict(pair.split("=", 1) for pair in config.get("Env", ())),
            ports=tuple(int(port.partition("/")[0]) for port in config.get("ExposedPorts", {})),
            layers=tuple(layer["digest"] for layer in manifest["layers"]),
        )

    def unpack(self, image: Image, target: Path) -> None:
        """Extract the layers into a folder, the lowest first. Raises Corrupt."""
        target.mkdir(parents=True, exist_ok=True)
        for layer in image.layers:
            with tarfile.open(fileobj=io.BytesIO(self.blob(layer))) as tar:
                tar.extractall(target, filter="data")

    def _step(self, draft: _Draft, instruction: Instruction, context: Path, say: Callable[[str], None]) -> _Draft:
        rest = _expand(instruction.rest, {**draft.declared, **draft.environment})
        history = {"created": EPOCH, "created_by": f"{instruction.word} {rest}", "empty_layer": instruction.word != "COPY"}
        draft = replace(draft, history=(*draft.history, history))
        match instruction.word:
            case "FROM":
                if draft.base:
                    raise BuildFailed("the sandbox builds one stage only; this Dockerfile has a second FROM")
                say(f" ---> {rest}: not pulled; the sandbox serves with the Python of this machine")
                return replace(draft, base=rest, declared={})
            case "COPY":
                layer = self._keep(_layer(context, draft.folder, rest))
                say(f" ---> {layer.removeprefix('sha256:')[:12]}")
                return replace(draft, layers=(*draft.layers, layer))
            case "RUN":
                say(" ---> not run: the sandbox writes RUN into the history and does not carry it out")
                return draft
            case _:
                return _configured(draft, instruction, rest)

    def _manifest(self, draft: _Draft) -> dict[str, Any]:
        settings = {
            "Env": [f"{name}={value}" for name, value in draft.environment.items()],
            "Entrypoint": list(draft.entrypoint),
            "Cmd": list(draft.command),
            "WorkingDir": draft.folder,
            "User": draft.user,
            "ExposedPorts": {port: {} for port in draft.ports},
            "Labels": {**draft.labels, "org.opencontainers.image.base.name": draft.base},
        }
        config = _json(
            {
                "created": EPOCH,
                "architecture": "amd64",
                "os": "linux",
                "config": {name: value for name, value in settings.items() if value},
                "rootfs": {"type": "layers", "diff_ids": list(draft.layers)},  # a layer is a plain tar: its diff id is its digest
                "history": list(draft.history),
            }
        )
        layers = [{"mediaType": LAYER, "digest": layer, "size": self._file(layer).stat().st_size} for layer in draft.layers]
        described = {"mediaType": CONFIG, "digest": self._keep(config), "size": len(config)}
        return {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers}

    def _file(self, digest: str) -> Path:
        return self.folder / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def _keep(self, content: bytes) -> str:
        digest = _digest(content)
        file = self._file(digest)
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.with_suffix(".new").write_bytes(content)
            file.with_suffix(".new").replace(file)
        return digest

    def _index(self) -> list[dict[str, Any]]:
        file = self.folder / "index.json"
        return list(json.loads(file.read_bytes())["manifests"]) if file.exists() else []


def _configured(draft: _Draft, instruction: Instruction, rest: str) -> _Draft:
    """The draft after an instruction that adds no files. Raises BuildFailed."""
    match instruction.word:
        case "ARG":
            name, _, default = rest.partition("=")
            return replace(draft, declared={**draft.declared, name: draft.given.get(name, default)})
        case "WORKDIR":
            return replace(draft, folder=posixpath.normpath(posixpath.join(draft.folder, rest)))
        case "ENV":
            return replace(draft, environment={**draft.environment, **_pairs(instruction, rest)})
        case "LABEL":
            return replace(draft, labels={**draft.labels, **_pairs(instruction, rest)})
        case "EXPOSE":
            return replace(draft, ports=(*draft.ports, *(f"{port.partition('/')[0]}/tcp" for port in rest.split())))
        case "USER":
            return replace(draft, user=rest)
        case "ENTRYPOINT":
            return replace(draft, entrypoint=_words(instruction.rest), command=())
        case "CMD":
            return replace(draft, command=_words(instruction.rest))
        case word:
            raise BuildFailed(f"the sandbox's builder does not carry out {word} (line {instruction.line})")


def _dockerfile(context: Path, name: str) -> str:
    file = (context / name).resolve()
    if not file.is_file() or not file.is_relative_to(context.resolve()):
        raise BuildFailed(
            f"unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat {name}: no such file or directory"
        )
    return file.read_text(encoding="utf-8")


def _layer(context: Path, folder: str, arguments: str) -> bytes:
    """The tar of a COPY: sorted, without times and owners. Raises BuildFailed."""
    words = list(_words(arguments)) if arguments.startswith("[") else shlex.split(arguments)
    if words and words[0].startswith("--"):
        raise BuildFailed(f"Unknown flag: {words[0].removeprefix('--').partition('=')[0]}")
    if len(words) < 2:
        raise BuildFailed("COPY requires at least two arguments")
    *sources, last = words
    if len(sources) > 1 and not last.endswith("/"):
        raise BuildFailed("When using COPY with more than one source file, the destination must be a directory and end with a /")
    target = posixpath.normpath(posixpath.join(folder, last))
    into = last.endswith("/") or last in (".", "./") or target == "/"
    files: dict[str, bytes] = {}
    for source in sources:
        files |= _copied(context, source, PurePosixPath(target), into=into)
    return _tar(files)


def _copied(context: Path, source: str, target: PurePosixPath, *, into: bool) -> dict[str, bytes]:
    path = (context / source.lstrip("/")).resolve()
    if not path.is_relative_to(context.resolve()):
        raise BuildFailed(f"COPY failed: forbidden path outside the build context: {source} ({source})")
    if path.is_file():
        return {str(target / path.name if into else target): path.read_bytes()}
    if not path.is_dir():
        raise BuildFailed(f"COPY failed: file not found in build context or excluded by .dockerignore: stat {source}: file does not exist")
    return {str(target / file.relative_to(path).as_posix()): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in sorted(files):
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.size = len(files[name])
            entry.mode = 0o644
            tar.addfile(entry, io.BytesIO(files[name]))
    return buffer.getvalue()


def _tag(entry: Mapping[str, Any]) -> str:
    """The tag of an index's entry; nothing for an image that has lost its own."""
    return str(entry.get("annotations", {}).get(_TAG, ""))


def _words(text: str) -> tuple[str, ...]:
    """The exec form (a JSON list) or words; a shell form that needs a shell stays one `sh -c`."""
    if text.startswith("["):
        try:
            words = json.loads(text)
        except ValueError:
            raise BuildFailed(f"the exec form is a list of strings in JSON: {text}") from None
        return tuple(str(word) for word in words)
    if re.search(r"[$&|;<>*`]", text):
        return ("/bin/sh", "-c", text)
    return tuple(shlex.split(text))


def _pairs(instruction: Instruction, text: str) -> dict[str, str]:
    words = shlex.split(text)
    if any("=" not in word for word in words):
        raise BuildFailed(f"Syntax error - can't find = in {words[0]!r}. Must be of the form: name=value (line {instruction.line})")
    return dict(word.split("=", 1) for word in words)


def _expand(text: str, environment: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda found: environment.get(found[1] or found[2], ""), text)


def _json(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
