"""Predictors: from an image and prompts to a segmentation on the image's own grid."""
