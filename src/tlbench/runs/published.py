"""The published task: what a run has to have done to be set against the report's table."""

from collections.abc import Mapping
from typing import Any

# The columns of its table, by the names of our figures.
FIGURES = ("parameters", "accuracy", "val_accuracy", "epochs", "evaluation")
TOLERANCE = 0.02  # of the test accuracy against the published one
# All of CIFAR-100 in its 20 superclasses, with ImageNet weights, at 224 pixels.
SETTINGS = {
    **{"data.name": "cifar100", "data.limit": None, "data.test": None},
    **{"backbone.weights": "imagenet", "backbone.image_size": 224},
}
IMAGES = {"train": 45_000, "validation": 5_000, "test": 10_000}
NOT_COMPARED = (
    "Runs of a published configuration on another task than its own (all of CIFAR-100's 20 "
    "superclasses, ImageNet weights, 224 pixels) are not compared with it."
)


def is_task(settings: Mapping[str, Any], images: Mapping[str, int] | None) -> bool:
    """Whether a run with these settings, by dotted names, and image counts did the report's task."""
    same = all(settings.get(key) == value for key, value in SETTINGS.items())
    return same and (images is None or images == IMAGES)


def misses(
    figures: Mapping[str, float | None], row: Mapping[str, Any], tolerance: float
) -> list[str]:
    """The figures that are not those of a published row: parameters exactly, test accuracy within a tolerance."""
    found = [] if figures["parameters"] == row["parameters"] else ["parameters"]
    accuracy = figures["evaluation"]
    if accuracy is None or round(abs(accuracy - row["evaluation"]), 9) > tolerance:
        found.append("evaluation")
    return found
