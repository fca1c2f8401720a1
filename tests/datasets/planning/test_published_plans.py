"""What the rules make of data sets whose nnU-Net plans are public.

Hippocampus: MIC-DKFZ/nnUNet issue 148. Lung (MSD Task06): issue 2094. Liver metastases: issue 1768. Micro-aneurysms:
issue 2251. Prostate: Isensee et al. 2021, supplementary figure of the Prostate pipeline.
"""

from __future__ import annotations

import pytest

from medmargin.datasets.dataset import open_dataset
from medmargin.datasets.planning import LAPTOP, PAPER, make_plan, measure_fingerprint, planning_cases


@pytest.mark.parametrize(
    ("shape", "spacing", "structures", "cases", "patch", "batch_size", "poolings"),
    [
        pytest.param((35, 50, 36), (1, 1, 1), 2, 260, (40, 56, 40), 9, (3, 3, 3), id="hippocampus"),
        pytest.param((512, 512, 252), (0.785, 0.785, 1.245), 1, 63, (80, 192, 160), 2, (4, 5, 5), id="lung"),
        pytest.param((512, 512, 143), (0.7832, 0.7832, 1.5), 2, 100, (56, 224, 192), 2, (3, 5, 5), id="metastases"),
        pytest.param((319, 320, 20), (0.625, 0.625, 3.6), 2, 32, (20, 320, 256), 2, (2, 6, 6), id="prostate"),
    ],
)
def test_full_resolution_is_as_published(fingerprint, shape, spacing, structures, cases, patch, batch_size, poolings):
    found = make_plan(fingerprint(shape, spacing, structures=structures, cases=cases)).configuration("3d_fullres")
    assert (found.patch, found.batch_size) == (patch, batch_size)
    assert tuple(sum(stride[axis] == 2 for stride in found.strides) for axis in range(3)) == poolings


def test_pictures_are_as_published(fingerprint):
    pictures = fingerprint((4288, 2848, 1), (1, 1, 1), structures=1, cases=50, channels="RGB", dims=2)
    found = make_plan(pictures)
    assert [one.name for one in found.configurations] == ["2d"]
    assert (found.configuration().patch, found.configuration().batch_size) == ((1024, 1536), 2)


def test_hippocampus_slices_are_as_published(fingerprint):
    slices = make_plan(fingerprint()).configuration("2d")
    assert (slices.patch, slices.batch_size) == ((56, 40), 366)
    assert slices.features == (32, 64, 128, 256)


def test_a_patch_that_covers_a_quarter_needs_no_low_resolution(fingerprint):
    """MIC-DKFZ/nnUNet issue 2227: the search for a low resolution ended at this spacing, with this patch."""
    spacing = (1.841066801569828, 1.841066801569828, 2.3565655060093813)
    plan = make_plan(fingerprint((217, 217, 177), spacing, structures=2))
    assert plan.configuration("3d_fullres").patch == (128, 128, 128)
    assert "3d_lowres" not in [one.name for one in plan.configurations]


def test_large_images_get_a_low_resolution_and_a_cascade(fingerprint):
    plan = make_plan(fingerprint((512, 512, 252), (0.785, 0.785, 1.245), channels=["CT"], structures=3, cases=63))
    coarse, cascade = plan.configuration("3d_lowres"), plan.configuration("3d_cascade")
    covered = 1.0
    for patch, whole in zip(coarse.patch, coarse.median_shape, strict=True):
        covered *= patch / whole
    assert 0.25 <= covered < 0.35
    assert max(coarse.spacing) / min(coarse.spacing) < 2
    assert (cascade.previous, cascade.channels, cascade.patch) == ("3d_lowres", 1 + 3, (80, 192, 160))


def test_the_real_hippocampus_agrees(data_root):
    """With 200 of the 260 cases, a twentieth of the data set is 7 samples, not 9."""
    dataset = open_dataset(data_root / "Dataset004_Hippocampus")
    measured = measure_fingerprint(planning_cases(dataset), dataset.task)
    paper = make_plan(measured, scale=PAPER).configuration()
    assert (paper.name, paper.median_shape, paper.spacing) == ("3d_fullres", (36, 50, 35), (1.0, 1.0, 1.0))
    assert (paper.patch, paper.batch_size) == ((40, 56, 40), 7)
    assert paper.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    laptop = make_plan(measured, scale=LAPTOP).configuration()
    assert (laptop.patch, laptop.batch_size, laptop.features) == ((40, 56, 40), 2, (16, 32, 64, 128))
    assert laptop.training_bytes("float32") <= LAPTOP.memory
