"""Preparing images for networks: frames, intensity, augmentation. No torch here."""

from medmargin.transforms.augmentation import Augmentation
from medmargin.transforms.frame import Frame
from medmargin.transforms.intensity import normalised, to_bytes
from medmargin.transforms.slices import label_slices, picture_slices, shown, slice_axes

__all__ = ["Augmentation", "Frame", "label_slices", "normalised", "picture_slices", "shown", "slice_axes", "to_bytes"]
