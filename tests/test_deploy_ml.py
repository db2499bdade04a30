"""The stages that make a model: what they decide, alone, and once all of it with the real SDKs in the sandbox."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from deploy.ml import candidates, chart, config, data, evaluate, gate, prepare, register, registry, score, stage, train, workspace
from deploy.ml.candidates import Candidate, Plan
from deploy.ml.config import Mistake, Parameter
from deploy.ml.gate import Contender, Outcome
from deploy.ml.stage import Failed
from deploy.ml.train import Submitted
from sandbox.azure_ml.server import AzureML
from sandbox.names import AGENT
from tests.sandboxes import ROOT, sandbox, the

MODEL = config.load(ROOT / "callboard.toml").model("diabetes")
TRACEBACK = """Execution failed. User process 'python' exited with status code 1. Error: Training ridge with {}
Traceback (most recent call last):
  File "train_candidate.py", line 1, in <module>
ValueError: Input X contains NaN.
"""

# The stages of two runs, one after the other in one process, with what happens to the model in between.
PROGRAM = """
import json, logging, os, pathlib, sys
import requests
from azure.ai.ml.entities import Model
from deploy.ml import config, evaluate, register, stage, train, workspace

out, page = pathlib.Path(sys.argv[1]), sys.argv[2]

def run(title, module, *words):
    print(f"## {title}", flush=True)
    try:
        module.main(words)
    except stage.Failed as problem:
        print(f"failed: {problem}", flush=True)

def judge(name):
    run(name, evaluate, "--model", "diabetes", "--training", f"{out}/training.json", "--out", f"{out}/{name}")

run("workspace", workspace)
run("workspace again", workspace)
run("train", train, "--model", "diabetes", "--settings", "rows=60 compute=local", "--out", str(out))
judge("first")
for title in ("register", "register again"):
    run(title, register, "--training", f"{out}/training.json", "--evaluation", f"{out}/first/evaluation.json", "--out", str(out))

client = stage.client(config.load().workspace)
champion = client.models.get("diabetes", "1")
champion.tags["stage"] = "champion"
client.models.create_or_update(champion)
judge("same")
words = ("--model", "diabetes", "--version", "latest", "--out", f"{out}/promotion", "--model-out", f"{out}/promoted")
run("promotion", evaluate, *words)

(out / "broken").mkdir()
(out / "broken" / "MLmodel").write_text("flavors: {python_function: {loader_module: mlflow.sklearn, model_path: gone}}")
broken = Model(name="diabetes", version="2", path=str(out / "broken"), type="mlflow_model", tags={"stage": "champion"})
client.models.create_or_update(broken)
judge("unscorable")

requests.post(f"{page}/_sandbox/faults", json={"name": "aml.preempt", "after": 0}, timeout=10).raise_for_status()
run("preempted", train, "--model", "diabetes", "--settings", "rows=60", "--out", f"{out}/none")
"""


@dataclass
class Version:
    """A model as azure-ai-ml gives it."""

    version: str
    tags: dict[str, str] | None = field(default_factory=dict)
    name: str = "diabetes"
    id: str = "azureml:diabetes:1"


@dataclass
class Job:
    """A job as azure-ai-ml gives it."""

    tags: dict[str, str]


def test_the_checks_that_a_run_makes_of_its_code_pass() -> None:
    words = [
        "-m",
        "pytest",
        "-c",
        os.devnull,
        "--rootdir",
        str(ROOT),
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",
        "deploy/ml/checks",
    ]

    checks = subprocess.run([sys.executable, *words, "-q"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert checks.returncode == 0, checks.stdout
    assert "failed" not in checks.stdout


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"azure_ml": {}}, "[azure_ml] needs subscription"),
        ({"models": []}, "the table [models] is missing"),
        ({"models": {"m": {}}}, "the table [models.m.metrics] is missing"),
        ({"models": {"m": {"metrics": {"mape": {}}}}}, "[models.m.metrics.mape] is no metric that deploy/ml/score.py measures"),
    ],
)
def test_a_mistake_in_the_file_is_said_with_its_place(change: dict[str, Any], says: str) -> None:
    good: dict[str, Any] = {"azure_ml": dict.fromkeys(("subscription", "resource_group", "workspace", "location", "registry"), "x")}

    with pytest.raises(Mistake, match=re.escape(says)):
        config.parse(good | {"models": {}} | change)


def test_an_unknown_model_is_a_mistake() -> None:
    with pytest.raises(Mistake, match=r"Model 'moon' is not in callboard\.toml; known: .*diabetes"):
        config.load(ROOT / "callboard.toml").model("moon")


def test_a_file_that_cannot_be_read_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("= 1")

    with pytest.raises(Mistake, match="cannot be read"):
        config.load(tmp_path / "none.toml")
    with pytest.raises(Mistake, match="is not TOML"):
        config.load(tmp_path / "bad.toml")


def test_settings_are_held_against_what_the_model_declares() -> None:
    assert candidates.parse("alpha=0.5  rows=100 compute=local", MODEL.parameters) == {"alpha": 0.5, "rows": 100, "compute": "local"}
    assert candidates.parse("none", MODEL.parameters) == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("alpha", "'alpha' is not name=value."),
        ("magic=1", "Setting 'magic' is unknown; known: alpha, trees"),
        ("trees=1.5", "trees must be a whole number, not '1.5'."),
        ("alpha=much", "alpha must be a number, not 'much'."),
        ("alpha=nan", "alpha must lie between 0.0001 and 100000, not nan."),
        ("rows=10000", "rows must lie between 30 and 350, not 10000."),
        ("compute=moon", "compute must be one of cpu-cluster, local, not 'moon'."),
    ],
)
def test_a_wrong_setting_is_refused_with_what_is_possible(text: str, says: str) -> None:
    with pytest.raises(Mistake, match=re.escape(says)):
        candidates.parse(text, MODEL.parameters)


def test_the_metrics_that_may_be_declared_are_those_that_are_measured() -> None:
    class Mean:
        def predict(self, features: Any) -> list[float]:
            return [150.0] * len(features)

    assert tuple(score.metrics(Mean(), data.split(data.load(), MODEL.seed).holdout)) == config.METRICS


def test_a_limit_on_one_side_only_is_said_so() -> None:
    with pytest.raises(Mistake, match=re.escape("n must be at least 1, not 0.")):
        candidates.parse("n=0", {"n": Parameter("n", "integer", minimum=1)})
    with pytest.raises(Mistake, match=re.escape("n must be at most 1, not 2.")):
        candidates.parse("n=2", {"n": Parameter("n", "integer", maximum=1)})


def test_a_setting_reaches_every_candidate_that_knows_it() -> None:
    plan = candidates.plan(MODEL, {"depth": 1, "alpha": 2.0, "rows": 60, "compute": "local"})

    settings = {candidate.algorithm: candidate.settings for candidate in plan.candidates}
    assert settings["ridge"] == {"alpha": 2.0}
    assert settings["forest"]["depth"] == settings["boosting"]["depth"] == 1
    assert settings["forest"]["trees"] == MODEL.candidates["forest"]["trees"]
    assert {candidate.rows for candidate in plan.candidates} == {60}
    assert plan.compute == "local"
    assert plan.candidates[0].parameters == {"alpha": "2", "rows": "60"}


def test_a_setting_that_no_candidate_knows_is_a_mistake() -> None:
    with pytest.raises(Mistake, match="No candidate of diabetes knows alphabet"):
        candidates.plan(MODEL, {"alphabet": 1})


def test_a_command_for_the_pipeline_stays_one_line() -> None:
    assert stage.command("task.logissue", "50 %\n##vso[x]", type="error") == "##vso[task.logissue type=error]50 %%0A##vso[x]"
    assert stage.command("task.setvariable", "a%0Ab", variable="x;y]") == "##vso[task.setvariable variable=x%3By%5D]a%AZP250Ab"


def test_an_unknown_schema_is_refused(tmp_path: Path) -> None:
    for text, says in (('{"schema": 2}', "has schema 2; this script reads 1."), ("[]", "has schema None"), ("x", "is not JSON")):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(Failed, match=re.escape(says)):
            stage.read(tmp_path / "x.json")
    with pytest.raises(Failed, match="cannot be read"):
        stage.read(tmp_path / "none.json")


def test_this_python_satisfies_the_lock_and_a_bare_one_does_not() -> None:
    pins = prepare.pins(prepare.LOCK.read_text())

    assert len(pins) > 50
    assert list(prepare.missing(pins, prepare.installed())) == []
    assert "scikit-learn 1" in "; ".join(prepare.missing(pins, {}))


def test_a_pin_counts_by_its_name_version_and_marker() -> None:
    lock = "a-b==1.0 \\\n    --hash=sha256:00\nwin==2 ; sys_platform == 'win32' \\\n    --hash=sha256:00\n    # via a-b\n"
    pins = prepare.pins(lock)

    assert [(pin.name, pin.version, pin.marker) for pin in pins] == [("a-b", "1.0", ""), ("win", "2", "sys_platform == 'win32'")]
    assert list(prepare.missing(pins, {"a-b": "1.0"})) == []
    assert list(prepare.missing(pins, {"a-b": "1.1"})) == ["a-b is 1.1, the lock says 1.0"]


def test_an_environment_is_made_once_and_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock, folder = tmp_path / "nothing.lock", tmp_path / "tools" / "cache" / "key"
    lock.write_text("# A lock that asks for nothing, so that nothing has to come from anywhere.\n")

    folder.mkdir(parents=True)
    (folder / "rest").touch()  # of an attempt that was ended in the middle

    python = prepare.make(lock, folder)
    assert prepare.make(lock, folder) == python

    assert not (folder / "rest").exists()
    assert (
        subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True).stdout == f"{folder}\n"
    )
    assert capsys.readouterr().out.count("Making ") == 1


def test_the_lock_of_the_stages_agrees_with_the_projects() -> None:
    project = {(pin.name, pin.version) for pin in prepare.pins((ROOT / "requirements.lock").read_text())}

    assert {(pin.name, pin.version) for pin in prepare.pins(prepare.LOCK.read_text())} <= project


def test_the_jobs_run_with_the_versions_of_the_lock() -> None:
    dependencies = workspace.conda("numpy==2.4.6 ; python_full_version < '3.12' \\\n    --hash=sha256:00\n")["dependencies"]

    assert dependencies[-1] == {"pip": ["numpy==2.4.6 ; python_full_version < '3.12'"]}


def test_a_failed_job_is_explained_by_its_own_last_word() -> None:
    told = "Exception : \n " + json.dumps({"error": {"code": "UserError", "message": TRACEBACK}}, indent=4) + " "

    assert train.message_in(told) == TRACEBACK
    assert train.cause(train.message_in(told)) == "ValueError: Input X contains NaN."
    assert train.cause("Compute node was preempted.\nSorry.") == "Compute node was preempted."
    assert train.cause("") == ""
    assert train.message_in("no JSON {at all") == "no JSON {at all"


def test_the_job_takes_along_what_its_code_imports(tmp_path: Path) -> None:
    code = train.snapshot(tmp_path / "code")

    words = [sys.executable, "-c", "import deploy.ml.job.train_candidate as job; print(job.__file__)"]
    found = subprocess.run(words, cwd=code, capture_output=True, text=True, check=True).stdout

    assert Path(found.strip()).is_relative_to(code.resolve())


def test_candidates_that_saw_different_rows_are_not_compared() -> None:
    plan = Plan((Candidate("ridge", {"alpha": 1.0}), Candidate("forest", {"trees": 1, "depth": 1})), "local")
    submitted = [Submitted(candidate, candidate.algorithm) for candidate in plan.candidates]
    same = {"ridge": Job({"data_fingerprint": "sha256:1"}), "forest": Job({"data_fingerprint": "sha256:1"})}

    assert train.document(MODEL, plan, submitted, same)["data_fingerprint"] == "sha256:1"
    with pytest.raises(Failed, match="not trained on the same rows"):
        train.document(MODEL, plan, submitted, same | {"forest": Job({"data_fingerprint": "sha256:2"})})
    with pytest.raises(Failed, match="not trained on the same rows"):
        train.document(MODEL, plan, submitted, {"ridge": Job({}), "forest": Job({})})


def test_the_champion_is_the_version_that_says_so() -> None:
    versions = [Version("10"), Version("9", {"stage": "champion"}), Version("2", {"stage": "champion"}), Version("1", None)]

    found = registry.champion(versions)

    assert found is versions[1]
    assert registry.champion(versions[:1]) is None
    assert registry.next_version(versions) == "11"
    assert registry.next_version([]) == "1"
    assert registry.chosen(versions, "latest") is versions[0]
    assert registry.chosen(versions, "2") is versions[2]
    with pytest.raises(Failed, match="Version 3 is not registered; known: 10, 9, 2, 1"):
        registry.chosen(versions, "3")


def test_a_version_is_registered_once_for_its_build_and_run() -> None:
    wanted = {"build_id": "7", "run_id": "r"}
    known = [Version("2", {"build_id": "7", "run_id": "other"}), Version("1", {"build_id": "7", "run_id": "r"}), Version("0", None)]

    assert register.already(known, wanted) is known[1]
    assert register.already(known[:1], wanted) is None


def test_only_a_winner_is_registered() -> None:
    evaluation: dict[str, Any] = {"verdict": "pass", "winner": "b", "candidates": [{"name": "a"}, {"name": "b", "job": "j"}]}

    assert register.chosen(evaluation) == {"name": "b", "job": "j"}
    with pytest.raises(Failed, match="The verdict is kept"):
        register.chosen(evaluation | {"verdict": "kept"})
    with pytest.raises(Failed, match="The winner 'c' is not among the candidates"):
        register.chosen(evaluation | {"winner": "c"})


def test_the_chart_puts_the_best_on_top_and_is_a_picture() -> None:
    champion = Contender("champion", "ridge", {"mae": 44.0, "rmse": 54.0, "r2": 0.5}, version="3")
    better = Contender("ridge", "ridge", {"mae": 42.0, "rmse": 53.0, "r2": 0.55})
    broken = Contender("forest", "forest", problem="it cannot predict")

    picture = chart.draw(MODEL, champion, [broken, better], "ridge")

    assert [one.name for one in chart.order(MODEL.metrics[0], [broken, champion, better])] == ["ridge", "champion", "forest"]
    assert picture.startswith(b"\x89PNG\r\n")


def test_an_evaluation_that_could_not_begin_is_handed_on_all_the_same() -> None:
    told = evaluate.document(MODEL, evaluate.Evaluation(Outcome("fail", "Nothing."), None, (), None))

    assert (told["verdict"], told["rule"], told["champion"], told["candidates"]) == ("fail", "Nothing.", None, [])
    assert told["holdout"] == {"rows": 0, "fingerprint": ""}


def test_three_settings_are_each_better_than_the_one_before() -> None:
    """What the story and the tour rely on: weak settings, the defaults, and a change worth merging."""
    parts = data.split(data.load(), MODEL.seed)

    def best(settings: str, ridge: float | None = None) -> Contender:
        contenders = []
        for candidate in candidates.plan(MODEL, candidates.parse(settings, MODEL.parameters)).candidates:
            own = {"alpha": ridge} if ridge and candidate.algorithm == "ridge" else candidate.settings
            model = candidates.build(candidate.algorithm, own, MODEL.seed)
            rows = data.first(parts.training, candidate.rows)
            model.fit(rows.features, rows.target)
            contenders.append(Contender(candidate.algorithm, candidate.algorithm, score.metrics(model, parts.holdout)))
        outcome = gate.decide(MODEL, None, contenders)
        return next(one for one in contenders if one.name == outcome.winner)

    weak, usual, merged = best("rows=60 alpha=100 trees=5 depth=1"), best("none"), best("none", ridge=1.0)

    assert gate.decide(MODEL, weak, [usual]).verdict == "pass"
    assert gate.decide(MODEL, usual, [merged]).verdict == "pass"
    assert gate.decide(MODEL, usual, [usual]).verdict == "kept"
    assert gate.decide(MODEL, usual, [best("alpha=100000 trees=1 depth=1 rate=0.0001")]).verdict == "kept"


def test_a_wrong_setting_ends_the_stage_with_one_error_line(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "deploy.ml.train", "--model", "diabetes", "--settings", "magic=1", "--out", str(tmp_path)]

    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-1].startswith("##vso[task.logissue type=error]Setting 'magic' is unknown; known: alpha")
    assert ended.stderr == ""


@pytest.mark.world
async def test_a_model_is_trained_judged_and_registered_in_the_sandbox(tmp_path: Path) -> None:
    home, out = tmp_path / "sources", tmp_path / "out"
    home.mkdir()
    out.mkdir()
    shutil.copy(ROOT / "callboard.toml", home)
    only_ridge = re.sub(r"(?m)^(forest|boosting) = .*\n", "", (home / "callboard.toml").read_text())
    (home / "callboard.toml").write_text(only_ridge)

    async with sandbox(tmp_path / "world", AzureML) as world:
        environment = world.outside(AGENT) | {"PYTHONPATH": str(ROOT), "BUILD_BUILDID": "7", "BUILD_SOURCEVERSION": "abc"}
        words, pipe = ("-c", PROGRAM, str(out), world.page_url), asyncio.subprocess.PIPE
        program = await asyncio.create_subprocess_exec(sys.executable, *words, cwd=home, env=environment, stdout=pipe, stderr=pipe)
        told, noise = (text.decode() for text in await program.communicate())
        assert program.returncode == 0, told + noise
        assert world.proxy
        assert world.proxy.refused == []
        versions = the(world, AzureML).versions("diabetes")

    said = {title: text for title, _, text in (part.partition("\n") for part in told.split("## ")[1:])}
    assert "Workspace ml-delivery is created" in said["workspace"]
    assert "Environment callboard-ml:" in said["workspace again"]
    assert not re.search("Creating|Registering|Attaching", said["workspace again"])
    assert "ridge: Completed" in said["train"]

    training = json.loads((out / "training.json").read_text())
    assert (training["build_id"], training["commit"], training["compute"]) == ("7", "abc", "local")
    (candidate,) = training["candidates"]
    assert candidate["parameters"] == {"alpha": "100", "rows": "60"}

    first = json.loads((out / "first" / "evaluation.json").read_text())
    assert (first["verdict"], first["winner"], first["champion"]) == ("pass", "ridge", None)
    assert first["holdout"]["rows"] == 89
    assert first["candidates"][0]["metrics"]["mae"] == pytest.approx(54.35, abs=0.01)
    assert (out / "first" / "candidates.png").read_bytes().startswith(b"\x89PNG")
    assert "##vso[task.setvariable variable=verdict;isoutput=true]pass" in said["first"]

    model = json.loads((out / "model.json").read_text())
    assert (model["version"], model["algorithm"], model["commit"]) == ("1", "ridge", "abc")
    assert model["data_fingerprint"] == training["data_fingerprint"]
    assert "diabetes version 1 is there already" in said["register again"]
    tags = versions[-1]["tags"]
    assert (tags["run_id"], tags["build_id"]) == (candidate["run_id"], "7")
    assert float(tags["metric.mae"]) == first["candidates"][0]["metrics"]["mae"]

    same = json.loads((out / "same" / "evaluation.json").read_text())
    assert (same["verdict"], same["winner"], same["champion"]["version"]) == ("kept", None, "1")
    promotion = json.loads((out / "promotion" / "evaluation.json").read_text())
    assert (promotion["verdict"], promotion["rule"]) == ("kept", "Version 1 is the champion already.")
    assert json.loads((out / "promoted" / "model.json").read_text())["version"] == "1"

    unscorable = json.loads((out / "unscorable" / "evaluation.json").read_text())
    assert unscorable["verdict"] == "fail"
    assert unscorable["rule"].startswith("The champion, version 2, could not be scored: ")
    assert "failed: The champion, version 2, could not be scored: " in said["unscorable"]

    reason = "Training ridge failed: Compute node was preempted (the process was ended by signal 9)."
    assert f"failed: {reason}" in said["preempted"]
