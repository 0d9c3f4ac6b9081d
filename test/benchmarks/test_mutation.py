"""Only mutations that can be noticed are drawn, and each meets the tests that run its line."""

from __future__ import annotations

from benchmarks.mutation import MOST, OPERATORS, effect, selected

CODE = """
def f(a: int | None, logger) -> list[int]:
    b: int = a + 1
    logger.warning("no " + str(a))
    return [b]
"""


def test_annotations_words_of_the_log_and_what_is_no_python_have_no_effect() -> None:
    assert effect(CODE) == effect(CODE.replace("int | None", "int & None"))
    assert effect(CODE) == effect(CODE.replace('"no " +', '"no " *'))
    assert effect(CODE) != effect(CODE.replace("a + 1", "a - 1"))
    assert effect("a > not b") == ""


def test_operators_are_those_of_a_persons_faults() -> None:
    for name in ("NumberReplacer", "ReplaceComparisonOperator_Lt_LtE", "AddNot"):
        assert OPERATORS.fullmatch(f"core/{name}")
    for name in ("ReplaceComparisonOperator_Eq_Is", "ReplaceBinaryOperator_BitOr_Add"):
        assert not OPERATORS.fullmatch(f"core/{name}")


MODULE = """LIMIT = 3

def near(x):
    if x > LIMIT:
        return False
    return True

def far(x):
    return not near(x)
"""
SECONDS = {"test_a.py::slow": 2.0, "test_a.py::quick": 0.1, "test_b.py::other": 1.0}
SECONDS["test_c.py::first"] = 0.01
CONTEXTS = {
    1: ["", "test_b.py", "test_c.py::first"],  # which happened to import it
    3: [""],
    4: ["test_a.py::slow", "test_a.py::quick", "test_b.py"],
    6: ["test_a.py::slow"],
    8: [""],
}


def test_a_fault_meets_the_tests_that_run_its_line_the_quickest_first() -> None:
    near = ["test_a.py::quick", "test_a.py::slow", "test_b.py::other"]
    assert selected(MODULE, 4, CONTEXTS, SECONDS) == near, "its rig runs it for all of test_b"
    assert selected(MODULE, 6, CONTEXTS, SECONDS) == ["test_a.py::slow"]
    # no test runs the line
    assert selected(MODULE, 5, CONTEXTS, SECONDS) == []
    # a constant, and the line of a `def`, run at import: what calls the functions around
    assert selected(MODULE, 1, CONTEXTS, SECONDS) == near
    assert selected(MODULE, 3, CONTEXTS, SECONDS) == near


def test_what_takes_too_long_is_left_out() -> None:
    slow = SECONDS | {"test_a.py::slow": MOST}
    assert selected(MODULE, 4, CONTEXTS, slow) == ["test_a.py::quick"]
