"""The pytest plugin: scenarios as tests, the fixture, and runs of people who use neither."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

FLAGS = """
import pytest
from upcall.check import scenario


def lay_out(s, fence):
    x, y = s.word("x"), s.word("y")

    def looks(name, mine, other):
        mine.store(1)
        if fence:
            s.mb()
        s.note(name, other.load())

    s.actor(lambda: looks("one", x, y), name="one")
    s.actor(lambda: looks("two", y, x), name="two")

    @s.at_end
    def check(state):
        assert not (state.count("one", 0) and state.count("two", 0)), "neither saw the other"


@scenario
def flags(s):
    lay_out(s, False)


@scenario
def fenced(s):
    lay_out(s, True)
"""


WITHOUT = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
"""Hypothesis would be imported at the end of each run."""


def run(pytester: pytest.Pytester, text: str, *args: str) -> pytest.RunResult:
    pytester.makepyfile(test_it=text)
    return pytester.runpytest_inprocess(*WITHOUT, "-p", "upcall_pytest", *args)


def test_scenarios_are_tests_under_each_model(pytester: pytest.Pytester) -> None:
    done = run(pytester, FLAGS, "-v")
    done.assert_outcomes(passed=3, failed=1)
    done.stdout.fnmatch_lines(
        ["*::flags[[]sc] PASSED*", "*::flags[[]tso] FAILED*", "*::fenced[[]sc] PASSED*", "*::fenced[[]tso] PASSED*"]
    )


def test_a_failure_is_the_story_and_nothing_else(pytester: pytest.Pytester) -> None:
    done = run(pytester, FLAGS, "-k", "flags and tso")
    done.stdout.fnmatch_lines(["flags, tso:", "*x = 1, into its buffer*", "BROKEN: neither saw the other"])
    done.stdout.no_fnmatch_line("*Traceback*")


def test_models_from_command_line_mark_and_configuration(pytester: pytest.Pytester) -> None:
    marked = FLAGS.replace("@scenario\ndef fenced", '@scenario\n@pytest.mark.upcall(models=["ra"])\ndef fenced')
    pytester.makeini("[pytest]\nupcall_models = sc\n")
    run(pytester, marked, "-v").stdout.fnmatch_lines(["*::flags[[]sc] PASSED*", "*::fenced[[]ra] PASSED*"])
    done = run(pytester, marked, "-v", "--upcall-model", "tso")
    done.stdout.fnmatch_lines(["*::flags[[]tso] FAILED*", "*::fenced[[]tso] PASSED*"])
    assert run(pytester, marked, "--upcall-model", "arm").ret != 0


def test_what_must_break(pytester: pytest.Pytester) -> None:
    marked = FLAGS.replace(
        "@scenario\ndef flags", '@pytest.mark.upcall(models=["tso"], broken="neither")\n@scenario\ndef flags'
    )
    run(pytester, marked).assert_outcomes(passed=3)
    wrong = marked.replace('broken="neither"', 'broken="something else"')
    done = run(pytester, wrong, "-k", "flags")
    done.assert_outcomes(failed=1, deselected=2)
    done.stdout.fnmatch_lines(["it was to break with 'something else'"])


def test_other_marks_hold(pytester: pytest.Pytester) -> None:
    marked = FLAGS.replace("@scenario\ndef flags", '@pytest.mark.skip(reason="slow")\n@scenario\ndef flags')
    run(pytester, marked).assert_outcomes(passed=2, skipped=2)
    failing = FLAGS.replace("@scenario\ndef flags", '@pytest.mark.xfail(reason="known")\n@scenario\ndef flags')
    run(pytester, failing, "--upcall-model", "tso").assert_outcomes(passed=1, xfailed=1)


def test_a_wrong_mark_is_said(pytester: pytest.Pytester) -> None:
    wrong = FLAGS.replace("@scenario\ndef flags", "@pytest.mark.upcall(death=1)\n@scenario\ndef flags")
    done = run(pytester, wrong)
    assert done.ret != 0
    done.stdout.fnmatch_lines(["*the mark upcall of scenario flags: *'death'*; its arguments are models, deaths*"])


def test_a_scenario_that_is_only_imported_is_no_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(shapes=FLAGS)
    run(pytester, "from shapes import flags\n\ndef test_one():\n    pass\n").assert_outcomes(passed=1)


def test_the_fixture(pytester: pytest.Pytester) -> None:
    text = FLAGS.replace("@scenario\n", "") + (
        "\n\ndef test_right(upcall_check):\n"
        "    results = upcall_check(fenced, models=['sc', 'ra'], deaths=1)\n"
        "    assert [result.verdict.complete for result in results] == [True, True]\n"
        "\n\ndef test_wrong(upcall_check):\n    upcall_check(flags)\n"
        "\n\ndef test_must_break(upcall_check):\n    upcall_check(flags, models=['tso'], broken='neither')\n"
        "\n\ndef test_does_not_break(upcall_check):\n    upcall_check(fenced, models=['tso'], broken='neither')\n"
    )
    done = run(pytester, text)
    done.assert_outcomes(passed=2, failed=2)
    done.stdout.fnmatch_lines(["flags, tso:", "BROKEN: neither saw the other"])
    done.stdout.fnmatch_lines(["fenced, tso: was to break with 'neither'; NOT BROKEN, complete"])


def test_what_is_not_explored_completely_fails(pytester: pytest.Pytester) -> None:
    text = (
        "from upcall.check import scenario\n\n\n@scenario\ndef large(s):\n    words = [s.word(str(i)) for i in range(5)]\n\n"
        "    def adds():\n        for word in words:\n            word.add(1)\n            word.add(1)\n\n"
        "    for i in range(5):\n        s.actor(adds, name=str(i))\n"
    )
    pytester.makeini("[pytest]\nupcall_models = sc\nupcall_seconds = 0\n")
    done = run(pytester, text)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["large, sc: stopped after 0 s, nothing found so far*"])
    bounded = text.replace("@scenario", "import pytest\n\n\n@pytest.mark.upcall(preemptions=0, seconds=60)\n@scenario")
    run(pytester, bounded).assert_outcomes(passed=1)


def test_pages_of_what_fails(pytester: pytest.Pytester) -> None:
    done = run(pytester, FLAGS, "--upcall-html", "pages")
    done.stdout.fnmatch_lines(["as a page: pages/flags-tso.html"])
    assert [path.name for path in (pytester.path / "pages").iterdir()] == ["flags-tso.html"]


def test_an_error_in_a_scenario_is_one_line(pytester: pytest.Pytester) -> None:
    done = run(
        pytester, "from upcall.check import scenario\n\n\n@scenario\ndef empty(s):\n    s.word('x')\n", "-k", "sc"
    )
    done.stdout.fnmatch_lines(["scenario empty has no actors: give it functions marked @s.actor"])


def test_who_does_not_use_it_imports_nothing_of_upcall(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it="import sys\n\n\ndef test_one():\n    assert 'upcall_pytest' in sys.modules\n"
        "    assert not [name for name in sys.modules if name.split('.')[0] in ('upcall', 'greenlet', 'Cython')]\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", *WITHOUT, "-p", "upcall_pytest"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=pytester.path)
    assert done.returncode == 0, done.stdout


def test_without_greenlet_the_error_says_what_to_install(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        conftest="import sys\n\nsys.modules['greenlet'] = None\n",
        test_it="def test_one(upcall_check):\n    upcall_check(lambda s: None)\n",
        test_other="from upcall.check import scenario\n",
    )
    command = [sys.executable, "-m", "pytest", "-q", *WITHOUT, "-p", "upcall_pytest"]
    for file in ("test_it.py", "test_other.py"):
        done = subprocess.run([*command, file], capture_output=True, text=True, timeout=60, cwd=pytester.path)
        assert done.returncode != 0
        assert "pip install 'upcall[check]'" in done.stdout
