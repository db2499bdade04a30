"""The storage account: containers of blobs kept as plain files, behind shared keys, SAS and bearer tokens as in Azure.

Only the operations that the SDKs use: containers, block blobs, block lists, metadata, ranged reads and listings.
https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode
from xml.etree import ElementTree as Xml

from aiohttp import web
from aiohttp.typedefs import Handler

from sandbox import names
from sandbox.tokens import BadToken
from sandbox.world import World

AUDIENCE = "https://storage.azure.com"
VERSION = "2023-11-03"
LIFETIME = timedelta(hours=1)  # that a SAS address is good for
_SIGNED_HEADERS = (
    "Content-Encoding",
    "Content-Language",
    "Content-Length",
    "Content-MD5",
    "Content-Type",
    "Date",
    "If-Modified-Since",
    "If-Match",
    "If-None-Match",
    "If-Unmodified-Since",
    "Range",
)


class BlobError(Exception):
    """An answer that is an error, as the Blob service writes it: a status, its code word and a sentence."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class Storage:
    """The account's containers. A blob is a file `<container>/<path>`, so that a job's outputs are blobs as they are written."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._folder = world.folder / "azure_ml" / "blobs"
        self._blocks = world.folder / "azure_ml" / "blocks"
        self._facts = world.state.table("azure.blobs")  # what a file cannot say of itself: metadata, content type
        account = world.state.table("azure.storage")
        if "key" not in account:
            account["key"] = base64.b64encode(secrets.token_bytes(64)).decode()
        self.key: str = account["key"]

    def folder(self, container: str) -> Path:
        """The folder of a container, made on first use."""
        folder = self._folder / container
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def path(self, container: str, name: str) -> Path:
        """The file of a blob, or the folder of a prefix. Raises BlobError for a name that leads elsewhere."""
        parts = name.rstrip("/").split("/")
        if any(part in ("", ".", "..") for part in parts) or any(character < " " for character in name):
            raise BlobError(400, "InvalidUri", "The requested URI does not represent any resource on the server.")
        return self._container(container).joinpath(*parts)

    def address(self, container: str, name: str = "") -> str:
        """The URL of a container or blob, without a signature."""
        return f"https://{names.BLOBS}/{container}" + (f"/{quote(name)}" if name else "")

    def sas(self, container: str, name: str = "", *, permissions: str = "rcwl") -> str:
        """The URL of a container or blob that carries the right to use it: r(ead), c(reate), w(rite), l(ist), for an hour."""
        expiry = (datetime.now(UTC) + LIFETIME).strftime("%Y-%m-%dT%H:%M:%SZ")
        signed = {"sv": VERSION, "sr": "b" if name else "c", "sp": permissions, "se": expiry}
        signed["sig"] = self._signature(container, name, signed)
        return f"{self.address(container, name)}?{urlencode(signed)}"

    def new_container(self) -> str:
        """A fresh, empty container with a name nobody has used."""
        name = secrets.token_hex(16)
        self.folder(name)
        return name

    def routes(self) -> list[web.RouteDef]:
        """The account is reached by its own host only."""
        return []

    def hosts(self) -> Mapping[str, web.Application]:
        """The blob endpoint."""
        app = web.Application(middlewares=[_errors])
        app.add_routes(
            [web.route("*", "/{container}", self._container_request), web.route("*", "/{container}/{name:.+}", self._blob_request)]
        )
        return {names.BLOBS: app}

    async def start(self) -> None:
        """Blocks that were never committed are of no use any more."""
        shutil.rmtree(self._blocks, ignore_errors=True)

    async def stop(self) -> None:
        """Nothing runs here."""

    async def _container_request(self, request: web.Request) -> web.Response:
        container = request.match_info["container"]
        match request.method, request.query.get("comp", ""):
            case "PUT", "":
                self._allow(request, "w")
                if (self._folder / container).exists():
                    raise BlobError(409, "ContainerAlreadyExists", "The specified container already exists.")
                self.folder(container)
                return _answer(201)
            case (("GET" | "HEAD"), ""):
                self._allow(request, "r")
                self._container(container)
                return _answer(200, {"x-ms-lease-status": "unlocked", "x-ms-lease-state": "available"})
            case "GET", "list":
                self._allow(request, "l")
                return await asyncio.to_thread(self._list, request, container)
            case _:
                raise BlobError(405, "UnsupportedHttpVerb", "The resource doesn't support specified Http Verb.")

    async def _blob_request(self, request: web.Request) -> web.Response:
        container, name = request.match_info["container"], request.match_info["name"]
        match request.method, request.query.get("comp", ""):
            case (("GET" | "HEAD"), ""):
                self._allow(request, "r")
                return await asyncio.to_thread(self._read, request, container, name)
            case "PUT", "":
                self._allow(request, "w")
                await self._write(request, container, name, await request.read())
            case "PUT", "block":
                self._allow(request, "w")
                await asyncio.to_thread(self._write_block, container, name, request.query.get("blockid", ""), await request.read())
            case "PUT", "blocklist":
                self._allow(request, "w")
                content = await asyncio.to_thread(self._assemble, container, name, await request.read())
                await self._write(request, container, name, content)
            case "PUT", "metadata":
                self._allow(request, "w")
                self._existing(container, name)
                self._facts[f"{container}/{name}"] = self._facts.get(f"{container}/{name}", {}) | {"metadata": _metadata(request)}
                return _answer(200)
            case "DELETE", "":
                self._allow(request, "w")
                self._existing(container, name).unlink()
                self._facts.pop(f"{container}/{name}", None)
                return _answer(202)
            case _:
                raise BlobError(405, "UnsupportedHttpVerb", "The resource doesn't support specified Http Verb.")
        return _answer(201, {"x-ms-request-server-encrypted": "true"} | _identity(self.path(container, name), missing_ok=True))

    def _container(self, container: str) -> Path:
        folder = self._folder / container
        if "/" in container or container in (".", "..") or not folder.is_dir():
            raise BlobError(404, "ContainerNotFound", "The specified container does not exist.")
        return folder

    def _existing(self, container: str, name: str) -> Path:
        file = self.path(container, name)
        if not file.is_file():
            raise BlobError(404, "BlobNotFound", "The specified blob does not exist.")
        return file

    def _read(self, request: web.Request, container: str, name: str) -> web.Response:
        file = self._existing(container, name)
        size = file.stat().st_size
        facts = self._facts.get(f"{container}/{name}", {})
        headers = {
            "Content-Type": facts.get("type", "application/octet-stream"),
            "Accept-Ranges": "bytes",
            "x-ms-blob-type": "BlockBlob",
            "x-ms-lease-status": "unlocked",
            "x-ms-lease-state": "available",
            "x-ms-server-encrypted": "true",
        } | _identity(file)
        headers |= {f"x-ms-meta-{key}": value for key, value in facts.get("metadata", {}).items()}
        if request.method == "HEAD":
            return web.Response(headers=headers | {"Content-Length": str(size)})
        asked = request.headers.get("x-ms-range") or request.headers.get("Range")
        if asked is None:
            return web.Response(body=file.read_bytes(), headers=headers)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        if not first.isdigit() or int(first) >= size:
            raise BlobError(416, "InvalidRange", "The range specified is invalid for the current size of the resource.")
        end = min(int(last) if last.isdigit() else size - 1, size - 1)
        with file.open("rb") as content:
            content.seek(int(first))
            piece = content.read(end - int(first) + 1)
        return web.Response(status=206, body=piece, headers=headers | {"Content-Range": f"bytes {first}-{end}/{size}"})

    async def _write(self, request: web.Request, container: str, name: str, content: bytes) -> None:
        file = self.path(container, name)
        if request.headers.get("If-None-Match") == "*" and file.is_file():
            raise BlobError(409, "BlobAlreadyExists", "The specified blob already exists.")
        if file.is_dir():
            raise BlobError(409, "BlobTypeMismatch", "A folder of that name holds other blobs, and this store keeps blobs as files.")
        await asyncio.to_thread(_replace, file, content)
        kind = request.headers.get("x-ms-blob-content-type") or "application/octet-stream"
        self._facts[f"{container}/{name}"] = {"type": kind, "metadata": _metadata(request)}

    def _write_block(self, container: str, name: str, block: str, content: bytes) -> None:
        self.path(container, name)
        if not block:
            raise BlobError(400, "InvalidQueryParameterValue", "Value for one of the query parameters specified is invalid: blockid.")
        folder = self._block_folder(container, name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / block.encode().hex()).write_bytes(content)

    def _assemble(self, container: str, name: str, listing: bytes) -> bytes:
        folder = self._block_folder(container, name)
        files = [folder / (block.text or "").encode().hex() for block in _parse(listing)]
        if not all(file.is_file() for file in files):
            raise BlobError(400, "InvalidBlockList", "The specified block list is invalid.")
        content = b"".join(file.read_bytes() for file in files)
        shutil.rmtree(folder, ignore_errors=True)
        return content

    def _block_folder(self, container: str, name: str) -> Path:
        return self._blocks / hashlib.sha256(f"{container}/{name}".encode()).hexdigest()

    def _list(self, request: web.Request, container: str) -> web.Response:
        folder = self._container(container)
        prefix, delimiter = request.query.get("prefix", ""), request.query.get("delimiter", "")
        root = Xml.Element("EnumerationResults", ServiceEndpoint=f"https://{names.BLOBS}/", ContainerName=container)
        blobs = Xml.SubElement(root, "Blobs")
        folders: set[str] = set()
        start = folder.joinpath(*prefix.split("/")[:-1]) if ".." not in prefix.split("/") else folder
        for file in sorted(start.rglob("*")):
            name = file.relative_to(folder).as_posix()
            if not file.is_file() or not name.startswith(prefix) or file.name.endswith(".draft"):
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                common = prefix + rest.split(delimiter)[0] + delimiter
                if common not in folders:
                    folders.add(common)
                    Xml.SubElement(Xml.SubElement(blobs, "BlobPrefix"), "Name").text = common
                continue
            blob = Xml.SubElement(blobs, "Blob")
            Xml.SubElement(blob, "Name").text = name
            properties = Xml.SubElement(blob, "Properties")
            facts = {"Content-Length": str(file.stat().st_size), "BlobType": "BlockBlob"} | _identity(file)
            for key, value in facts.items():
                Xml.SubElement(properties, key).text = value
            if "metadata" in request.query.get("include", ""):
                metadata = Xml.SubElement(blob, "Metadata")
                for key, value in self._facts.get(f"{container}/{name}", {}).get("metadata", {}).items():
                    Xml.SubElement(metadata, key).text = value
        Xml.SubElement(root, "NextMarker")
        return web.Response(body=Xml.tostring(root, encoding="utf-8", xml_declaration=True), content_type="application/xml")

    def _allow(self, request: web.Request, permission: str) -> None:
        """Raise BlobError unless the request carries a right: a SAS signature, the account's key or a token for storage."""
        authorization = request.headers.get("Authorization", "")
        if "sig" in request.query:
            self._check_sas(request, permission)
        elif authorization.startswith("SharedKey "):
            self._check_key(request, authorization)
        elif authorization:
            try:
                self._world.tokens.check(authorization, AUDIENCE)
            except BadToken as problem:
                raise BlobError(401, "InvalidAuthenticationInfo", str(problem)) from None
        else:
            # The service does not tell a stranger whether something exists.
            raise BlobError(404, "ResourceNotFound", "The specified resource does not exist.")

    def _check_sas(self, request: web.Request, permission: str) -> None:
        container = request.match_info["container"]
        name = request.match_info.get("name", "") if request.query.get("sr") == "b" else ""
        if not hmac.compare_digest(self._signature(container, name, request.query), request.query["sig"]):
            raise BlobError(403, "AuthenticationFailed", "Server failed to authenticate the request: the signature did not match.")
        if _moment(request.query.get("se", "")) < datetime.now(UTC):
            raise BlobError(403, "AuthenticationFailed", "Server failed to authenticate the request: the signature expired.")
        if permission not in request.query.get("sp", ""):
            raise BlobError(403, "AuthorizationPermissionMismatch", "This request is not authorized to perform this operation.")

    def _signature(self, container: str, name: str, signed: Mapping[str, str]) -> str:
        """https://learn.microsoft.com/rest/api/storageservices/create-service-sas#specify-the-signature"""
        resource = f"/blob/{names.STORAGE}/{container}" + (f"/{name}" if name else "")
        before, after = ("sp", "st", "se"), ("si", "sip", "spr", "sv", "sr", "snapshot", "ses", "rscc", "rscd", "rsce", "rscl", "rsct")
        return self._sign("\n".join([*(signed.get(key, "") for key in before), resource, *(signed.get(key, "") for key in after)]))

    def _check_key(self, request: web.Request, authorization: str) -> None:
        """https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key"""
        headers = dict(request.headers)
        if headers.get("Content-Length") == "0":
            headers["Content-Length"] = ""
        canonical = sorted((key.lower(), value.strip()) for key, value in headers.items() if key.lower().startswith("x-ms-"))
        lines = [
            request.method,
            *(request.headers.get(name, "") if name != "Content-Length" else headers.get(name, "") for name in _SIGNED_HEADERS),
        ]
        lines += [f"{key}:{value}" for key, value in canonical]
        lines.append(f"/{names.STORAGE}{request.rel_url.raw_path}")
        lines += [f"{key.lower()}:{request.query[key]}" for key in sorted(request.query)]
        if not hmac.compare_digest(f"SharedKey {names.STORAGE}:{self._sign(chr(10).join(lines))}", authorization):
            raise BlobError(403, "AuthenticationFailed", "Server failed to authenticate the request: the signature did not match.")

    def _sign(self, text: str) -> str:
        return base64.b64encode(hmac.digest(base64.b64decode(self.key), text.encode(), "sha256")).decode()


def _replace(file: Path, content: bytes) -> None:
    """Give a file new content, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{secrets.token_hex(8)}.draft")
    draft.write_bytes(content)
    draft.replace(file)


def _moment(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z")
    except ValueError:
        raise BlobError(403, "AuthenticationFailed", "Server failed to authenticate the request: the expiry is no time.") from None


def _metadata(request: web.Request) -> dict[str, str]:
    return {key[len("x-ms-meta-") :].lower(): value for key, value in request.headers.items() if key.lower().startswith("x-ms-meta-")}


def _identity(file: Path, *, missing_ok: bool = False) -> dict[str, str]:
    """The headers, or properties in a listing, that tell one state of a blob from another."""
    if missing_ok and not file.is_file():
        return {}
    facts = file.stat()
    changed = datetime.fromtimestamp(facts.st_mtime, UTC)
    return {"Last-Modified": format_datetime(changed, usegmt=True), "Etag": f'"0x{facts.st_mtime_ns:X}"'}


def _parse(listing: bytes) -> list[Any]:
    try:
        return list(Xml.fromstring(listing))
    except Xml.ParseError:
        raise BlobError(400, "InvalidXmlDocument", "The specified XML is not syntactically valid.") from None


def _answer(status: int, headers: Mapping[str, str] | None = None) -> web.Response:
    now = format_datetime(datetime.now(UTC), usegmt=True)
    return web.Response(status=status, headers={"Last-Modified": now, "Etag": f'"0x{time.time_ns():X}"', **(headers or {})})


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        answer = await handler(request)
    except BlobError as problem:
        root = Xml.Element("Error")
        Xml.SubElement(root, "Code").text = problem.code
        Xml.SubElement(root, "Message").text = problem.message
        body = b"" if request.method == "HEAD" else Xml.tostring(root, encoding="utf-8", xml_declaration=True)
        answer = web.Response(status=problem.status, body=body, content_type="application/xml", headers={"x-ms-error-code": problem.code})
    answer.headers["x-ms-version"] = VERSION
    answer.headers["x-ms-request-id"] = secrets.token_hex(16)
    return answer
