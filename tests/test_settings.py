"""Settings: complete, frozen, and every mistake said at once."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from bot.core.team import Kind, People, Right
from bot.settings import SIGN_IN, EnvironmentVariables, SettingsProblem, dotenv, load

GOOD = {
    "SLACK_BOT_TOKEN": "xoxb-" + "1" * 20,
    "SLACK_SIGNING_SECRET": "s" * 32,
    "HOOKS_USERNAME": "azure-devops",
    "HOOKS_PASSWORD": "p" * 32,
    "HOOKS_SECRET": "h" * 32,
    "ENTRA_TENANT": "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a00aa",
    "ENTRA_CLIENT_ID": "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a4001",
    "ENTRA_CLIENT_SECRET": "c" * 32,
    "CALLBOARD_KEYS": f"{'k' * 43}=,{'o' * 43}=",
    "CALLBOARD_URL": "https://callboard.contoso.example",
}
ROOT = Path(__file__).parent.parent


def with_file(tmp_path: Path, old: str, new: str) -> dict[str, str]:
    """The good settings with one change to callboard.toml."""
    text = (ROOT / "callboard.toml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "callboard.toml").write_text(text.replace(old, new), encoding="utf-8")
    return GOOD | {"CALLBOARD_CONFIG": str(tmp_path / "callboard.toml")}


def mistakes(environ: dict[str, str]) -> tuple[str, ...]:
    """What `load` says is wrong, without the file's path."""
    with pytest.raises(SettingsProblem) as problem:
        load(environ)
    return tuple(re.sub(r"^/\S+: ", "", mistake) for mistake in problem.value.mistakes)


def test_the_example_team_is_read() -> None:
    settings = load(GOOD | {"CALLBOARD_CONFIG": str(ROOT / "callboard.toml")})

    team = settings.team
    assert (team.organization, team.project, team.prefix) == ("contoso", "ml-delivery", "mlops")
    assert team.may(Right.RETRAIN) == People(frozenset({"S0MLTEAM"}))
    assert team.environments["prod"].needs_approval
    assert team.environments["prod"].approvers == People(frozenset({"S0RELEASE"}))
    assert not team.environments["qa"].needs_approval
    prod = team.environments["prod"]
    assert (prod.remind, prod.escalate, prod.on_call) == ((timedelta(hours=4), timedelta(hours=24)), timedelta(hours=8), "S0ONCALL")
    model = team.models["diabetes"]
    assert (model.pipeline_id, model.channel, model.branch) == (1, "C0MLDELIV", "refs/heads/main")
    assert [metric.name for metric in model.metrics] == ["mae", "rmse", "r2"]
    compute = next(parameter for parameter in model.parameters if parameter.name == "compute")
    assert (compute.kind, compute.choices) == (Kind.CHOICE, ("cpu-cluster", "local"))
    assert settings.workspace.name == "ml-delivery"


def test_defaults_are_for_one_machine() -> None:
    environment = load(GOOD | {"CALLBOARD_CONFIG": str(ROOT / "callboard.toml")}).environment

    assert (environment.CALLBOARD_HOST, environment.CALLBOARD_PORT) == ("127.0.0.1", 8801)
    assert environment.DATABASE_URL is None
    assert environment.SLACK_APP_TOKEN is None


def test_an_empty_variable_is_as_good_as_none() -> None:
    environment = load(GOOD | {"CALLBOARD_CONFIG": str(ROOT / "callboard.toml"), "SLACK_APP_TOKEN": "", "DATABASE_URL": ""}).environment

    assert environment.SLACK_APP_TOKEN is None
    assert environment.DATABASE_URL is None


def test_every_mistake_is_listed_at_once(tmp_path: Path) -> None:
    environ = with_file(tmp_path, 'channel = "C0MLDELIV"', 'channel = "#ml"\nchanel = "x"')
    del environ["SLACK_BOT_TOKEN"]
    environ["HOOKS_SECRET"] = "short"
    environ["LOG_LEVEL"] = "loud"

    assert mistakes(environ) == (
        "SLACK_BOT_TOKEN is missing.",
        "HOOKS_SECRET is too short: at least 8.",
        "LOG_LEVEL should be one of 'debug', 'info', 'warning' or 'error'.",
        "models.diabetes.channel does not look right: it should match ^[CG][A-Z0-9]{6,}$.",
        "models.diabetes.chanel is not known here. Is it misspelt?",
    )


def test_people_sign_in_unless_the_team_has_chosen_otherwise(tmp_path: Path) -> None:
    bare = {name: value for name, value in GOOD.items() if name not in SIGN_IN}
    service = with_file(tmp_path, 'act_as = "person"', 'act_as = "service"')
    config = {"CALLBOARD_CONFIG": str(ROOT / "callboard.toml")}

    assert [mistake.partition(" ")[0] for mistake in mistakes(bare | config)] == list(SIGN_IN)
    assert load(GOOD | config).entra is not None
    settings = load(bare | {"CALLBOARD_CONFIG": service["CALLBOARD_CONFIG"]})
    assert settings.team.service_identity
    assert settings.entra is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ENTRA_TENANT", "common", "ENTRA_TENANT: it names one organisation: its tenant id, or its domain."),
        ("ENTRA_TENANT", "Organizations", "ENTRA_TENANT: it names one organisation: its tenant id, or its domain."),
        ("ENTRA_TENANT", "contoso/../common", "ENTRA_TENANT does not look right"),
        ("ENTRA_CLIENT_ID", "callboard", "ENTRA_CLIENT_ID does not look right"),
    ],
)
def test_only_one_organisation_signs_in(name: str, value: str, said: str) -> None:
    (mistake,) = mistakes(GOOD | {"CALLBOARD_CONFIG": str(ROOT / "callboard.toml"), name: value})

    assert mistake.startswith(said)


@pytest.mark.parametrize("keys", ["short", "", "k" * 44 + ",", "ä" * 44])
def test_keys_are_what_fernet_takes(keys: str) -> None:
    said = mistakes(GOOD | {"CALLBOARD_CONFIG": str(ROOT / "callboard.toml"), "CALLBOARD_KEYS": keys})

    assert "CALLBOARD_KEYS" in said[0]
    assert keys not in said[0] or not keys


def test_a_gate_on_an_unknown_metric_is_a_mistake(tmp_path: Path) -> None:
    environ = with_file(tmp_path, 'decides = "mae"', 'decides = "auc"')

    assert mistakes(environ) == ("models.diabetes: the gate names auc, which `metrics` does not have.",)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('choices = ["cpu-cluster", "local"], ', "", "models.diabetes.parameters.compute: a choice needs `choices`."),
        ("minimum = 30", "minimum = 3000", "models.diabetes.parameters.rows: `minimum` is greater than `maximum`."),
        (
            "pipeline = 1",
            'pipeline = "one"',
            "models.diabetes.pipeline: input should be a valid integer, unable to parse string as an integer.",
        ),
        ('kind = "choice"', 'kind = "colour"', "models.diabetes.parameters.compute.kind should be one of 'number', 'integer' or 'choice'."),
        ('organization = "contoso"', 'organization = ""', "azure_devops.organization is too short: at least 1."),
    ],
)
def test_a_mistake_in_the_file_is_said_in_words(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert mistakes(with_file(tmp_path, old, new)) == (said,)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('days = ["sat", "sun"]', None),
        ('days = ["fri"]\nopens = "16:00"\ncloses = "08:00"', None),
        ("start = 2026-12-18T17:00:00\nend = 2027-01-04T08:00:00", None),
        ("", "a freeze has either `start` and `end`, or `days`."),
        ("start = 2026-12-18T17:00:00", "a freeze has either `start` and `end`, or `days`."),
        ('start = 2026-12-18T17:00:00\nend = 2027-01-04T08:00:00\ndays = ["fri"]', "a freeze has either `start` and `end`, or `days`."),
        ("start = 2026-12-18T17:00:00\nend = 2026-12-18T17:00:00", "`start` is not before `end`."),
        ("start = 2026-12-18T17:00:00Z\nend = 2027-12-18T17:00:00", "`start` and `end` are local times: `timezone` says whose."),
        ('timezone = "Mars/Olympus"\ndays = ["fri"]', "there is no time zone Mars/Olympus; an example is Europe/Berlin."),
    ],
)
def test_freezes_are_weekly_or_once(tmp_path: Path, lines: str, said: str | None) -> None:
    zone = "" if "timezone" in lines else 'timezone = "Europe/Berlin"'
    table = f'[[environments.qa.freezes]]\nreason = "rest"\n{zone}\n{lines}\n\n[environments.prod]'
    environ = with_file(tmp_path, "[environments.prod]", table)

    if said is None:
        assert load(environ).team.environments["qa"].freezes[0].reason == "rest"
    else:
        assert mistakes(environ) == (f"environments.qa.freezes.0: {said}",)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('remind = ["4h", "24h"]', 'remind = ["24h", "4h"]', "environments.prod: `remind` is not in ascending order."),
        ('remind = ["4h", "24h"]', 'remind = ["4h", "4h"]', "environments.prod: `remind` is not in ascending order."),
        ('remind = ["4h", "24h"]', 'remind = ["30m", "4h"]', "environments.prod: two of `remind` are less than four hours apart."),
        (
            'on_call = "S0ONCALL"',
            "",
            "environments.prod: `escalate` needs `on_call`, the Slack user group that is told then.",
        ),
        (
            'on_call = "S0ONCALL"',
            'on_call = "U0GRACE01"',
            "environments.prod.on_call does not look right: it should match ^S[A-Z0-9]{2,20}$.",
        ),
        (
            'stage = "qa"',
            'stage = "qa"\nremind = ["4h"]',
            "environments.qa: `remind` and `escalate` are for an environment that needs approval.",
        ),
        *(
            (
                'escalate = "8h"',
                f"escalate = {wrong}",
                "environments.prod.escalate: a length of time is a whole number of minutes, hours or days, such as 30m, 4h or 2d.",
            )
            for wrong in ('"8"', "8", '"0h"', '"1.5h"', '"PT8H"', '"-8h"', '"99999d"')
        ),
    ],
)
def test_a_mistake_in_when_people_are_told_is_said_in_words(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert mistakes(with_file(tmp_path, old, new)) == (said,)


def test_lengths_of_time_are_minutes_hours_or_days(tmp_path: Path) -> None:
    prod = load(with_file(tmp_path, 'remind = ["4h", "24h"]', 'remind = ["30m", "5h", "2d"]')).team.environments["prod"]

    assert prod.remind == (timedelta(minutes=30), timedelta(hours=5), timedelta(days=2))


def test_a_model_has_rights_and_approvers_of_its_own(tmp_path: Path) -> None:
    lists = ("permissions]\nretrain = ['U0ADA0001']", "approvers]\nprod = ['ado:Doctors']", "gate]")
    own = "\n\n".join(f"[models.diabetes.{one}" for one in lists)
    team = load(with_file(tmp_path, "[models.diabetes.gate]", own)).team
    model = team.models["diabetes"]

    assert team.may(Right.RETRAIN, model) == People(frozenset({"U0ADA0001"}))
    assert team.may(Right.PROMOTE, model) == People(frozenset({"S0MLTEAM"}))
    assert model.approvers == {"prod": People(frozenset({"ado:Doctors"}))}
    assert {"ado:Doctors", "U0ADA0001", "S0RELEASE"} <= team.named()


def test_a_release_definition_and_a_stage_of_it_belong_to_one(tmp_path: Path) -> None:
    team = load(with_file(tmp_path, "release = 1 ", "release = 4 ")).team
    assert (team.models["diabetes"].release_id, team.releases) == (4, (4,))
    assert team.environments["prod"].release_stage == "Prod - Deploy on AKS"

    twice = with_file(tmp_path, '"Prod - Deploy on AKS"', '"QA - Deploy on ACI"')
    (said,) = mistakes(twice)
    assert "`release_stage` QA - Deploy on ACI is there more than once" in said


def test_approvers_of_an_unknown_environment_are_a_mistake(tmp_path: Path) -> None:
    own = '[models.diabetes.approvers]\nmoon = ["U0ADA0001"]\n\n[models.diabetes.gate]'

    assert mistakes(with_file(tmp_path, "[models.diabetes.gate]", own))[0].endswith(
        "approvers are listed for moon, which `environments` does not have."
    )


def test_a_file_that_is_not_there_or_not_toml_is_a_mistake(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("models = [", encoding="utf-8")

    missing = mistakes(GOOD | {"CALLBOARD_CONFIG": str(tmp_path / "none.toml")})
    unreadable = mistakes(GOOD | {"CALLBOARD_CONFIG": str(broken)})

    assert missing[0].endswith("cannot be read (No such file or directory). Set CALLBOARD_CONFIG to where the team's file is.")
    assert "is not TOML" in unreadable[0]


def test_secrets_never_print(tmp_path: Path) -> None:
    settings = load(GOOD | {"CALLBOARD_CONFIG": str(ROOT / "callboard.toml"), "DATABASE_URL": "postgresql://u:hunter22@h/d"})
    with pytest.raises(SettingsProblem) as problem:
        load(GOOD | {"SLACK_BOT_TOKEN": "not-a-token-but-secret", "CALLBOARD_CONFIG": str(tmp_path / "none.toml")})

    shown = repr(settings) + str(problem.value)
    assert not [secret for secret in (GOOD["HOOKS_SECRET"], "hunter22", "not-a-token-but-secret") if secret in shown]


def test_the_example_environment_names_every_variable() -> None:
    named = re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)

    assert sorted(named) == sorted(EnvironmentVariables.model_fields)


def test_the_example_environment_shows_the_defaults() -> None:
    shown = dict(re.findall(r"^#([A-Z_]+)=(.+)$", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))

    assert shown == {name: str(EnvironmentVariables.model_fields[name].default) for name in shown}


def test_a_dotenv_file_is_names_and_values() -> None:
    assert dotenv("# a comment\n\nA=1\n B = two words \nURL=postgresql://u:p@h/d?x=y\n") == {
        "A": "1",
        "B": "two words",
        "URL": "postgresql://u:p@h/d?x=y",
    }
