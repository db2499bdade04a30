"""The sandbox's certificate authority: one throw-away CA and one certificate with every host's name, kept in its folder."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme

from sandbox.names import HOSTS


class Authority:
    """Makes the CA and the certificate on first use; `ca` is what clients trust, `context` what the local servers show."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ca = folder / "ca.pem"
        self.certificate = folder / "server.pem"
        made_for = folder / "hosts.txt"  # written last: where it is missing, the rest may be, too
        if not made_for.exists() or made_for.read_text() != "\n".join(HOSTS):
            authority = trustme.CA(organization_name="Callboard sandbox")
            issued = authority.issue_cert(*HOSTS)
            authority.cert_pem.write_to_path(str(self.ca))
            self.certificate.touch(mode=0o600)
            issued.private_key_and_cert_chain_pem.write_to_path(str(self.certificate))
            made_for.write_text("\n".join(HOSTS))

    @property
    def context(self) -> ssl.SSLContext:
        """TLS as the local servers speak it."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate)
        return context
