"""Takes secrets out of text that came from a log before anybody is shown it."""

from __future__ import annotations

import re

HIDDEN = "***"

# Each pattern keeps its first group, where it has one, and hides the rest of what it matched.
_SECRETS = tuple(
    re.compile(pattern, re.ASCII)
    for pattern in (
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
        # JSON Web Tokens.
        r"\beyJ[\w-]{5,}\.[\w-]{5,}(?:\.[\w-]*)?",
        # Slack: bot, user, app-level, refresh and config tokens; incoming webhooks.
        r"\bx(?:ox[a-z](?:\.xox[a-z])?|app)-[\w.-]{4,}",
        r"(https://hooks\.slack\.com/)[\w/]{8,}",
        # GitHub, AWS, Google, OpenAI-like keys.
        r"\b(?:gh[oprsu]_|github_pat_)\w{16,}",
        r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}",
        r"\bAIza[\w-]{30,}",
        r"\bsk-[\w-]{16,}",
        # Who:password in an address.
        r"(\b[A-Za-z][A-Za-z0-9+.-]*://[^\s/:@'\"]*:)[^\s/@'\"]+(?=@)",
        # Authorization headers, in whatever spelling a log gives them.
        r"((?i:\b(?:bearer|basic)\s+))[\w.~+/=-]{8,}",
        # A named secret: password=..., "client_secret": "...", AccountKey=...; a shared access signature's sig=.
        (
            r"((?i:(?:passw(?:or)?d|passwd|pwd|secret|token|api[_-]?key|access[_-]?key|account[_-]?key|"
            r"shared[_-]?access[_-]?key|private[_-]?key|credential|connection[_-]?string|authorization)s?)"
            r"[\"']?\s*[=:]\s*[\"']?)(?!\*\*\*)[^\s\"'&,;]{3,}"
        ),
        r"((?i:[?&;\s\"']sig=)|^sig=)[^\s&\"']{8,}",
        # Keys of Azure Storage, Service Bus and the like: base64, padded, 43 or more. Digests are hexadecimal and stay.
        r"(?<![\w+/])[A-Za-z0-9+/]{42,}={1,2}",
        # A line out of the middle of a key.
        r"(?<![\w+/])(?![0-9a-fA-F]+(?![\w+/]))[A-Za-z0-9+/]{64,}",
        # A personal access token of Azure DevOps: 52 of base32, or 84 with its marker.
        r"(?<![\w+/])[a-z2-7]{52}(?![\w+/])",
        r"(?<![\w+/])[A-Za-z0-9]{76}AZDO[A-Za-z0-9]{4}(?![\w+/])",
        # A secret of an Entra application: 3 characters, a digit, Q~, 31 or more.
        r"(?<![\w~.-])[\w~.-]{3}\dQ~[\w~.-]{31,}",
    )
)


def redact(text: str) -> str:
    """The text with everything that looks like a secret replaced by `***`; saying too little beats saying too much."""
    for secret in _SECRETS:
        text = secret.sub(lambda found: (found.group(1) if found.re.groups else "") + HIDDEN, text)
    return text
