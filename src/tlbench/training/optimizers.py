"""A stage's optimizer: a class of keras.optimizers, with a learning rate that moves within the stage."""

import inspect
import re
from dataclasses import dataclass
from typing import Any

from tlbench.base.errors import ConfigError, suggest
from tlbench.config import schema
from tlbench.config.schema import Config, Schedule, Stage
from tlbench.networks import graph
from tlbench.networks.hardware import keras, tf


@dataclass(frozen=True)
class Sweep:
    """A learning rate that rises exponentially, from the first of so many steps to the last (Smith 2017)."""

    low: float
    high: float
    steps: int

    def of(self, share: float) -> Any:
        """The schedule of what learns by a share of the rate."""
        return keras.optimizers.schedules.ExponentialDecay(
            share * self.low, max(1, self.steps - 1), self.high / self.low
        )


def optimizer(
    cfg: Config,
    stage: Stage,
    steps: int,
    network: keras.Model,
    backbone: keras.Model,
    sweep: Sweep | None = None,
) -> keras.optimizers.Optimizer:
    """The optimizer of a stage of so many steps an epoch, its learning rate scheduled over the stage.

    network: what it trains, the whole of it or the head alone; with optimizer.layer_decay a variable that lies d blocks
    of the backbone below the head (`graph.blocks`) has layer_decay ** d of the rate, in its weight decay too. sweep: in
    place of the stage's rate. Raises ConfigError for a name or arguments that keras.optimizers does not have.
    """
    rates, decay = cfg.optimizer.learning_rate, cfg.optimizer.layer_decay
    rate = stage.learning_rate or (rates.frozen if stage.frozen else rates.trained)
    warmup = cfg.schedule.warmup if stage.warmup is None else stage.warmup
    undecayed = [] if cfg.optimizer.decay_biases else _biases(network)

    def one(depth: int) -> keras.optimizers.Optimizer:
        share, total = (decay or 1.0) ** depth, steps * stage.epochs
        own = _schedule(cfg.schedule, rate * share, total, warmup)
        made = _made(cfg.optimizer, sweep.of(share) if sweep else own, total)
        made.exclude_from_weight_decay(var_list=undecayed)
        return made

    depths = {} if decay is None else graph.depths(network, backbone)
    by_depth = {depth: one(depth) for depth in sorted({0, *depths.values()})}
    if len(by_depth) == 1:
        return by_depth[0]
    if "global_clipnorm" in cfg.optimizer.arguments:
        raise ConfigError(
            "optimizer.arguments.global_clipnorm and optimizer.layer_decay do not go together: each block has an "
            "optimizer of its own. Expected optimizer.clipnorm."
        )
    paths = {
        depth: [re.escape(path) for path in depths if depths[path] == depth] for depth in by_depth
    }
    chosen = {"|".join(paths[depth]): own for depth, own in by_depth.items() if depth}
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(by_depth[0], chosen))


def parts(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """The optimizers of the variables: one, or one for each block, whatever scales their loss."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return getattr(inner, "optimizers", [inner])


def in_parts(network: keras.Model, size: int) -> None:
    """Let a network take the images of a step `size` at a time, and make one step of all of their gradients.

    The gradient is that of the mean over all images of the step, with fewer in the last part or step of an epoch, too.
    Keras's gradient_accumulation_steps counts parts alike and parts as steps, over the end of an epoch too.
    """
    own: Any = type(network)
    members = {"train_step": _train_step, "microbatch": size}
    network.__class__ = type(own.__name__, (own,), members)  # with the same variables


def _train_step(self: Any, data: Any) -> dict[str, Any]:
    """keras.Model.train_step, part by part."""
    trained, optimizer, count = self.trainable_variables, self.optimizer, tf.shape(data[0])[0]
    mean_loss = next(metric for metric in self.metrics if metric.name == "loss")

    def add(start: Any, *sums: Any) -> tuple[Any, ...]:
        some = tuple(held[start : start + self.microbatch] for held in data)
        x, y, weight = keras.utils.unpack_x_y_sample_weight(some)
        images = tf.shape(x)[0]
        with tf.GradientTape() as tape:
            found = self(x, training=True)
            loss = self.compute_loss(x, y, found, weight, training=True)
            share = tf.cast(images, loss.dtype) / tf.cast(count, loss.dtype)
            scaled = optimizer.scale_loss(loss * share)
        mean_loss.update_state(loss, sample_weight=images)
        self.compute_metrics(x, y, found, weight)
        gradients = tape.gradient(scaled, [v.value for v in trained], unconnected_gradients="zero")
        return start + images, *(
            s + tf.convert_to_tensor(g) for s, g in zip(sums, gradients, strict=True)
        )

    zeros = [tf.zeros(variable.shape, variable.dtype) for variable in trained]
    _, *sums = tf.while_loop(
        lambda start, *_: start < count, add, (0, *zeros), parallel_iterations=1
    )
    optimizer.apply_gradients(zip(sums, trained, strict=True))
    return self.get_metrics_result()


def _made(cfg: schema.Optimizer, rate: Any, steps: int) -> keras.optimizers.Optimizer:
    """steps: of the whole stage."""
    known: dict[str, Any] = {
        n: value for n, value in vars(keras.optimizers).items() if inspect.isclass(value)
    }
    if cfg.name not in known:
        raise ConfigError(f"Unknown optimizer.name '{cfg.name}'. {suggest(cfg.name, known)}")
    named: dict[str, Any] = {} if cfg.clipnorm is None else {"clipnorm": cfg.clipnorm}
    if cfg.ema is not None:
        named |= {"use_ema": True, "ema_momentum": cfg.ema}
    if cfg.swa is not None:
        named |= {"use_ema": True}
    try:
        made = known[cfg.name](learning_rate=rate, **named, **cfg.arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer.arguments does not fit {cfg.name}: {error}") from error
    if type(made) in (keras.optimizers.Adam, keras.optimizers.AdamW) and not made.amsgrad:
        _change(made, update_step=_adam_step)
    if cfg.swa is not None:
        _average_from(made, min(round((1 - cfg.swa) * steps), steps - 1))
    return made


def _change(optimizer: keras.optimizers.Optimizer, **members: Any) -> None:
    """Give an optimizer other members than its class has."""
    own: Any = type(optimizer)
    optimizer.__class__ = type(own.__name__, (own,), members)


def _adam_step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
    """keras.optimizers.Adam.update_step in one pass over the memory, by the operation that TensorFlow has for it.

    Keras's dozen operations are a fifth of the time of a head's step on a CPU.
    """
    number = self._get_variable_index(variable)
    variable = variable.value if isinstance(variable, keras.Variable) else variable
    kind = variable.dtype
    step = tf.cast(self.iterations.value + 1, kind)
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=self._momentums[number].value.handle,
        v=self._velocities[number].value.handle,
        beta1_power=tf.pow(tf.cast(self.beta_1, kind), step),
        beta2_power=tf.pow(tf.cast(self.beta_2, kind), step),
        lr=tf.cast(learning_rate, kind),
        beta1=tf.cast(self.beta_1, kind),
        beta2=tf.cast(self.beta_2, kind),
        epsilon=tf.cast(self.epsilon, kind),
        grad=tf.cast(gradient, kind),
    )


def _average_from(optimizer: keras.optimizers.Optimizer, first: int) -> None:
    """Let its moving average be the mean over the weights after each step from the first-th on, from 0.

    Until then it is the weights themselves. Stochastic weight averaging (Izmailov et al. 2018) takes the weights at
    ends of epochs; of the steps between them there are more to take the mean of.
    """

    def momentum(self: Any) -> Any:
        taken = tf.cast(tf.maximum(self.iterations.value - first, 0), tf.float32)
        return taken / (taken + 1.0)

    _change(optimizer, ema_momentum=property(momentum))


def _biases(network: keras.Model) -> list[keras.Variable]:
    """What multiplies no features: biases, and the scales and offsets of norms."""
    variables = network.trainable_variables
    return [v for v in variables if len(v.shape) <= 1 or v.name.endswith("bias")]


def _schedule(cfg: Schedule, rate: float, steps: int, share: float) -> Any:
    """The learning rate over a stage: Keras's cosine with warm-up, or a constant after a warm-up.

    share: of the steps, in which the rate rises from zero.
    """
    warmup = round(share * steps)
    if cfg.name == "constant" and not warmup:
        return rate
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else rate,
        decay_steps=max(1, steps - warmup),
        alpha=1.0 if cfg.name == "constant" else cfg.final,
        warmup_target=rate if warmup else None,
        warmup_steps=warmup,
    )
