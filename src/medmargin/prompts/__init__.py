"""Boxes, points and masks: types, files, and their simulation from a label map."""
