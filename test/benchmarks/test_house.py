"""The counts of the house are right on sources that are made for it."""

from __future__ import annotations

from benchmarks import house
from benchmarks.generated_tables import fill_in
from lisa_ros.text_tables import markdown_table

FILES = {
    "pack/__init__.py": "",
    "pack/low.py": "import os\n",
    "pack/types_only.py": "if TYPE_CHECKING:\n    from pack.late import Late\n",
    "pack/late.py": "class Late:\n    def go(self):\n        from pack import types_only\n",
    "pack/part/__init__.py": "from pack.part.inner import A\n",
    "pack/part/inner.py": "class A: ...\n\n\nclass Late: ...\n",
    "pack/part/low.py": "from pack.part import A\nfrom pack.low import x\n",
}


def test_a_circle_for_types_or_inside_a_function_is_a_circle() -> None:
    assert house.circles(FILES) == [["pack.late", "pack.types_only"]]
    straight = FILES | {"pack/types_only.py": ""}
    assert house.circles(straight) == []


def test_a_module_that_imports_its_own_package_is_in_a_circle_if_that_imports_it() -> None:
    files = FILES | {"pack/types_only.py": "", "pack/part/inner.py": "from pack.part import low\n"}
    [circle] = house.circles(files)
    assert set(circle) == {"pack.part", "pack.part.inner", "pack.part.low"}


def test_names_that_stand_twice_are_found_with_their_places() -> None:
    assert house.doubled_modules(FILES) == {"low": ["pack/low.py", "pack/part/low.py"]}
    assert house.doubled_classes(FILES) == {"Late": ["pack/late.py", "pack/part/inner.py"]}


def test_lines_are_counted_for_packages_and_their_folders() -> None:
    assert house.sizes(FILES) == {"pack": (7, 13), "pack/part": (3, 7)}


def test_directives_are_no_comments() -> None:
    text = 'x = 1  # (B, T)\n# noqa: E501\ny = "# no"\n# why\n'
    assert house.comments(text) == 50.0


def test_an_import_of_what_a_robot_lacks_is_found_unless_a_function_makes_it() -> None:
    files = {
        "lisa_ros/a.py": "if x:\n    import mujoco.viewer\n",
        "lisa_ros/b.py": "def late():\n    import peft\n",
        "lisa_ros/c.py": "class A:\n    from lisa_tabletop.world import camera\n",
        "lisa_tabletop/d.py": "import mujoco\n",
        "lisa_ros/training/e.py": "import peft\nimport mujoco\n",
        "lisa_ros/f.py": "if TYPE_CHECKING:\n    import peft\nelse:\n    import trimesh\n",
    }
    assert house.upward(files) == {
        "lisa_ros/a.py": ["mujoco"],
        "lisa_ros/c.py": ["lisa_tabletop"],
        "lisa_ros/training/e.py": ["mujoco"],
        "lisa_ros/f.py": ["trimesh"],
    }


def test_a_table_keeps_what_looks_like_markup_and_aligns_numbers() -> None:
    table = markdown_table(["what", "ms"], [["[SEG]", "1.0"], ["a mask", "12.0"]])
    assert table.splitlines()[2:] == ["| [SEG]  |  1.0 |", "| a mask | 12.0 |"]


def test_a_part_of_a_page_is_put_into_its_own_place_alone() -> None:
    place = "<!-- table: {} -->\n{}\n<!-- end of table -->\n"
    page = place.format("one", "old") + place.format("two", "kept")
    filled = fill_in(page, {"one": "| new |"})
    assert "| new |" in filled and "kept" in filled and "old" not in filled


def test_the_house_itself_has_no_circle_no_import_of_what_a_robot_lacks_and_no_name_twice() -> None:
    files = house.sources(*house.PACKAGES)
    assert len(files) > 100
    for count in (house.circles, house.upward, house.doubled_modules, house.doubled_classes):
        assert not count(files), count.__name__


def test_the_dense_files_of_the_engine_are_commented() -> None:
    files = house.sources("lisa_ros")
    for name in house.DENSE:
        assert house.comments(files[f"lisa_ros/engine/{name}.py"]) >= house.LEAST_COMMENTS, name
