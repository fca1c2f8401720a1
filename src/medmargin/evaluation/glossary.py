"""Every term of the report in one sentence, for a reader who has never met it."""

from __future__ import annotations

from medmargin.uncertainty.bands import BAND_VOXELS

GLOSSARY = {
    "Truth": "The outline drawn by an expert; it is itself uncertain, since two experts rarely agree fully.",
    "Mask": "The region the program marked.",
    "Voxel": "The smallest box of a volume; in a flat picture, a pixel.",
    "Dice": "Overlap of mask and truth: 0 is none, 1 is identical; small structures lose it more easily than large.",
    "IoU": "Overlap divided by the union of both regions; stricter than Dice, with the same order.",
    "NSD": "Normalised surface Dice: the share of both outlines that lie within the tolerance of each other.",
    "HD95": "The distance that 95 % of the outline stays below: how far off the worst parts are, but for outliers.",
    "ASSD": "The average distance between the two outlines.",
    "Relative volume error": "How much too large (+) or too small (-) the mask is, as a share of the true volume.",
    "Found, absent, missed, false": "In truth and mask; in neither; only in the truth; only in the mask.",
    "Box and ellipse alone": "The score of simply filling the box that was given as a prompt, or the ellipse in it: "
    "a model that takes boxes from the truth must beat both to have shown anything.",
    "95 % interval": "With other patients of the same kind, the mean would lie in this range 95 times out of 100.",
    "Uncertainty": "How unsure the program is at a voxel, in nats: 0 is sure; 0.69 is a coin toss between two answers.",
    "Band near borders": f"The voxels within {BAND_VOXELS} voxels of an outline, where nearly all errors are; far "
    "background is easy and would hide them.",
    "AUROC (finding errors)": "The chance that a wrong voxel is more uncertain than a right one: 0.5 is a coin toss.",
    "Average precision (finding errors)": "How purely the most uncertain voxels are wrong ones: 1 is best, and picking "
    "at random gives the share of wrong voxels.",
    "FPR95": "The share of right voxels one must also look at to find 95 % of the wrong ones: lower is better.",
    "UEO (uncertainty-error overlap)": "The Dice overlap of what is uncertain and what is wrong: 1 would be a map of "
    "exactly the errors.",
    "QU-BraTS score": "Whether hiding uncertain voxels raises the Dice (first area, high is good) without hiding what "
    "was right inside (second, low is good) and outside (third, low is good) the structure; a map of zeros scores "
    "well on the last two, so all three are shown.",
    "ECE (calibration error)": "The average gap between the stated probability and how often it was right: 0 is best.",
    "Class-wise and adaptive ECE": "The same gap for the probability of every structure and of the background, "
    "averaged; adaptive: in bins with equally many voxels, so that rare probabilities weigh as much as common ones.",
    "PAvPU": "The share of small squares that are right and certain, or wrong and uncertain: higher is better, and "
    "where little is wrong it is high by itself.",
    "Brier score": "The squared error of the stated probabilities, from 0 (best) to 2.",
    "NLL": "The surprise at the truth, given the stated probabilities, in nats: 0 is best, and sure errors cost most.",
    "AURC": "The mean error that remains when the least certain items are given up one by one: lower is better.",
    "E-AURC": "How much of that area is due to giving up cases in the wrong order: 0 is the best possible order.",
    "Raters": "Several experts who outlined the same image; their agreement is the most a program can be held to.",
    "GED": "How far the program's plausible masks are from the experts' outlines, beyond how far each differ among "
    "themselves: 0 where both spread alike.",
    "Hungarian IoU": "Overlap of plausible masks and experts' outlines, each matched with the partner that suits it.",
    "Equity-scaled Dice": "The Dice, reduced by the differences between groups of patients: equal to it where all "
    "groups are served alike.",
    "Volume interval": "A range that should hold the true volume as often as its level says; calibrated on held-out "
    "patients it is a guarantee on average, uncalibrated it is the model's opinion.",
}
