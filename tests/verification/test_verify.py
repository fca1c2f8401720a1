"""`verify`: finds the part by its slug, skips no output, and passes nothing that is not equal."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from medmargin import verification
from medmargin.errors import CheckpointError, ConfigError
from medmargin.verification import VerificationResult, list_verifiable, verify

NETWORKS = (
    "efficientvit-sam", "medsam-lite", "medsam-lite-full", "medsam-lite-prepost", "sam-decoder-full", "sam-vit",
)  # fmt: skip
WITH_WEIGHTS = ("efficientvit-sam", "medsam-lite", "sam-vit")


@functools.cache
def _truth(path: Path) -> VerificationResult:
    return verify(path.stem, path)


@functools.cache
def _shapes(path: Path) -> dict[str, list[int]]:
    with safe_open(path, framework="pt") as file:
        return {
            name.removeprefix("output."): file.get_slice(name).get_shape()
            for name in file.keys()  # noqa: SIM118
            if name.startswith("output.")
        }


@pytest.mark.parametrize("slug", NETWORKS)
def test_the_authors_numbers_come_back_and_none_is_skipped(golden: Path, slug: str) -> None:
    path = golden / f"{slug}.safetensors"
    result = _truth(path)
    assert result.passed, [output for output in result.outputs if not output.passed]
    assert {output.name for output in result.outputs} == set(_shapes(path))
    assert (result.slug, result.reference) == (slug, path)


@pytest.mark.parametrize("slug", NETWORKS)
def test_one_wrong_number_in_any_output_fails(golden: Path, altered, slug: str) -> None:
    """Change every output at one place by a little more than what is allowed: all of them must fail."""
    path = golden / f"{slug}.safetensors"
    allowed = {output.name: output.tolerance for output in _truth(path).outputs}

    def perturb(tensors: dict[str, torch.Tensor]) -> None:
        for name, size in _shapes(path).items():
            if 0 not in size:
                flat = tensors[f"output.{name}"].flatten()
                exact = not flat.is_floating_point()
                place = 0 if exact else flat.abs().argmin()  # must not raise the largest magnitude
                flat[place] += 1 if exact else 2 * allowed[name] * max(1.0, float(flat.abs().max()))
                tensors[f"output.{name}"] = flat.reshape(size)

    result = verify(slug, altered(slug, perturb))
    assert not result.passed
    assert {output.name for output in result.outputs if output.passed} == {
        name for name, size in _shapes(path).items() if 0 in size
    }


@pytest.mark.parametrize("slug", WITH_WEIGHTS)
def test_one_changed_weight_fails(altered, slug: str) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in sorted(tensors) if name.startswith("state.") and tensors[name].ndim == 4)
        tensors[name].view(-1)[0] += 0.05

    assert not verify(slug, altered(slug, change)).passed


@pytest.mark.parametrize("slug", WITH_WEIGHTS)
@pytest.mark.parametrize("kind", ["missing", "unexpected", "of another shape"])
def test_weights_are_loaded_strictly(altered, slug: str, kind: str) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in sorted(tensors) if name.startswith("state.") and tensors[name].ndim == 4)
        value = tensors.pop(name)
        if kind != "missing":
            tensors[name] = value if kind == "unexpected" else value[:1]
        if kind == "unexpected":
            tensors["state.extra"] = torch.zeros(1)

    with pytest.raises(CheckpointError, match=f"1 {kind}"):
        verify(slug, altered(slug, change))


@pytest.mark.parametrize("slug", NETWORKS)
def test_an_output_the_part_does_not_know_is_an_error(altered, slug: str) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["output.extra"] = torch.zeros(1)

    with pytest.raises(CheckpointError, match=f"'{slug}' cannot recompute extra; it knows "):
        verify(slug, altered(slug, change))


def test_the_reference_of_another_part_is_refused(golden: Path) -> None:
    with pytest.raises(CheckpointError, match=r"sam-vit\.safetensors: its config has no 'width_list'"):
        verify("efficientvit-sam", golden / "sam-vit.safetensors")


def test_an_impossible_config_is_a_bad_file_not_a_crash(golden: Path, write_reference) -> None:
    path = write_reference({"img": "large"}, {"output": {"x": torch.zeros(1)}})
    with pytest.raises(CheckpointError, match=r"its config has no|not a reference of 'medsam-lite'"):
        verify("medsam-lite", path)


def test_an_unknown_slug_is_answered_with_the_three_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        verify("medsam-light", tmp_path / "any.safetensors")
    assert "'medsam-light'" in str(caught.value)
    nearest = str(caught.value).split("Nearest: ")[1].split(", ")
    assert len(nearest) == 3
    assert nearest[0] == "medsam-lite"


@pytest.mark.parametrize("slug", ["reference", "comparison", "../sam-vit", "medsam_lite", ""])
def test_only_parts_can_be_verified(tmp_path: Path, slug: str) -> None:
    with pytest.raises(ConfigError):
        verify(slug, tmp_path / "any.safetensors")


def test_every_part_is_listed_and_has_what_a_part_needs() -> None:
    assert set(NETWORKS) <= set(list_verifiable())
    for slug in list_verifiable():
        module = verification._module(slug)
        assert isinstance(module.TOLERANCE, float)
        assert callable(module.recompute)


def test_listing_imports_no_torch() -> None:
    code = "import sys, medmargin.verification as v; v.list_verifiable(); print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_the_number_of_threads_is_given_back(golden: Path) -> None:
    before = torch.get_num_threads()
    verify("efficientvit-sam", golden / "efficientvit-sam.safetensors")
    assert torch.get_num_threads() == before
