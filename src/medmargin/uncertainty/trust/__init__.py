"""Trust in a whole case: the Dice to expect, whether the image is unlike the training data, and what to look at first.

| file | question |
|---|---|
| `answer_features` | what does an answer say about itself, in a few numbers per structure? |
| `predicted_dice` | which Dice do these numbers promise, and which at the least? |
| `image_measures`, `out_of_distribution` | is this image of the kind the network has learned from? |
| `review` | which cases, and which slice of each, should a person look at first? |
"""

from medmargin.uncertainty.trust.answer_features import FEATURES, CaseFeatures, SliceToLook, case_features
from medmargin.uncertainty.trust.correlation import Correlation, spearman
from medmargin.uncertainty.trust.image_measures import ImageFeatures, image_features
from medmargin.uncertainty.trust.out_of_distribution import Familiarity, OutOfDistribution
from medmargin.uncertainty.trust.predicted_dice import DicePrediction, PredictedDice, ScoredStructure
from medmargin.uncertainty.trust.review import CaseForReview, StructureForReview, review_list

__all__ = [
    "FEATURES",
    "CaseFeatures",
    "CaseForReview",
    "Correlation",
    "DicePrediction",
    "Familiarity",
    "ImageFeatures",
    "OutOfDistribution",
    "PredictedDice",
    "ScoredStructure",
    "SliceToLook",
    "StructureForReview",
    "case_features",
    "image_features",
    "review_list",
    "spearman",
]
