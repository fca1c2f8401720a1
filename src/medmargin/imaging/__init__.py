"""Image files to volumes and back: NIfTI, NRRD/MHA, DICOM, PNG/TIFF/JPG, challenge NPZ.

Nothing else in the house opens an image file.
"""

from medmargin.imaging import challenge_npz
from medmargin.imaging.archive import extract
from medmargin.imaging.arrays import from_array
from medmargin.imaging.dicom_output import write_dicom_seg, write_parametric_map
from medmargin.imaging.dicom_series import SeriesInfo, list_series
from medmargin.imaging.read import read_channels, read_image, read_label
from medmargin.imaging.signal import finite_image, require_signal
from medmargin.imaging.volume import Grid, Volume
from medmargin.imaging.working import Working, to_working
from medmargin.imaging.write import write_labels, write_map

__all__ = [
    "Grid",
    "SeriesInfo",
    "Volume",
    "Working",
    "challenge_npz",
    "extract",
    "finite_image",
    "from_array",
    "list_series",
    "read_channels",
    "read_image",
    "read_label",
    "require_signal",
    "to_working",
    "write_dicom_seg",
    "write_labels",
    "write_map",
    "write_parametric_map",
]
