"""Simulated patients and their scans."""

import numpy as np

from medmargin.datasets.phantoms.acquisition import SITES
from medmargin.datasets.phantoms.cohort import Patient, Scan, invite_patients, scan_patient


def _scans(patient: Patient, *, raters: int = 1, dims: int = 2, seed: int = 0) -> list[Scan]:
    return list(scan_patient(patient, seed=seed, dims=dims, raters=raters, edge_sd_mm=0.8, rater_sd_mm=0.8))


def test_patients_give_exactly_the_scans_asked_for() -> None:
    for cases in range(2, 30):
        patients = invite_patients(cases=cases, seed=0, dims=2)
        names = [patient.case_name(visit) for patient in patients for visit in range(patient.visits)]
        assert len(names) == len(set(names)) == cases


def test_every_third_patient_comes_twice() -> None:
    patients = invite_patients(cases=24, seed=1, dims=2)
    assert [patient.number for patient in patients if patient.visits == 2] == [3, 6, 9, 12, 15, 18]


def test_patients_differ_in_age_sex_site_and_lesion() -> None:
    patients = invite_patients(cases=60, seed=0, dims=2)
    assert {patient.sex for patient in patients} == {"F", "M"}
    assert {patient.site for patient in patients} == set(SITES)
    assert min(patient.age for patient in patients) < 40 < 65 < max(patient.age for patient in patients)
    with_lesion = [patient.anatomy.lesion_centre is not None for patient in patients]
    assert 0.6 < np.mean(with_lesion) < 1


def test_a_patient_is_the_same_in_a_larger_cohort() -> None:
    small, large = (invite_patients(cases=cases, seed=3, dims=3)[0] for cases in (2, 20))
    np.testing.assert_array_equal(small.anatomy.radii, large.anatomy.radii)
    assert (small.age, small.sex, small.site) == (large.age, large.sex, large.site)


def test_men_have_larger_organs_and_age_dims_them() -> None:
    patients = invite_patients(cases=150, seed=0, dims=2)
    radius = {sex: np.mean([p.anatomy.radii for p in patients if p.sex == sex]) for sex in "FM"}
    assert radius["M"] > 1.05 * radius["F"]
    ages, levels = np.array([(p.age, p.anatomy.levels["organ"]) for p in patients]).T
    assert np.corrcoef(ages, levels)[0, 1] < -0.2


def test_more_raters_change_neither_the_image_nor_the_raters_before() -> None:
    patient = invite_patients(cases=2, seed=0, dims=2)[0]
    one, three = _scans(patient, raters=1)[0], _scans(patient, raters=3)[0]
    np.testing.assert_array_equal(one.image, three.image)
    np.testing.assert_array_equal(one.raters[0], three.raters[0])
    assert not np.array_equal(three.raters[0], three.raters[1])


def test_a_lesion_grows_between_visits_and_the_organ_does_not() -> None:
    patient = next(
        patient
        for patient in invite_patients(cases=30, seed=0, dims=2)
        if patient.visits == 2 and patient.anatomy.lesion_centre is not None
    )
    first, second = _scans(patient)
    size = [{organ.name: int((organ.distance_mm > 0).sum()) for organ in scan.organs} for scan in (first, second)]
    assert size[1]["lesion"] > 1.1 * size[0]["lesion"]
    assert size[1]["organ"] == size[0]["organ"]
    assert not np.array_equal(first.image, second.image)


def test_another_seed_gives_another_image() -> None:
    patient = invite_patients(cases=2, seed=0, dims=2)[0]
    assert not np.array_equal(_scans(patient, seed=0)[0].image, _scans(patient, seed=1)[0].image)
