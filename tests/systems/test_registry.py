from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from medmargin.errors import ConfigError
from medmargin.systems import registry
from medmargin.systems.registry import catalogue, describe_arguments, find, resolve_arguments


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys; from medmargin.systems.registry import catalogue; assert 'u-medsam' in catalogue(); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_listing_equals_what_the_decorators_register() -> None:
    for slug, entry in catalogue().items():
        assert find(slug).entry == entry
        assert entry.module.rsplit(".", 1)[-1].replace("_", "-") == slug
        assert entry.title


def test_unknown_system_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="u-medsam"):
        find("umedsam")


def test_misspelt_argument_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no argument 'roh'. Nearest: rho"):
        resolve_arguments("u-medsam", "paper", {"roh": 0.1})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("lr", "3e-4", 3e-4),
        ("batch_size", "8", 8),
        ("adaptive", "true", True),
        ("terms", "[sd]", ("sd",)),
        ("quality", "off", "off"),
        ("average_decay", "null", None),
        ("teacher", "weights/lite_medsam.pth", "weights/lite_medsam.pth"),
    ],
)
def test_settings_are_read_by_the_signature(name: str, text: str, value: object) -> None:
    assert resolve_arguments("u-medsam", "paper", {name: text})[name] == value


@pytest.mark.parametrize(
    ("name", "text"), [("lr", "fast"), ("batch_size", "2.5"), ("frame", "half"), ("encoder", "resnet")]
)
def test_wrong_values_are_refused(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=name):
        resolve_arguments("u-medsam", "paper", {name: text})


def test_scales_differ_where_declared_and_settings_win() -> None:
    paper, laptop = (resolve_arguments("u-medsam", scale, {}) for scale in ("paper", "laptop"))
    assert (paper["image_size"], paper["lr"], paper["epochs"]) == (256, 5e-5, 135)
    assert {name for name in paper if paper[name] != laptop[name]} == set(find("u-medsam").entry.laptop)
    assert resolve_arguments("u-medsam", "laptop", {"image_size": 96})["image_size"] == 96
    with pytest.raises(ConfigError, match="scale"):
        resolve_arguments("u-medsam", "phone", {})


def test_arguments_are_described_with_both_scales() -> None:
    described = {argument["name"]: argument for argument in describe_arguments("u-medsam")}
    assert described["image_size"]["default"] == 256
    assert described["image_size"]["laptop"] == 64
    assert "laptop" not in described["rho"]


def test_two_systems_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name, value = "u-medsam", "medmargin.systems.u_medsam"

    monkeypatch.setattr(registry, "entry_points", lambda group: [Point()])
    with pytest.raises(ConfigError, match="two systems are called 'u-medsam'"):
        catalogue()


def test_a_system_of_another_package_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    (tmp_path / "their_net.py").write_text(
        '"""Their net."""\nfrom medmargin.systems.registry import system\n\n\n'
        '@system("their-net", paper="none", dims=2, needs=(), stages=(), laptop={})\n'
        "def their_net(task, *, lr: float = 0.1):\n    ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    class Point:
        name, value = "their-net", "their_net"

    monkeypatch.setattr(registry, "entry_points", lambda group: [Point()])
    assert replace(catalogue()["their-net"], title="") == replace(find("their-net").entry, title="")
