"""Which nodes a pattern means, and which patterns nobody compares with anything: they could take for ever."""

from __future__ import annotations

import pytest

from celeriac.wire.control import Command, concerns, pattern_problem

NODE = "celery@ip-10-0-0-100.eu-central-1.compute.internal"


@pytest.mark.parametrize(
    ("pattern", "matcher", "expected"),
    [
        ("celery@*", "glob", True),
        ("*.compute.*", "glob", True),
        ("w*", "glob", False),
        (r"celery@ip-.*\.eu-(?:central|west)-\d+", "pcre", True),
        (r"(web|celery)@.*", "pcre", True),
        (r"(?P<x>box|celery)@.*", "pcre", True),
        (r"(box)@", "pcre", False),
        (r"\)+celery", "pcre", False),
        ("compute", "pcre", False),  # from the beginning, as everywhere in Celery
    ],
)
def test_patterns(pattern: str, matcher: str, expected: bool) -> None:
    assert pattern_problem(pattern, matcher) == ""
    assert concerns(Command(method="ping", pattern=pattern, matcher=matcher), NODE) is expected


@pytest.mark.parametrize(
    ("pattern", "matcher", "problem"),
    [
        ("(.*)*!", "pcre", "could take for ever"),
        (r"(\w|.)+!", "pcre", "could take for ever"),
        ("(?x)( .* ) *!", "pcre", "could take for ever"),
        ("(.*)(?#)*!", "pcre", "could take for ever"),
        (".*.*.*.*.*!", "pcre", "could take for ever"),
        ("(a|a)(a|a)(a|a)(a|a)(a|a)!", "pcre", "could take for ever"),
        ("a{99999999999}", "pcre", "is no regular expression"),
        ("[", "pcre", "is no regular expression"),
        ("a" * 201, "pcre", "201 characters is too long"),
        ("*a" * 200, "glob", "400 characters is too long"),
        ("a", "regexp", "matcher is 'glob' or 'pcre', not 'regexp'"),
    ],
)
def test_other_patterns_mean_nobody(pattern: str, matcher: str, problem: str) -> None:
    assert problem in pattern_problem(pattern, matcher)
    assert not concerns(Command(method="ping", pattern=pattern, matcher=matcher), NODE)
