"""JUnit XML to test results, as PublishTestResults reads it. Pure."""

from __future__ import annotations

from xml.etree import ElementTree

from sandbox.azure_devops.records import TestResult


def read(text: str) -> tuple[TestResult, ...]:
    """The test cases of a file, in order. Raises ElementTree.ParseError, and ValueError for a time that is no number."""
    root = ElementTree.fromstring(text)
    return tuple(_result(number, case) for number, case in enumerate(root.iter("testcase"), 100000))


def _result(number: int, case: ElementTree.Element) -> TestResult:
    bad = next((found for name in ("failure", "error") if (found := case.find(name)) is not None), None)
    skipped = case.find("skipped") is not None
    return TestResult(
        id=number,
        name=case.get("name", ""),
        storage=case.get("classname", ""),
        outcome="Failed" if bad is not None else "NotExecuted" if skipped else "Passed",
        duration=float(case.get("time") or 0) * 1000,
        message=bad.get("message", "") if bad is not None else "",
        stack=(bad.text or "").strip() if bad is not None else "",
    )
