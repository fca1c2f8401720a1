"""Boxes, points and masks: types, files, and their simulation from a label map."""

from medmargin.prompts.files import parse_box, read_prompts
from medmargin.prompts.from_labels import box_floor, boxes_from_labels, ellipse_floor
from medmargin.prompts.placement import check_inside, to_voxels
from medmargin.prompts.simulation import jittered_box, sample_points, tight_box
from medmargin.prompts.types import Box, Point, Prompt

__all__ = [
    "Box",
    "Point",
    "Prompt",
    "box_floor",
    "boxes_from_labels",
    "check_inside",
    "ellipse_floor",
    "jittered_box",
    "parse_box",
    "read_prompts",
    "sample_points",
    "tight_box",
    "to_voxels",
]
