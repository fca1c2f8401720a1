"""Label names and colours for ITK-SNAP and 3D Slicer."""

from __future__ import annotations

import re

from medmargin.imaging.tables import colour, write_tables

NAMES = {1: 'left "kidney"', 2: "liver\nlobe", 41: "spleen"}


def test_itk_snap_rows_have_eight_columns(tmp_path):
    snap, _ = write_tables(tmp_path / "seg.nii.gz", NAMES)
    rows = snap.read_text().splitlines()
    pattern = r'\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([01])\s+([01])\s+([01])\s+"([^"]+)"'
    found = [re.fullmatch(pattern, row).groups() for row in rows]
    assert [int(row[0]) for row in found] == [0, 1, 2, 41]
    assert [row[-1] for row in found] == ["Clear Label", "left 'kidney'", "liver lobe", "spleen"]


def test_slicer_rows_have_six_columns(tmp_path):
    _, slicer = write_tables(tmp_path / "seg.nii", NAMES)
    rows = [row.split(" ") for row in slicer.read_text().splitlines()]
    assert slicer.name == "seg.ctbl"
    assert all(len(row) == 6 for row in rows)
    assert rows[2] == ["2", "liver_lobe", *map(str, colour(2)), "255"]


def test_colours_are_distinct_and_fixed():
    colours = [colour(value) for value in range(1, 31)]
    assert len(set(colours)) == 30
    assert colour(0) == (0, 0, 0)
    assert colour(7) == colour(7)
    assert all(0 <= part <= 255 for parts in colours for part in parts)
