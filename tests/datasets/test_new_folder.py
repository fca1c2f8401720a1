"""A new folder appears whole or not at all."""

from __future__ import annotations

import pytest

from medmargin.datasets.new_folder import new_folder
from medmargin.errors import ConfigError


def test_it_gets_its_name_at_the_end(tmp_path):
    target = tmp_path / "deep" / "set"
    with new_folder(target) as part:
        (part / "file").write_text("content")
        assert not target.exists()
    assert (target / "file").read_text() == "content"
    assert list(target.parent.iterdir()) == [target]


def test_it_vanishes_where_the_block_fails(tmp_path):
    def fill_and_fail():
        with new_folder(tmp_path / "set") as part:
            (part / "file").write_text("content")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fill_and_fail()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_may_be_filled_and_anything_else_not(tmp_path):
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty") as part:
        (part / "file").write_text("")
    for taken in (tmp_path / "empty", tmp_path / "empty" / "file"):
        with pytest.raises(ConfigError, match="exists already"), new_folder(taken):
            pass
