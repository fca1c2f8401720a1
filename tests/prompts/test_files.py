"""Prompt files: every form reads the same, every mistake is named with its place."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmargin.errors import PromptError
from medmargin.prompts.files import parse_box, read_prompts
from medmargin.prompts.types import Box, Point, Prompt


def _write(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_boxes_of_pictures_and_volumes_come_from_one_csv(tmp_path):
    path = _write(
        tmp_path,
        "boxes.csv",
        "case,structure,x_min,y_min,z_min,x_max,y_max,z_max\n"
        "scan,liver,1,2,3,4,5.5,6\n"
        "scan,liver,1,2,4,4,5.5,4\n"
        "photo, lesion ,10,20,,30,40,\n",
    )
    assert read_prompts(path) == {
        "scan": [
            Prompt(structure="liver", box=Box((1, 2, 3), (4, 5.5, 6))),
            Prompt(structure="liver", box=Box((1, 2, 4), (4, 5.5, 4))),
        ],
        "photo": [Prompt(structure="lesion", box=Box((10, 20), (30, 40)))],
    }


def test_points_of_one_structure_become_one_prompt(tmp_path):
    path = _write(
        tmp_path, "points.csv", "case,structure,x,y,z,label\na,liver,1,2,3,1\na,spleen,7,8,9,1\na,liver,4,5,6,0\n"
    )
    assert read_prompts(path) == {
        "a": [
            Prompt(structure="liver", points=(Point((1, 2, 3), True), Point((4, 5, 6), False))),
            Prompt(structure="spleen", points=(Point((7, 8, 9), True),)),
        ]
    }


def test_json_reads_as_the_csv_of_the_same_names(tmp_path):
    box = {"structure": "lesion", "x_min": 1, "y_min": 2, "x_max": 3, "y_max": 4}
    expected = {"a": [Prompt(structure="lesion", box=Box((1, 2), (3, 4)))]}
    assert read_prompts(_write(tmp_path, "list.json", json.dumps([{"case": "a", **box}]))) == expected
    assert read_prompts(_write(tmp_path, "cases.json", json.dumps({"a": [box]}))) == expected


def test_json_may_mix_boxes_and_points(tmp_path):
    records = [
        {"case": "a", "structure": "cyst", "x": 1, "y": 2, "label": 1},
        {"case": "a", "structure": "lesion", "x_min": 1, "y_min": 2, "x_max": 3, "y_max": 4},
    ]
    prompts = read_prompts(_write(tmp_path, "mixed.json", json.dumps(records)))
    assert {prompt.structure for prompt in prompts["a"]} == {"cyst", "lesion"}


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([[1, 2, 3, 4], [5, 6, 7, 8]], [Box((1, 2), (3, 4)), Box((5, 6), (7, 8))]),
        ([[1, 2, 3, 4, 5, 6]], [Box((1, 2, 3), (4, 5, 6))]),
    ],
)
def test_challenge_npz_numbers_its_objects(tmp_path, boxes, expected):
    shape = (9, 9) if len(boxes[0]) == 4 else (9, 9, 9)
    np.savez_compressed(tmp_path / "2D_scan.npz", imgs=np.zeros(shape, np.uint8), boxes=np.array(boxes))
    prompts = read_prompts(tmp_path / "2D_scan.npz")
    assert list(prompts) == ["2D_scan"]
    assert [(prompt.structure, prompt.box) for prompt in prompts["2D_scan"]] == [
        (f"object {number}", box) for number, box in enumerate(expected, start=1)
    ]


coordinates = st.floats(-1e4, 1e4).map(lambda value: round(value, 3))
boxes = st.integers(2, 3).flatmap(
    lambda length: st.lists(st.tuples(coordinates, coordinates).map(sorted), min_size=length, max_size=length)
)


@given(st.lists(st.tuples(st.sampled_from(["a", "b ä", "c,d"]), boxes), min_size=1, max_size=6))
def test_boxes_survive_csv_and_json(tmp_path_factory, entries):
    folder = tmp_path_factory.mktemp("boxes")
    names = ("case", "structure", "x_min", "y_min", "z_min", "x_max", "y_max", "z_max")
    expected: dict[str, list[Box]] = {}
    lines, records = [",".join(names)], []
    for case, sides in entries:
        box = Box(tuple(low for low, _ in sides), tuple(high for _, high in sides))
        expected.setdefault(case, []).append(box)
        padding = [""] * (3 - len(sides))
        values = [case, "organ", *map(repr, box.minimum), *padding, *map(repr, box.maximum), *padding]
        lines.append(",".join(f'"{value}"' for value in values))
        records.append({name: value for name, value in zip(names, values, strict=True) if value})
    for path in (
        _write(folder, "boxes.csv", "\n".join(lines)),
        _write(folder, "boxes.json", json.dumps(records)),
    ):
        found = read_prompts(path)
        assert {case: [prompt.box for prompt in prompts] for case, prompts in found.items()} == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "case,structure,x_min,y_min,x_max,y_max\nc,s,1,2,3,4\nc,s,1,2,x,4\n", "row 3: column 'x_max' is 'x'"),
        ("a.csv", "case,structure,x_min,y_min,x_max,y_max\nc,s,nan,2,3,4\n", "row 2: column 'x_min' is 'nan'"),
        ("a.csv", "case,structure,x_min,y_min,x_max,y_max\nc,s,9,2,3,4\n", "row 2: x_min = 9 is larger than x_max = 3"),
        ("a.csv", "case,structure,x_min,y_min,x_max,y_max\nc,,1,2,3,4\n", "row 2: column 'structure' is missing"),
        ("a.csv", "case,structure,x_min,y_min,x_max\nc,s,1,2,3\n", "row 2: column 'y_max' is missing"),
        ("a.csv", "case,structure,x_min,y_min,x_max,y_max\nc,s,1,2,3,4,5\n", "row 2 has more fields"),
        ("a.csv", "case,structure,x_min,y_min,z_min,x_max,y_max\nc,s,1,2,3,4,5\n", "row 2: column 'z_max' is missing"),
        ("a.csv", "case,structure,left\nc,s,1\n", "no column 'x_min'"),
        ("a.csv", "case,structure,x,y,label\nc,s,1,2,2\n", "row 2: column 'label' is 2"),
        ("a.csv", "case,structure,x,y\nc,s,1,2\n", "row 2: column 'label' is missing"),
        ("a.csv", "case,structure,x,y,label\n", "holds no prompt"),
        ("a.json", "[{]", "not valid JSON"),
        ("a.json", '{"case": "c"}', "list of records"),
        ("a.json", '{"c": [{"structure": "s", "x": 1, "label": 1}]}', "case 'c', record 1: column 'y' is missing"),
        ("a.xlsx", "", "found '.xlsx'"),
    ],
)
def test_mistakes_are_named_with_file_row_and_column(tmp_path, name, text, message):
    path = _write(tmp_path, name, text)
    with pytest.raises(PromptError) as caught:
        read_prompts(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_bytes_that_are_no_text_are_refused(tmp_path):
    with pytest.raises(PromptError, match="no such file"):
        read_prompts(tmp_path / "absent.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00case")
    with pytest.raises(PromptError, match="cannot be read"):
        read_prompts(tmp_path / "binary.csv")


def test_boxes_are_parsed_from_the_command_line():
    assert parse_box("1,2,3,4") == Box((1, 2), (3, 4))
    assert parse_box(" 1, 2.5,3,4,5,6") == Box((1, 2.5, 3), (4, 5, 6))


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "1,2,a,4", "3,2,1,4", "1,2,inf,4", "1;2;3;4"])
def test_malformed_boxes_are_refused(text):
    with pytest.raises(PromptError, match="box"):
        parse_box(text)
