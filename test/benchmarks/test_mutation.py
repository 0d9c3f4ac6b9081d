"""Only mutations that can be noticed are drawn."""

from __future__ import annotations

from benchmarks.mutation import OPERATORS, effect

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
