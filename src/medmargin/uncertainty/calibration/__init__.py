"""From held-out patients to probabilities that are right as often as they say, and to regions and volumes that hold.

Fits take cases one at a time and keep little of each:

| part | keeps of a case | gives |
|---|---|---|
| `VoxelSample` | some thousand drawn voxels | `Temperature`, `VectorScaling`, `EvidenceTemperature` .. |
| `PatchSample` | a patch of a slice | `LocalScaling` |
| `count_mask` | two counts per threshold | `ThresholdMargins` |
| `margin_scores` | two distances | `DistanceMargins` |
| `PredictedVolume` | four numbers | `VolumeScale` |

`Calibration` holds what they gave and applies it at prediction.
"""

from medmargin.uncertainty.calibration.classes import with_background
from medmargin.uncertainty.calibration.distance_margins import DistanceMargins, conformal_margins, margin_scores
from medmargin.uncertainty.calibration.evidence_temperature import EvidenceTemperature, fit_evidence_temperature
from medmargin.uncertainty.calibration.evidential_rescaling import EvidentialRescaling, fit_evidential_rescaling
from medmargin.uncertainty.calibration.local_scaling import LocalScaling, Patch, PatchSample, fit_local_scaling
from medmargin.uncertainty.calibration.mask_thresholds import (
    MaskCounts,
    ThresholdMargins,
    control_thresholds,
    count_mask,
)
from medmargin.uncertainty.calibration.patients import patients_needed, require_patients
from medmargin.uncertainty.calibration.record import (
    Calibration,
    Figures,
    Patients,
    StructureGuarantees,
    read_calibration,
    write_calibration,
)
from medmargin.uncertainty.calibration.temperature import (
    Fitted,
    Rescaling,
    Temperature,
    Unchanged,
    VectorScaling,
    fit_temperature,
    fit_vector_scaling,
)
from medmargin.uncertainty.calibration.volume_intervals import PredictedVolume, VolumeScale, conformal_volumes
from medmargin.uncertainty.calibration.voxel_sample import Voxels, VoxelSample

__all__ = [
    "Calibration",
    "DistanceMargins",
    "EvidenceTemperature",
    "EvidentialRescaling",
    "Figures",
    "Fitted",
    "LocalScaling",
    "MaskCounts",
    "Patch",
    "PatchSample",
    "Patients",
    "PredictedVolume",
    "Rescaling",
    "StructureGuarantees",
    "Temperature",
    "ThresholdMargins",
    "Unchanged",
    "VectorScaling",
    "VolumeScale",
    "VoxelSample",
    "Voxels",
    "conformal_margins",
    "conformal_volumes",
    "control_thresholds",
    "count_mask",
    "fit_evidence_temperature",
    "fit_evidential_rescaling",
    "fit_local_scaling",
    "fit_temperature",
    "fit_vector_scaling",
    "margin_scores",
    "patients_needed",
    "read_calibration",
    "require_patients",
    "with_background",
    "write_calibration",
]
