"""Image files to volumes and back: NIfTI, NRRD/MHA, DICOM, PNG/TIFF/JPG, challenge NPZ. Nothing else opens an image file."""

from medmargin.imaging import challenge_npz
from medmargin.imaging.arrays import from_array
from medmargin.imaging.read import read_channels, read_image, read_label
from medmargin.imaging.signal import finite_image, require_signal
from medmargin.imaging.volume import Grid, Volume
from medmargin.imaging.working import Working, to_working
from medmargin.imaging.write import write_labels, write_map

__all__ = [
    "Grid",
    "Volume",
    "Working",
    "challenge_npz",
    "finite_image",
    "from_array",
    "read_channels",
    "read_image",
    "read_label",
    "require_signal",
    "to_working",
    "write_labels",
    "write_map",
]
