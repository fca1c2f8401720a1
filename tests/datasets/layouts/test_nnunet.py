"""nnU-Net raw layout: descriptions, side files and everything that can be wrong with them."""

from __future__ import annotations

import pytest

from medmargin.datasets.layouts import nnunet
from medmargin.errors import DataError


def test_side_files_reach_the_cases(volumes):
    folder = volumes(2)
    (folder / "cases.csv").write_text("case,shape,age\ncase_0,9x8x7,10\n")
    (folder / "attributes.csv").write_text("case,patientid,age\ncase_0,P7,20\n")
    (folder / "texts.csv").write_text("case,generic,mask_derived\ncase_0,an organ,one organ on the left\n")
    for side in ("labelsTr_rater3", "labelsTr_rater2", "scribblesTr"):
        (folder / side).mkdir()
        (folder / side / "case_0.nii.gz").write_bytes(b"")
    first, second = nnunet.read(folder).cases
    assert (first.patient, first.attributes["age"], first.attributes["shape"]) == ("P7", "20", "9x8x7")
    assert first.text == "an organ"
    assert [path.parent.name for path in first.raters] == ["labelsTr_rater2", "labelsTr_rater3"]
    assert first.scribbles == folder / "scribblesTr" / "case_0.nii.gz"
    assert (second.patient, second.raters, second.scribbles, second.text) == ("case_1", (), None, None)


def test_structures_are_ordered_by_value_and_keep_the_files_values(volumes):
    task = nnunet.read(volumes(1, labels={"cyst": 9, "background": 0, "organ": 2})).task
    assert task.structures == {"organ": 1, "cyst": 2}
    assert task.original_values == {"organ": 2, "cyst": 9}


def test_regions_keep_their_order_and_an_ignore_label_follows_the_structures(volumes):
    labels = {"background": 0, "whole": [1, 2, 4], "core": [2, 4], "enhancing": 4, "ignore": 5}
    task = nnunet.read(volumes(1, labels=labels, regions_class_order=[1, 2, 4])).task
    assert task.structures == {"whole": 1, "core": 2, "enhancing": 3}
    assert task.regions == {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    assert task.original_values == {"whole": 1, "core": 2, "enhancing": 4}
    assert (task.ignore, task.num_classes) == (4, 4)
    assert task.values_of_files == {1: 1, 2: 2, 4: 3, 5: 4}


def test_label_values_in_the_same_regions_become_one(volumes):
    labels = {"kidney": [1, 2, 3], "mass": [2, 3]}
    task = nnunet.read(volumes(1, labels=labels, regions_class_order=[1, 3])).task
    assert task.regions == {"kidney": (1, 2), "mass": (2,)}
    assert task.values_of_files == {1: 1, 2: 2, 3: 2}


def test_single_values_in_lists_are_no_regions(volumes):
    task = nnunet.read(volumes(1, labels={"organ": [2], "cyst": 7}, regions_class_order=[7, 2])).task
    assert (task.structures, task.regions) == ({"organ": 1, "cyst": 2}, {})


def test_an_ignore_label_without_regions(volumes):
    task = nnunet.read(volumes(1, labels={"organ": 3, "ignore": 9})).task
    assert (task.structures, task.ignore, task.num_classes) == ({"organ": 1}, 2, 2)
    assert task.values_of_files == {3: 1, 9: 2}


def test_ct_is_recognised_by_its_channel(volumes):
    assert nnunet.read(volumes(1, channel_names={"0": "CT"})).task.modality == "CT"


def test_the_folder_names_the_task_where_the_description_does_not(volumes):
    assert nnunet.read(volumes(1)).task.name == "Toy"


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"channel_names": {"0": "T1", "2": "T2"}}, "the keys are 0, 2; expected 0, 1, 2"),
        ({"channel_names": {}}, "channel_names"),
        ({"labels": {"background": 0}}, "at least one structure"),
        ({"labels": {"organ": 1, "cyst": 1}}, "a value of its own for each"),
        ({"labels": {"organ": -1}}, "from 1 to 65535"),
        ({"labels": {"organ": "1"}}, "gives 'organ' as 1; expected one whole number"),
        ({"labels": {"organ": [1, 2, 2]}, "regions_class_order": [1]}, r"gives 'organ' as \[1, 2, 2\]"),
        ({"labels": {"organ": [0, 1]}, "regions_class_order": [1]}, "without the background's 0"),
        ({"labels": {"organ": []}, "regions_class_order": [1]}, "gives 'organ' as"),
        ({"labels": {"whole": [1, 2], "core": 2}}, "'regions_class_order' is missing; .* for each of whole, core"),
        ({"labels": {"whole": [1, 2], "core": 2}, "regions_class_order": [1]}, r"'regions_class_order' is \[1\]"),
        ({"labels": {"whole": [1, 2], "core": 2}, "regions_class_order": [1, 1]}, "writes 'core' as 1, which is not"),
        ({"labels": {"whole": [1, 2], "core": 2}, "regions_class_order": [2, 2]}, "a value of its own for each"),
        (
            {"labels": {"core": 2, "whole": [1, 2]}, "regions_class_order": [2, 1]},
            "value 2 lies in core, whole, but .* whole. List inner",
        ),
        ({"labels": {"a": [1, 3], "b": [2, 3]}, "regions_class_order": [1, 2]}, "value 3 lies in a, b, but .* as b. "),
        (
            {"labels": {"organ": 1, "cyst": 3, "ignore": 2}},
            r"'ignore' is \[2\]; .* above that of every structure \(3\)",
        ),
        ({"labels": {"organ": 1, "ignore": [2, 3]}}, r"'ignore' is \[2, 3\]"),
        ({"labels": {"ignore": 2}}, "at least one structure"),
        ({"spacing_known": "perhaps"}, "spacing_known"),
    ],
)
def test_wrong_descriptions_are_refused_with_the_field(volumes, description, message):
    folder = volumes(1, **description)
    with pytest.raises(DataError, match=message) as caught:
        nnunet.read(folder)
    assert str(folder / "dataset.json") in str(caught.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,age\ncase_0,3\n", "no column 'case'; found name, age"),
        ("case,age\ncase_0,3\ncase_0,4\n", "row 3: case 'case_0' is listed twice"),
        ("case,age\n,3\n", "row 2: column 'case' is empty"),
    ],
)
def test_wrong_tables_are_refused_with_the_row(volumes, table, message):
    folder = volumes(1)
    (folder / "attributes.csv").write_text(table)
    with pytest.raises(DataError, match=message):
        nnunet.read(folder)


def test_hidden_files_and_tables_beside_labels_are_no_cases(volumes):
    folder = volumes(1)
    (folder / "imagesTr" / "._case_0_0000.nii.gz").write_bytes(b"")
    (folder / "labelsTr" / "case_0_labels.txt").write_text("")
    listing = nnunet.read(folder)
    assert (len(listing.cases), listing.faults) == (1, ())
