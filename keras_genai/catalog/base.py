"""The record of a recipe."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The description of one experiment.

    Attributes:
        name: String. Name on the command line and in `recipes.train`.
        article: String. Article and section that describe the model.
        model: String. Networks in one line.
        data: String. Dataset.
        epochs: Int. Number of epochs.
        batch_size: Int. Number of examples per batch.
        metric: String. Metric of the test data, with its unit.
        expected: Float. Value of the metric after all epochs with seed 0.
        tolerance: Float. Largest deviation to expect with another seed.
        notes: String. Choices where the article leaves a setting open.
    """

    name: str
    article: str
    model: str
    data: str
    epochs: int
    batch_size: int
    metric: str
    expected: float
    tolerance: float
    notes: str = ""
