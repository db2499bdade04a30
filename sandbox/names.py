"""The names of the sandbox's world: one company, its Azure subscription, its Azure DevOps, its Slack workspace and its people."""

from __future__ import annotations

from dataclasses import dataclass, field

ORGANIZATION = "contoso"
PROJECT = "ml-delivery"
PROJECT_ID = "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a0001"
REPOSITORY_ID = "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a0002"
COLLECTION_ID = "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a0003"
PIPELINE = "diabetes"
PIPELINE_ID = 1

TENANT = "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a00aa"
SUBSCRIPTION = "00000000-0000-4000-8000-00000000c0de"
RESOURCE_GROUP = "ml"
WORKSPACE = "ml-delivery"
LOCATION = "westeurope"
STORAGE = "contosomlstore"
REGISTRY = "contosoml"
KUBERNETES = "aks-prod"

TEAM = "T0CONTOSO"
APP = "A0CALLBRD"
CHANNEL = "C0MLDELIV"
CHANNELS = {CHANNEL: "ml-delivery", "C0RANDOM0": "random"}

# Hosts that clients believe they talk to. Everything else is refused by the proxy.
SLACK = ("slack.com", "wss-primary.slack.com", "hooks.slack.com", "files.slack.com")
AZURE_DEVOPS = ("dev.azure.com", "vsrm.dev.azure.com", "vssps.dev.azure.com")
ENTRA = ("login.microsoftonline.com",)
AML_API = f"{LOCATION}.api.azureml.ms"
BLOBS = f"{STORAGE}.blob.core.windows.net"
BUILD_STORAGE = "weumanaged1.blob.core.windows.net"  # the registry's own: it takes a build's source and keeps its log
AZURE = ("management.azure.com", AML_API, BLOBS, BUILD_STORAGE, f"{REGISTRY}.azurecr.io", "ml.azure.com")
HOSTS = (*SLACK, *AZURE_DEVOPS, *ENTRA, *AZURE)


@dataclass(frozen=True, slots=True)
class Character:
    """Somebody in the sandbox: one person with a Slack account and an Entra account; `oid` is their Azure DevOps identity, too."""

    slack: str
    name: str
    email: str
    oid: str
    title: str = ""
    guest: bool = False
    groups: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Group:
    """A group of the Azure DevOps project: its identity and its members' ids."""

    oid: str
    name: str  # without the project, which its display name has in front: `[ml-delivery]\\Release Managers`
    members: tuple[str, ...]


ADA = Character(
    "U0ADA0001",
    "Ada Lovelace",
    "ada@contoso.example",
    "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a1001",
    "ML engineer",
    groups=("S0MLTEAM", "S0RELEASE"),
)
GRACE = Character(
    "U0GRACE01",
    "Grace Hopper",
    "grace@contoso.example",
    "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a1002",
    "Release manager",
    groups=("S0MLTEAM", "S0RELEASE"),
)
ALAN = Character("U0ALAN001", "Alan Turing", "alan@contoso.example", "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a1003", "Data scientist")
GUEST = Character("U0GUEST01", "Mallory Guest", "mallory@partner.example", "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a1004", "Partner", guest=True)
KATHERINE = Character(
    "U0KATHE01",
    "Katherine Johnson",
    "katherine@contoso.example",
    "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a1005",
    "Release manager",
    groups=("S0RELEASE", "S0ONCALL"),
)
RADIA = Character(
    "U0RADIA01",
    "Radia Perlman",
    "radia@contoso.example",
    "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a1006",
    "Platform engineer",
    groups=("S0RELEASE", "S0ONCALL"),
)
# Has an account at Contoso, in Slack and in Entra, and none in the Azure DevOps organisation.
LINUS = Character(
    "U0LINUS01", "Linus Pauling", "linus@contoso.example", "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a1007", "Chemist", groups=("S0RELEASE",)
)
PEOPLE = (ADA, GRACE, ALAN, KATHERINE, RADIA, LINUS, GUEST)
GROUPS = {"S0MLTEAM": "ml-team", "S0RELEASE": "release-managers", "S0ONCALL": "on-call"}

# The bot: a managed identity in Azure, a bot user in Slack.
BOT = Character("U0CALLBRD", "Callboard", "callboard@contoso.example", "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a2001", "App")
# The identity that the pipeline's agent runs its steps under.
AGENT = Character("", "ml-delivery build agent", "agent@contoso.example", "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a2002", "Agent")

# Groups of the Azure DevOps project.
RELEASE_MANAGERS = Group("6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a3001", "Release Managers", (GRACE.oid, KATHERINE.oid, RADIA.oid))
CONTRIBUTORS = Group("6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a3002", "Contributors", (ADA.oid, GRACE.oid, ALAN.oid, KATHERINE.oid, RADIA.oid))
ADO_GROUPS = (RELEASE_MANAGERS, CONTRIBUTORS)
# Who is in the Azure DevOps organisation. Guests have an account in the tenant and none here; so has Linus.
ADO_MEMBERS = (*(person for person in PEOPLE if not person.guest and person is not LINUS), BOT, AGENT)

# The app registration that people sign in to Callboard with.
CLIENT_ID = "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a4001"
