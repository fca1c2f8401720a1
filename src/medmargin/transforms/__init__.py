"""Preparing images for networks: frames, intensity, augmentation. No torch here."""

from medmargin.transforms.augmentation import Augmentation
from medmargin.transforms.frame import Frame
from medmargin.transforms.intensity import normalised, to_bytes
from medmargin.transforms.preparation import Preparation
from medmargin.transforms.slices import label_slices, picture_slices, shown, slice_axes
from medmargin.transforms.volume_augmentation import LIGHT, NNUNET, VolumeAugmentation

__all__ = [
    "LIGHT",
    "NNUNET",
    "Augmentation",
    "Frame",
    "Preparation",
    "VolumeAugmentation",
    "label_slices",
    "normalised",
    "picture_slices",
    "shown",
    "slice_axes",
    "to_bytes",
]
