"""Secrets never get out of a log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.redaction import redact

BASE64 = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
WORD = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("Authorization: Bearer eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl", "c2lnbmF0dXJl"),
        ("authorization: Basic dXNlcjpwYXNzd29yZA==", "dXNlcjpwYXNzd29yZA"),
        ("https://store.blob.core.windows.net/c/f?sv=2024&sig=abc%2Bdefghi%3D&se=2026", "abc%2Bdefghi"),
        ("DefaultEndpointsProtocol=https;AccountName=x;AccountKey=" + BASE64 + ";", BASE64),
        ("key is " + BASE64, BASE64),
        ("git clone https://ada:hunter22@dev.azure.com/contoso", "hunter22"),
        ("postgresql://bot:s3cr3t-w@rd/x@db:5432/callboard", "s3cr3t"),
        ("SLACK_BOT_TOKEN xoxb-1234-5678-abcdef", "1234-5678"),
        ("xapp-1-A0-99-deadbeef connects", "deadbeef"),
        ("xoxe.xoxp-1-Mi0yLTk4", "Mi0yLTk4"),
        ("https://hooks.slack.com/services/T000/B000/XXXXXXXX", "XXXXXXXX"),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "abcdefghijkl"),
        ("AKIAIOSFODNN7EXAMPLE", "IOSFODNN7"),
        ("AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY", "SyD-9tSrke72"),
        ("sk-abcdefghijklmnop0123", "abcdefghijklmnop"),
        ('{"client_secret": "aaa.bbb~ccc"}', "aaa.bbb~ccc"),
        ("export DB_PASSWORD='correct horse'", "correct"),
        ("password=hunter22", "hunter22"),
        ("abc8Q~abcdefghijklmnopqrstuvwxyz0123456", "abcdefghijklmnopq"),
        ("pat " + "a2" * 26, "a2a2a2"),
        ("pat " + "a1" * 38 + "AZDOabcd", "a1a1a1"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEvQ\n", "MIIEvQ"),
        ("AbCd/" + "xY9+" * 16, "xY9+xY9+"),
    ],
)
def test_a_secret_is_hidden(text: str, safe: str) -> None:
    assert safe not in redact(text)
    assert "***" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "ValueError: alpha must not be negative",
        "sha256:" + "ab" * 32,
        "9f2c1d7e5b3a4c6d8e0f1a2b3c4d5e6f70819293",
        'File "/home/agent/work/1/s/deploy/ml/train.py", line 12, in main',
        "https://dev.azure.com/contoso/ml-delivery/_build/results?buildId=480&view=logs",
        "12 passed, 1 failed in 0.31s",
        "mae=41.20 r2=0.455 token",
    ],
)
def test_what_explains_a_failure_stays(text: str) -> None:
    assert redact(text) == text


@given(
    st.text(max_size=60),
    st.text(WORD, min_size=12, max_size=40),
    st.sampled_from(
        ["Bearer {}", "https://a.b/c?sig={}", "AccountKey={}==", "xoxb-{}", "https://u:{}@h/p", "password: {}", "client_secret='{}'"]
    ),
    st.text(max_size=60),
)
def test_no_secret_survives_whatever_stands_around_it(before: str, secret: str, form: str, after: str) -> None:
    assert secret not in redact(f"{before.replace(secret, '')} {form.format(secret)} {after.replace(secret, '')}")


@given(st.text(max_size=200))
def test_what_is_hidden_once_stays_as_it_is(text: str) -> None:
    assert redact(redact(redact(text))) == redact(redact(text))
