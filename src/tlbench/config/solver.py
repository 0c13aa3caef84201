"""What a head that is solved exactly needs, and what it has no use for."""

from operator import attrgetter

from tlbench.base.errors import ConfigError
from tlbench.config.required import require
from tlbench.config.schema import Config


def check(c: Config) -> None:
    """What is solved is a linear head, on features that are there."""
    solver, path = c.head.solver, c.head.path
    if solver is None:
        require(path is None, "head.path", path, "null: an optimizer trains this head")
        return
    what = f"head.solver={solver}"
    require(not c.head.widths, "head.widths", c.head.widths, f"[] with {what}")
    if not (c.features.cache and c.strategy.stages and c.strategy.stages[0].frozen):
        raise ConfigError(
            f"{what} needs the features of a frozen backbone. Add trainable=false features.cache=true, or, to "
            "fine-tune from what it finds, strategy=probe_finetune."
        )
    if all(stage.frozen for stage in c.strategy.stages):
        no_steps = f"null: {what} has no steps to size"
        require(c.learning_rate is None, "learning_rate", c.learning_rate, no_steps)
        require(c.loss.name == "cross_entropy", "loss.name", c.loss.name, f"cross_entropy: {what}")
        smoothing = c.loss.label_smoothing
        require(not smoothing, "loss.label_smoothing", smoothing, f"0: {what} knows none")
    if solver == "nearest":
        if not all(stage.frozen for stage in c.strategy.stages):
            raise ConfigError(
                f"{what} cannot be fine-tuned: a vote has no gradient. Begin with head=class_mean instead."
            )
        for setting, plain in (("loss.class_weights", None), ("data.sampling", "natural")):
            value = attrgetter(setting)(c)
            expected = f"{plain or 'null'}: votes of {what} count alike"
            require(value == plain, setting, value, expected)
        count = c.head.neighbours
        require(count is not None and count >= 1, "head.neighbours", count, "at least 1")
    if solver in ("class_mean", "nearest"):
        require(path is None, "head.path", path, f"null: {what} has no strength")
        return
    if path is None:
        raise ConfigError(
            f"{what} needs head.path: its strongest, its weakest and the number of its steps."
        )
    finite = 0 < path.weakest <= path.strongest < float("inf")
    require(finite, "head.path.weakest", path.weakest, "above 0, and at most head.path.strongest")
    require(path.steps >= 1, "head.path.steps", path.steps, "at least 1")
