"""The people and things that tests are about: one team, one model, one run in every state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from bot.core.approvals import Approval, ApprovalState, ApprovalStep
from bot.core.models import Comparison, Contender, Delivery, Direction, Image, Metric, ModelVersion, SmokeTest, Verdict
from bot.core.people import Account, Member, Person
from bot.core.references import Thing
from bot.core.runs import FailedTest, Failure, Job, Run, Stage, State, Step
from bot.core.team import Environment, Kind, Model, Parameter, People, Right, Team

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
CHANNEL = "C0MLDELIV"
ELSEWHERE = "C0RANDOM0"

# People of the Slack workspace.
ADA = Member("U0ADA0001", "Ada Lovelace", "ada@contoso.example", groups=frozenset({"S0MLTEAM"}))
GRACE = Member("U0GRACE01", "Grace Hopper", "grace@contoso.example", groups=frozenset({"S0MLTEAM", "S0RELEASE"}))
ALAN = Member("U0ALAN001", "Alan Turing", "alan@contoso.example")
RADIA = Member("U0RADIA01", "Radia Perlman", "radia@contoso.example", groups=frozenset({"S0RELEASE", "S0ONCALL"}))
GUEST = Member("U0GUEST01", "Mallory Guest", "mallory@partner.example", guest=True, groups=frozenset({"S0MLTEAM", "S0RELEASE"}))
GONE = replace(GRACE, id="U0GONE001", deleted=True)
ROBOT = replace(GRACE, id="U0ROBOT01", bot=True)
MEMBERS = (ADA, GRACE, ALAN, RADIA, GUEST, GONE, ROBOT)

# The same people, and the bot's identity, in Azure DevOps.
ADA_ADO = Person("Ada Lovelace", "ada@contoso.example", "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a1001")
GRACE_ADO = Person("Grace Hopper", "grace@contoso.example", "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a1002")
ALAN_ADO = Person("Alan Turing", "alan@contoso.example", "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a1003")
RADIA_ADO = Person("Radia Perlman", "radia@contoso.example", "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a1006")
BOT_ADO = Person("Callboard", None, "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a2001")

TENANT = "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a00aa"
ACCOUNTS = {
    ADA.id: Account(TENANT, "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a1001", ADA.name, "ada@contoso.example"),
    GRACE.id: Account(TENANT, "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a1002", GRACE.name, "grace@contoso.example"),
    RADIA.id: Account(TENANT, "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a1006", RADIA.name, "radia@contoso.example"),
    ALAN.id: Account(TENANT, "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a1003", ALAN.name, "alan@contoso.example"),
}

MAE = Metric("mae", "Mean absolute error", Direction.LOWER, 2)
R2 = Metric("r2", "R²", Direction.HIGHER, 3)

DIABETES = Model(
    name="diabetes",
    pipeline_id=1,
    channel=CHANNEL,
    metrics=(MAE, R2),
    parameters=(
        Parameter("alpha", Kind.NUMBER, "Ridge: strength of the penalty", 0.0001, 100000),
        Parameter("trees", Kind.INTEGER, "Forest and boosting: number of trees", 1, 500),
        Parameter("compute", Kind.CHOICE, "Where to train", choices=("cpu-cluster", "local")),
    ),
)
CHURN = Model("churn", 2, "C0CHURN00", (R2,))
TEAM = Team(
    organization="contoso",
    project="ml-delivery",
    models={"diabetes": DIABETES, "churn": CHURN},
    environments={
        "qa": Environment("qa", "qa"),
        "prod": Environment("prod", "prod", needs_approval=True, approvers=People(frozenset({"S0RELEASE"}))),
    },
    rights={
        Right.RETRAIN: People(frozenset({"S0MLTEAM"})),
        Right.PROMOTE: People(frozenset({"S0MLTEAM"})),
        Right.ROLLBACK: People(frozenset({"S0RELEASE"})),
        Right.LOCK: People(frozenset({"S0RELEASE"})),
        Right.BREAK_GLASS: People(frozenset({"S0RELEASE"})),
    },
)

# The same team, which deploys diabetes by a classic release.
RELEASING = replace(
    TEAM,
    models={"diabetes": replace(DIABETES, release_id=3), "churn": CHURN},
    environments={
        "qa": replace(TEAM.environments["qa"], release_stage="QA - Deploy on ACI"),
        "prod": replace(TEAM.environments["prod"], release_stage="Prod - Deploy on AKS"),
    },
)

STAGES = (
    ("prepare", "Prepare Python"),
    ("workspace", "Workspace"),
    ("train", "Train"),
    ("evaluate", "Evaluate"),
    ("register", "Register"),
    ("image", "Scoring image"),
    ("publish", "Publish"),
    ("qa", "QA - Deploy on ACI"),
    ("prod", "Prod - Deploy on AKS"),
)


def stages(**states: State) -> tuple[Stage, ...]:
    """The nine stages, each 40 s long once it has finished; those not named are pending."""
    made = []
    for place, (name, title) in enumerate(STAGES):
        state = states.get(name, State.PENDING)
        started = NOW + timedelta(minutes=place) if state not in {State.PENDING, State.SKIPPED} else None
        finished = started + timedelta(seconds=40) if started is not None and state.finished else None
        made.append(Stage(name, title, state, 1, started, finished, (Job(f"{name}_job", state, started, finished),)))
    return tuple(made)


def until(name: str, state: State, *, rest: State = State.PENDING) -> tuple[Stage, ...]:
    """Everything before the stage succeeded, the stage stands at `state`, and what follows at `rest`."""
    names = [stage for stage, _ in STAGES]
    place = names.index(name)
    before = dict.fromkeys(names[:place], State.SUCCEEDED)
    return stages(**before, **{name: state}, **dict.fromkeys(names[place + 1 :], rest))


QUEUED = Run(
    id=480,
    number="20261123.1",
    pipeline_id=1,
    pipeline="diabetes",
    state=State.PENDING,
    branch="refs/heads/main",
    commit="9f2c1d7e5b3a4c6d8e0f1a2b3c4d5e6f70819293",
    url="https://dev.azure.com/contoso/ml-delivery/_build/results?buildId=480",
    created=NOW,
    requested_by=BOT_ADO,
    requested_for=BOT_ADO,
    committer=ALAN_ADO,
    commit_message="Try a smaller penalty",
    commit_url="https://dev.azure.com/contoso/ml-delivery/_git/ml/commit/9f2c1d7e5b3a4c6d8e0f1a2b3c4d5e6f70819293",
    parameters={
        "model": "diabetes",
        "action": "train",
        "version": "latest",
        "settings": "alpha=0.5",
        "requestedBy": "Ada Lovelace (ada@contoso.example)",
        "requestId": "op-480",
    },
    stages=stages(),
)
TRAINING = replace(QUEUED, state=State.RUNNING, started=NOW, stages=until("train", State.RUNNING))
EVALUATED = replace(TRAINING, stages=until("register", State.RUNNING))
WAITING = replace(TRAINING, stages=until("prod", State.WAITING))
DEPLOYING = replace(TRAINING, stages=until("prod", State.RUNNING))
SUCCEEDED = replace(TRAINING, state=State.SUCCEEDED, finished=NOW + timedelta(minutes=9), stages=until("prod", State.SUCCEEDED))
FAILED = replace(TRAINING, state=State.FAILED, finished=NOW + timedelta(minutes=3), stages=until("train", State.FAILED, rest=State.SKIPPED))
UNFIT = replace(FAILED, stages=until("evaluate", State.FAILED, rest=State.SKIPPED))
KEPT = replace(
    TRAINING, state=State.SUCCEEDED, finished=NOW + timedelta(minutes=4), stages=until("evaluate", State.SUCCEEDED, rest=State.SKIPPED)
)
REJECTED = replace(TRAINING, state=State.FAILED, finished=NOW + timedelta(minutes=9), stages=until("prod", State.REJECTED))
CANCELED = replace(TRAINING, state=State.CANCELED, finished=NOW + timedelta(minutes=9), stages=until("prod", State.CANCELED))
RUNS: Mapping[str, Run] = {
    "queued": QUEUED,
    "training": TRAINING,
    "waiting": WAITING,
    "deploying": DEPLOYING,
    "succeeded": SUCCEEDED,
    "failed": FAILED,
    "kept": KEPT,
    "rejected": REJECTED,
    "canceled": CANCELED,
}

BROKEN_STEP = Step("Train the candidates", State.FAILED, NOW, NOW + timedelta(seconds=40), 12, ("Script exited with code 1.",))
FAILURE = Failure(
    stage="train",
    job="train_job",
    step=BROKEN_STEP.name,
    error="ValueError: alpha must not be negative & <0",
    tail=("Traceback (most recent call last):", '  File "train.py", line 12', "ValueError: alpha must not be negative & <0"),
    tests=(FailedTest("tests.test_data::test_no_leak", "AssertionError: 3 rows <leak>"),),
    log_url="https://dev.azure.com/contoso/ml-delivery/_build/results?buildId=480&view=logs",
)

PENDING = Approval("a1b2c3d4-0000-4000-8000-000000000001", 480, "prod", 1, "prod", ApprovalState.PENDING, NOW, minimum=1)
APPROVED = replace(
    PENDING,
    state=ApprovalState.APPROVED,
    steps=(ApprovalStep(BOT_ADO, ApprovalState.APPROVED, BOT_ADO, "Fits: decided in Slack by Grace Hopper", NOW + timedelta(minutes=10)),),
)
APPROVED_THERE = replace(
    PENDING,
    state=ApprovalState.APPROVED,
    steps=(ApprovalStep(GRACE_ADO, ApprovalState.APPROVED, GRACE_ADO, "Looks good", NOW + timedelta(minutes=10)),),
)
REFUSED = replace(
    PENDING,
    state=ApprovalState.REJECTED,
    steps=(ApprovalStep(GRACE_ADO, ApprovalState.REJECTED, GRACE_ADO, "Too close to the fair", NOW + timedelta(minutes=10)),),
)

CHAMPION = Contender("diabetes", "ridge", {"mae": 44.0, "r2": 0.412}, version="3")
RIDGE = Contender("ridge", "ridge", {"mae": 41.2, "r2": 0.455}, run_id="mlflow-1", parameters={"alpha": "0.5"})
FOREST = Contender("forest", "forest", {"mae": 45.5, "r2": 0.412})
COMPARISON = Comparison(
    model="diabetes",
    verdict=Verdict.PASS,
    rule="Mean absolute error of ridge is 41.20, 6.4 % better than the champion's 44.00; at least 0.5 % is asked.",
    metrics=(MAE, R2),
    decides="mae",
    champion=CHAMPION,
    candidates=(RIDGE, FOREST),
    winner="ridge",
    rows=89,
    fingerprint="sha256:feed",
)
NO_BETTER = replace(
    COMPARISON, verdict=Verdict.KEPT, winner=None, candidates=(FOREST,), rule="No candidate is better than the champion's 44.00."
)
NOT_FIT = replace(
    COMPARISON, verdict=Verdict.FAIL, winner=None, candidates=(FOREST,), rule="R² of forest is 0.100; at least 0.200 is asked."
)

V3 = ModelVersion("diabetes", "3", NOW - timedelta(days=7), champion=True, algorithm="ridge", metrics={"mae": 44.0, "r2": 0.412})
V4 = ModelVersion("diabetes", "4", NOW, algorithm="ridge", run_id="mlflow-1", commit=QUEUED.commit, metrics={"mae": 41.2, "r2": 0.455})
IMAGE = Image("diabetes-scoring", "4", "sha256:" + "ab" * 32, "contosoml.azurecr.io/diabetes-scoring@sha256:" + "ab" * 32)
SMOKE = SmokeTest("qa", "aci", "http://diabetes-qa.westeurope.azurecontainer.io", passed=True, checked=5, latency_ms=12.3)
DELIVERY = Delivery(COMPARISON, V4, IMAGE, {"qa": SMOKE})

# A release of the run that has succeeded, made by the build; and the same by its state.
QA_STAGE, PROD_STAGE = "QA - Deploy on ACI", "Prod - Deploy on AKS"
RELEASE = Run(
    id=12,
    number="Release-12",
    pipeline_id=3,
    pipeline="Deploy Webservice",
    state=State.RUNNING,
    branch="refs/heads/main",
    commit=QUEUED.commit,
    url="https://dev.azure.com/contoso/ml-delivery/_releaseProgress?_a=release-pipeline-progress&releaseId=12",
    created=NOW,
    started=NOW,
    reason="continuousIntegration",
    requested_by=Person("Microsoft.VisualStudio.Services.ReleaseManagement", None, "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a2002"),
    requested_for=ADA_ADO,
    stages=(
        Stage(QA_STAGE, QA_STAGE, State.RUNNING, started=NOW),
        Stage(PROD_STAGE, PROD_STAGE, State.PENDING),
    ),
    thing=Thing.RELEASE,
    source=480,
    source_number="20261123.1",
    source_url="https://dev.azure.com/contoso/ml-delivery/_build/results?buildId=480",
)


def released(qa: State, prod: State, state: State, prod_attempt: int = 1) -> Run:
    """The release with its stages in these states; what has finished took 40 s."""
    done = NOW + timedelta(seconds=40)
    parts = tuple(
        Stage(name, name, of, attempt, None if of is State.PENDING else NOW, done if of.finished else None)
        for name, of, attempt in ((QA_STAGE, qa, 1), (PROD_STAGE, prod, prod_attempt))
    )
    return replace(RELEASE, state=state, stages=parts, finished=done if state.finished else None)


RELEASE_WAITING = released(State.SUCCEEDED, State.WAITING, State.WAITING)
RELEASE_DONE = released(State.SUCCEEDED, State.SUCCEEDED, State.SUCCEEDED)
RELEASE_FAILED = released(State.FAILED, State.PENDING, State.FAILED)
RELEASE_REJECTED = released(State.SUCCEEDED, State.REJECTED, State.REJECTED)
RELEASE_PENDING = Approval(
    "34",
    12,
    PROD_STAGE,
    1,
    PROD_STAGE,
    ApprovalState.PENDING,
    NOW,
    steps=(
        ApprovalStep(Person("[ml-delivery]\\Release Managers", None, "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a3001", True), ApprovalState.PENDING),
    ),
    minimum=1,
    thing=Thing.RELEASE,
)
