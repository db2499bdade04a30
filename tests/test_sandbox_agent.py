"""The build agent: jobs whose steps are real processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest

from sandbox.azure_devops.agent import JobOutcome, Space, run_job
from sandbox.azure_devops.commands import Command, mask, parse
from sandbox.azure_devops.compiler import compile as compile_pipeline
from sandbox.azure_devops.expressions import Ran, Scope
from sandbox.azure_devops.plan import PlanJob, PlanStep, Result
from sandbox.azure_devops.tasks import satisfies

NINE = datetime(2026, 11, 23, 9, tzinfo=UTC)
STAMP = "2026-11-23T09:00:00.0000000Z "


@dataclass
class Log:
    """A Watch that writes everything down."""

    canceled: asyncio.Event = field(default_factory=asyncio.Event)
    cancel_when: str = "\0"
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    started: list[int] = field(default_factory=list)
    results: dict[int, Result] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    issues: list[tuple[int, str, str]] = field(default_factory=list)
    artifacts: list[tuple[str, str]] = field(default_factory=list)
    test_runs: list[tuple[str, str]] = field(default_factory=list)
    rest: list[tuple[str, str]] = field(default_factory=list)

    def step_started(self, step: int) -> None:
        self.started.append(step)

    def step_finished(self, step: int, result: Result) -> None:
        self.results[step] = result

    def line(self, step: int, text: str) -> None:
        assert text.startswith(STAMP)
        self.lines.append(text.removeprefix(STAMP))
        if text == f"{STAMP}ready":
            self.ready.set()
        if self.cancel_when in text:
            self.canceled.set()

    def issue(self, step: int, kind: Literal["error", "warning"], message: str) -> None:
        self.issues.append((step, kind, message))

    def artifact(self, name: str, folder: Path, kind: Literal["Container", "PipelineArtifact"]) -> None:
        assert folder.is_dir()
        self.artifacts.append((name, kind))

    def tests(self, file: Path, title: str) -> None:
        self.test_runs.append((file.name, title))

    def attachment(self, kind: str, name: str, file: Path) -> None:
        self.rest.append((f"{kind} {name}", file.read_text()))

    def build_number(self, number: str) -> None:
        self.rest.append(("number", number))

    def build_tag(self, tag: str) -> None:
        self.rest.append(("tag", tag))


@pytest.fixture
def space(tmp_path: Path) -> Space:
    """A place to work in, with nothing to check out."""
    scope = Scope(variables={"Build.BuildId": "7", "Build.Repository.Name": "ml-delivery"})
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    return Space(tmp_path / "w", tmp_path / "none", "", tmp_path / "artifacts", environment, scope, clock=lambda: NINE)


@pytest.fixture
def log() -> Log:
    return Log()


def bash(
    script: str,
    *,
    name: str = "",
    title: str = "Bash",
    condition: str = "succeeded()",
    env: Mapping[str, str] | None = None,
    continue_on_error: bool = False,
    timeout_minutes: float = 0,
) -> PlanStep:
    return PlanStep("bash", title, name, {"script": script}, env or {}, condition, continue_on_error, timeout_minutes)


def task(name: str, inputs: Mapping[str, str]) -> PlanStep:
    return PlanStep(name, name, inputs=inputs)


def job(*steps: PlanStep) -> PlanJob:
    return PlanJob("build", "Build it", steps)


async def test_a_script_runs_in_the_sources_and_its_output_is_the_log(space: Space, log: Log) -> None:
    outcome = await run_job(job(bash("echo hello; echo trouble >&2; pwd", title="Say hello")), space, log)

    assert outcome == JobOutcome(Result.SUCCEEDED, {})
    assert log.results == {0: Result.SUCCEEDED}
    assert log.lines[0] == "##[section]Starting: Say hello"
    assert log.lines[-4:] == ["hello", "trouble", str(space.folder / "s"), "##[section]Finishing: Say hello"]


async def test_the_agent_runs_what_the_compiler_plans(space: Space, log: Log, tmp_path: Path) -> None:
    (tmp_path / "pipeline.yml").write_text(
        """
        steps:
          - checkout: none
          - script: echo 1 > one
            workingDirectory: $(Build.ArtifactStagingDirectory)
          - bash: echo 2 > "$OUT/two"
            env: {OUT: $(Build.ArtifactStagingDirectory)}
          - publish: $(Build.ArtifactStagingDirectory)
            artifact: numbers
          - download: current
            artifact: numbers
          - script: cat "$PIPELINE_WORKSPACE/numbers/one" "$PIPELINE_WORKSPACE/numbers/two"
        """
    )
    plan = compile_pipeline(tmp_path, "pipeline.yml", {}, {})

    outcome = await run_job(plan.stages[0].jobs[0], space, log)

    assert outcome.result is Result.SUCCEEDED, log.issues
    assert log.lines[-3:-1] == ["1", "2"]


async def test_a_script_that_fails_fails_the_job_and_the_rest_is_skipped(space: Space, log: Log) -> None:
    steps = (bash("exit 3"), bash("echo never"), bash("echo sorry", condition="failed()"), bash("echo anyway", condition="always()"))

    outcome = await run_job(job(*steps), space, log)

    assert outcome.result is Result.FAILED
    assert log.results == {0: Result.FAILED, 1: Result.SKIPPED, 2: Result.SUCCEEDED, 3: Result.SUCCEEDED}
    assert log.started == [0, 2, 3]
    assert log.issues == [(0, "error", "Bash exited with code '3'.")]
    assert "##[error]Bash exited with code '3'." in log.lines


async def test_a_step_that_may_fail_leaves_the_job_with_issues(space: Space, log: Log) -> None:
    outcome = await run_job(job(bash("exit 1", continue_on_error=True), bash("true")), space, log)

    assert outcome.result is Result.SUCCEEDED_WITH_ISSUES
    assert log.results == {0: Result.SUCCEEDED_WITH_ISSUES, 1: Result.SUCCEEDED}


async def test_variables_are_the_environment_and_macros_of_the_steps(space: Space, log: Log) -> None:
    variables = {"My.Folder": "$(Build.ArtifactStagingDirectory)/x", "late": "$[dependencies.judge.outputs['a.b']]"}
    scope = replace(space.scope, dependencies={"judge": Ran(Result.SUCCEEDED, {"a.b": "pass"})})
    steps = (bash('echo "$MY_FOLDER|$LATE|$BUILD_BUILDID|$TF_BUILD|$EXTRA|$(late)|$(echo shell)"', env={"EXTRA": "$(build.buildid)!"}),)

    await run_job(replace(job(*steps), variables=variables), replace(space, scope=scope), log)

    assert f"{space.folder}/a/x|pass|7|True|7!|pass|shell" in log.lines


async def test_what_a_parameter_says_is_never_run(space: Space, log: Log) -> None:
    await run_job(job(bash('echo "<$SETTINGS>"', env={"SETTINGS": '"; touch owned; `touch owned`'})), space, log)

    assert '<"; touch owned; `touch owned`>' in log.lines
    assert not (space.folder / "s" / "owned").exists()


async def test_a_step_hands_variables_on_to_later_steps_and_outputs_to_others(space: Space, log: Log) -> None:
    judge = bash('echo "##vso[task.setvariable variable=verdict;isOutput=true]pass"', name="judge")
    colour = bash('echo "text before ##vso[task.setvariable variable=Colour]blue%3B%0Agreen"')
    steps = (judge, colour, bash('echo "$(judge.verdict) $JUDGE_VERDICT [$VERDICT] $COLOUR"'))

    outcome = await run_job(job(*steps), space, log)

    assert outcome.outputs == {"judge.verdict": "pass"}
    assert "pass pass [] blue;" in log.lines
    assert not any("##vso" in line for line in log.lines if not line.startswith("echo "))


async def test_a_deployment_s_outputs_carry_the_name_of_its_job(space: Space, log: Log) -> None:
    step = bash('echo "##vso[task.setvariable variable=url;isOutput=true]http"', name="deploy")

    outcome = await run_job(replace(job(step), environment="qa"), space, log)

    assert outcome.outputs == {"build.deploy.url": "http"}


async def test_a_condition_may_ask_for_an_output_of_the_same_job(space: Space, log: Log) -> None:
    judge = bash('echo "##vso[task.setvariable variable=verdict;isOutput=true]kept"', name="judge")
    steps = (judge, bash("true", condition="and(succeeded(), eq(variables['judge.verdict'], 'pass'))"))

    await run_job(job(*steps), space, log)

    assert log.results[1] is Result.SKIPPED


async def test_secrets_are_masked_and_not_exported(space: Space, log: Log) -> None:
    scope = replace(space.scope, variables={**space.scope.variables, "System.AccessToken": "hunter2"})
    steps = (
        bash('echo "##vso[task.setvariable variable=key;issecret=true]s3cr3t"; echo "##vso[task.setsecret]other"'),
        bash('echo "[$KEY][$SYSTEM_ACCESSTOKEN] $(key) $(System.AccessToken) other"'),
        bash('echo "got $TOKEN"; echo "##vso[task.logissue type=error]hunter2 leaked"; exit 1', env={"TOKEN": "$(key)"}),
    )

    await run_job(job(*steps), replace(space, scope=scope, secrets=frozenset({"system.accesstoken"})), log)

    assert "[][] *** *** ***" in log.lines
    assert "got ***" in log.lines
    assert log.issues[0] == (2, "error", "*** leaked")
    # The command that makes it one shows it once, as the real agent does.
    assert not any("s3cr3t" in line or "hunter2" in line for line in log.lines if "issecret" not in line)


async def test_logging_commands_reach_the_watch(space: Space, log: Log) -> None:
    script = """
        echo '##vso[task.logissue type=warning]careful'
        echo '##vso[build.updatebuildnumber]7.1'
        echo '##vso[build.addbuildtag]champion'
        echo '# Well done' > summary.md
        echo "##vso[task.uploadsummary]$PWD/summary.md"
        echo "##vso[task.addattachment type=smoke-test;name=qa.json]$PWD/summary.md"
        echo "##vso[artifact.upload artifactname=words]$PWD/summary.md"
        echo '##vso[task.setprogress value=50]half'
        echo '##vso[magic.trick]x'
        echo '##[group]Details'
    """

    await run_job(job(bash(script)), space, log)

    text = "# Well done\n"
    attached = [("Distributedtask.Core.Summary summary", text), ("smoke-test qa.json", text)]
    assert log.rest == [("number", "7.1"), ("tag", "champion"), *attached]
    assert log.artifacts == [("words", "Container")]
    assert log.issues == [(0, "warning", "careful"), (0, "warning", "##vso[magic.trick] is not a recognized command for this agent.")]
    assert log.lines[-2] == "##[group]Details"


async def test_an_attachment_has_a_type_a_name_and_a_file(space: Space, log: Log) -> None:
    steps = bash("echo '##vso[task.addattachment type=smoke-test]qa.json'"), bash("echo '##vso[task.uploadsummary]nowhere.md'")

    await run_job(job(*steps), space, log)

    assert log.rest == []
    assert log.issues == [
        (0, "error", "Cannot add task attachment, attachment type or attachment name is not provided."),
        (1, "warning", "Cannot upload task attachment file, attachment file location does not exist: nowhere.md"),
    ]


async def test_a_release_publishes_nothing_into_the_build_it_deploys(space: Space, log: Log) -> None:
    scope = Scope({"System.HostType": "release"})

    outcome = await run_job(
        job(bash('touch x && echo "##vso[artifact.upload artifactname=words]$PWD/x"')), replace(space, scope=scope), log
    )

    assert (outcome.result, log.artifacts) == (Result.FAILED, [])
    assert log.issues == [(0, "error", "Uploading server artifacts is not supported in release.")]


@pytest.mark.parametrize(("said", "result"), [("Failed", Result.FAILED), ("SucceededWithIssues", Result.SUCCEEDED_WITH_ISSUES)])
async def test_a_step_may_say_how_it_ended(space: Space, log: Log, said: str, result: Result) -> None:
    outcome = await run_job(job(bash(f"echo '##vso[task.complete result={said}]done'")), space, log)

    assert outcome.result is result


async def test_a_variable_that_no_environment_can_hold_is_not_exported(space: Space, log: Log) -> None:
    odd = bash(r"printf '##vso[task.setvariable variable=a=b]c\n##vso[task.setvariable variable=d]e\0f\n'")

    outcome = await run_job(job(odd, bash("echo [$D] '$(a=b)'")), space, log)

    assert outcome.result is Result.SUCCEEDED
    assert "[] c" in log.lines


async def test_the_python_on_the_path_is_the_sandbox_s(space: Space, log: Log) -> None:
    await run_job(job(bash("command -v python")), space, log)

    assert str(Path(sys.executable).parent / "python") in log.lines


async def test_checkout_brings_the_commit_that_the_run_builds(space: Space, log: Log, tmp_path: Path) -> None:
    def git(*words: str) -> str:
        name = ("-c", "user.name=Ada", "-c", "user.email=ada@contoso.example")
        return subprocess.run(["git", "-C", str(tmp_path / "r"), *name, *words], check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / "r").mkdir()
    git("init", "--quiet")
    for content in ("first", "second"):
        (tmp_path / "r" / "file").write_text(content)
        git("add", "file")
        git("commit", "--quiet", "-m", content)
    space = replace(space, repository=tmp_path / "r", commit=git("rev-parse", "HEAD~1"))
    checkout = task("checkout", {"repository": "self"})

    outcome = await run_job(job(checkout, bash("cat file; echo; echo $BUILD_SOURCEVERSION")), space, log)
    lost = await run_job(job(checkout), replace(space, commit="0" * 40), log)

    assert outcome.result is Result.SUCCEEDED
    assert {"first", space.commit} <= set(log.lines)
    assert lost.result is Result.FAILED
    assert log.issues[-1] == (0, "error", "Git checkout failed with exit code: 128")


async def test_a_container_artifact_travels_to_the_next_job_and_can_be_published_again(space: Space, log: Log, tmp_path: Path) -> None:
    publish = task("PublishBuildArtifacts@1", {"PathtoPublish": "$(Build.ArtifactStagingDirectory)", "artifactName": "model"})
    write = bash(
        'mkdir -p "$BUILD_STAGINGDIRECTORY/deep"; echo $ROUND > "$BUILD_STAGINGDIRECTORY/deep/model.json"', env={"ROUND": "$(round)"}
    )
    for number in ("1", "2"):
        job_space = replace(space, folder=tmp_path / number, scope=Scope(variables={"Build.BuildId": "7", "round": number}))
        await run_job(job(write, publish), job_space, log)
    take = task("DownloadBuildArtifacts@1", {"artifactName": "model", "downloadPath": "$(Pipeline.Workspace)", "itemPattern": "**/*.json"})

    outcome = await run_job(job(take, bash('cat "$PIPELINE_WORKSPACE/model/deep/model.json"')), space, log)

    assert outcome.result is Result.SUCCEEDED
    assert log.artifacts == [("model", "Container")] * 2
    assert log.lines[-2] == "2"


async def test_a_pipeline_artifact_never_changes(space: Space, log: Log) -> None:
    publish = task("publish", {"path": "$(Build.ArtifactStagingDirectory)", "artifact": "model"})

    outcome = await run_job(job(bash("echo 1 > ../a/x"), publish, publish), space, log)

    assert outcome.result is Result.FAILED
    assert log.artifacts == [("model", "PipelineArtifact")]
    assert log.issues == [(2, "error", "Artifact model already exists for build 7.")]


async def test_downloads_of_pipeline_artifacts_go_where_the_service_puts_them(space: Space, log: Log) -> None:
    publish = task("PublishPipelineArtifact@1", {"targetPath": "$(Build.ArtifactStagingDirectory)/x", "artifact": "model"})
    steps = (
        bash("echo 1 > ../a/x"),
        publish,
        task("download", {"source": "current"}),
        task("DownloadPipelineArtifact@2", {"artifact": "model", "path": "$(Pipeline.Workspace)/here"}),
        task("DownloadPipelineArtifact@2", {"path": "$(Pipeline.Workspace)/all", "patterns": "**\n!*.md"}),
        bash("cat ../model/x ../here/x ../all/model/x"),
    )

    outcome = await run_job(job(*steps), space, log)

    assert outcome.result is Result.SUCCEEDED, log.issues


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (
            task("DownloadBuildArtifacts@1", {"artifactName": "model"}),
            "Artifact model not found for build 7. Please ensure you have published artifacts in any previous phases of the current build.",
        ),
        (task("DownloadBuildArtifacts@1", {}), "Input required: artifactName"),
        (
            task("PublishBuildArtifacts@1", {"PathtoPublish": "/nowhere"}),
            "Publishing build artifacts failed with an error: Not found PathtoPublish: /nowhere",
        ),
        (task("PublishPipelineArtifact@1", {"targetPath": "/nowhere"}), "Path does not exist: /nowhere"),
        (task("AzureCLI@2", {"scriptType": "bash"}), "Input required: connectedServiceNameARM"),
        (
            task("AzureCLI@2", {"azureSubscription": "a", "scriptType": "pscore"}),
            "The sandbox's agent runs Linux and has no 'pscore': use scriptType bash.",
        ),
        (task("AzureCLI@2", {"azureSubscription": "a", "scriptType": "bash"}), "Input required: scriptLocation"),
        (
            task(
                "AzureCLI@2", {"azureSubscription": "a", "scriptType": "bash", "scriptLocation": "inlineScript", "inlineScript": "exit 2"}
            ),
            "Script failed with exit code: 2",
        ),
        (task("bash", {"script": "true", "workingDirectory": "/nowhere"}), "Not found workingDirectory: /nowhere"),
        (task("PublishTestResults@2", {"testResultsFormat": "NUnit"}), "The sandbox reads JUnit files, not NUnit."),
    ],
)
async def test_a_task_says_what_it_misses_in_its_own_words(space: Space, log: Log, step: PlanStep, error: str) -> None:
    await run_job(job(step), space, log)

    assert log.issues == [(0, "error", error)]
    assert log.results == {0: Result.FAILED}


async def test_a_task_that_is_not_installed_fails_its_step(space: Space, log: Log) -> None:
    await run_job(job(task("Magic@3", {})), space, log)

    assert log.issues[0][2].startswith("A task is missing. The pipeline references a task called 'Magic'.")


async def test_a_script_file_runs_under_the_service_connection(space: Space, log: Log) -> None:
    inputs = {"azureSubscription": "x", "scriptType": "bash", "scriptLocation": "scriptPath", "scriptPath": "run.sh", "arguments": "a b"}
    space = replace(space, environment={**space.environment, "IDENTITY_ENDPOINT": "http://127.0.0.1/identity"})

    outcome = await run_job(job(bash("echo 'echo $# $IDENTITY_ENDPOINT' > run.sh"), task("AzureCLI@2", inputs)), space, log)

    assert outcome.result is Result.SUCCEEDED
    assert "2 http://127.0.0.1/identity" in log.lines


async def test_test_results_are_published_and_failures_counted(space: Space, log: Log) -> None:
    write = bash("""echo '<testsuite><testcase name="a"><failure/></testcase></testsuite>' > "$COMMON_TESTRESULTSDIRECTORY/junit.xml" """)
    inputs = {"testResultsFiles": "*.xml", "searchFolder": "$(Common.TestResultsDirectory)", "testRunTitle": "Unit"}

    fine = await run_job(job(write, task("PublishTestResults@2", inputs)), space, log)
    strict = await run_job(job(write, task("PublishTestResults@2", {**inputs, "failTaskOnFailedTests": "true"})), space, log)
    none = await run_job(job(task("PublishTestResults@2", {})), space, log)

    assert log.test_runs == [("junit.xml", "Unit")] * 2
    assert [outcome.result for outcome in (fine, strict, none)] == [Result.SUCCEEDED, Result.FAILED, Result.SUCCEEDED]
    assert log.issues[-1] == (0, "warning", "No test result files matching '[ '**/TEST-*.xml' ]' were found.")


async def test_another_python_than_the_agent_s_is_not_there(space: Space, log: Log) -> None:
    outcome = await run_job(job(task("UsePythonVersion@0", {"versionSpec": ">=3.11 <4"})), space, log)
    old = await run_job(job(task("UsePythonVersion@0", {"versionSpec": "2.7"})), space, log)

    assert (outcome.result, old.result) == (Result.SUCCEEDED, Result.FAILED)
    assert log.issues[0][2].startswith("Version spec 2.7 for architecture x64 did not match any version in Agent.ToolsDirectory.")


@pytest.mark.parametrize(
    ("spec", "fits"),
    [
        *[
            ("3", True),
            ("3.x", True),
            ("3.11", True),
            ("3.11.x", True),
            ("3.11.2", True),
            ("3.1", False),
            ("=3.12", False),
            ("latest", False),
        ],
        *[(">=3.11 <3.14", True), ("2.7 || 3.11", True), ("<3.11", False), (">3.11", False), ("<=3.11", True)],
    ],
)
def test_a_version_spec_is_read_as_the_tool_installer_reads_it(spec: str, fits: bool) -> None:
    assert satisfies("3.11.2", spec) is fits


async def test_canceling_kills_the_running_step_and_leaves_the_rest_to_their_conditions(space: Space, log: Log) -> None:
    log.cancel_when = "cancel me"
    steps = (
        bash('sleep 100 & echo "cancel me"; wait'),
        bash("true"),
        bash("true", condition="failed()"),
        bash("echo bye", condition="always()"),
    )

    outcome = await run_job(job(*steps), space, log)

    assert outcome.result is Result.CANCELED
    assert log.results == {0: Result.CANCELED, 1: Result.SKIPPED, 2: Result.SKIPPED, 3: Result.SUCCEEDED}
    assert log.issues == [(0, "error", "The operation was canceled.")]
    assert "bye" in log.lines


async def test_a_step_or_a_job_that_takes_too_long_is_ended(space: Space, log: Log) -> None:
    blink = 0.001
    soft = bash("sleep 100", timeout_minutes=blink, continue_on_error=True)

    step = await run_job(job(bash("sleep 100", timeout_minutes=blink), bash("true", condition="failed()")), space, log)
    whole = await run_job(replace(job(bash("sleep 100"), bash("true")), timeout_minutes=blink), space, log)

    forgiven = await run_job(job(soft), space, log)

    assert (step.result, whole.result, forgiven.result) == (Result.FAILED, Result.CANCELED, Result.SUCCEEDED_WITH_ISSUES)
    assert log.issues[0] == (0, "error", "The task has timed out.")
    assert "ran longer than the maximum time of 0.001 minutes." in log.issues[1][2]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


async def test_nothing_that_a_job_started_outlives_it(space: Space, log: Log) -> None:
    await run_job(job(bash("trap '' TERM; sleep 100 > /dev/null 2>&1 & echo $! > pid"), bash("true")), space, log)

    assert await gone(int((space.folder / "s" / "pid").read_text()))


async def test_stopping_the_sandbox_kills_what_runs(space: Space, log: Log) -> None:
    running = asyncio.ensure_future(
        run_job(job(bash("sleep 100 & echo $! > pid; echo ready; wait"), bash("true", condition="always()")), space, log)
    )
    await log.ready.wait()

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert await gone(int((space.folder / "s" / "pid").read_text()))
    assert log.started == [0]


async def gone(pid: int) -> bool:
    """Whether the process ends; the kernel may take a moment to bury it."""
    for _ in range(200):
        if not alive(pid):
            return True
        await asyncio.sleep(0.01)
    return False


async def test_a_child_that_holds_the_output_open_does_not_hold_the_job(space: Space, log: Log) -> None:
    outcome = await run_job(job(bash("sleep 100 & echo done")), space, log)

    assert outcome.result is Result.SUCCEEDED
    assert "done" in log.lines


async def test_output_is_read_whatever_it_is(space: Space, log: Log) -> None:
    await run_job(job(bash(r"head -c 3000000 /dev/zero | tr '\0' x; printf '\n\xff\r\nlast'")), space, log)

    assert sum(line.count("x") for line in log.lines if set(line) == {"x"}) == 3_000_000
    assert log.lines[-3:-1] == ["�", "last"]


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("plain", None),
        ("##vso[task.complete]", Command("task.complete", {}, "")),
        (
            "x ##vso[Task.SetVariable Variable=a;isOutput=true;]b]c",
            Command("task.setvariable", {"variable": "a", "isoutput": "true"}, "b]c"),
        ),
        ("##vso[a.b x=%5D%3B%AZP2541]%0D%0A", Command("a.b", {"x": "];%41"}, "\r\n")),
    ],
)
def test_a_command_is_read_from_its_line(line: str, command: Command | None) -> None:
    assert parse(line) == command


def test_every_line_of_a_secret_is_masked_the_longest_first() -> None:
    assert mask("abcdef abc key", frozenset({"abc", "abcdef", "key\nx\n"})) == "*** *** ***"
