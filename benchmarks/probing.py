"""How long do heads take that are solved exactly, against scikit-learn's solvers of the same problems?

Features are drawn with the spectrum and the sign that those of a network have; each side standardises them and
solves 20 strengths, logistic regression from the strongest to the weakest, each begun with the one before. "Excess
loss": of the penalised training loss, the worst over the strengths, above the better of the two sides. A process
a side, in turns; seconds are those of the solving alone. The default, 6,000 x 960 features of 20 classes, takes a
minute on two cores; --full, 45,000 x 2,048, half an hour, most of it scikit-learn's.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable

import numpy as np

import measure

COLUMNS = ("problem", "side", "seconds", "against", "excess loss", "peak memory")
SHAPES = {"tiny": (300, 40, 5), "default": (6_000, 960, 20), "full": (45_000, 2_048, 20)}
STRENGTHS = np.geomspace(10.0, 1e-5, 20)
PENALTIES = np.geomspace(100.0, 1e-4, 20)
Solved = tuple[float, list[float]]  # seconds, and the penalised loss of each strength


def main() -> None:
    args = _arguments()
    if args.side:
        seconds, losses = SIDES[args.side](*_drawn(SHAPES[args.shape]))
        print(json.dumps({"seconds": seconds, "losses": losses}))
        return
    shape = "tiny" if args.tiny else "full" if args.full else "default"
    words = [sys.executable, __file__, "--shape", shape, "--side"]
    sides = {name: lambda name=name: measure.process([*words, name]) for name in SIDES}
    found = measure.alternate(sides, args.repeats)
    rows = [row for problem in ("logistic", "ridge") for row in _rows(problem, found)]
    n, d, c = SHAPES[shape]
    notes = [f"{n:,} rows of {d:,} features, {c} classes, 20 strengths, float32."]
    place = "probing_full" if args.full else "probing"
    measure.publish(args, place, COLUMNS, rows, notes=notes)


def _rows(problem: str, found: dict[str, list[measure.Outcome]]) -> list[list[str]]:
    answers = {
        name: [json.loads(outcome.out.splitlines()[-1]) for outcome in outcomes]
        for name, outcomes in found.items()
        if name.startswith(problem)
    }
    seconds = {
        name: float(np.median([a["seconds"] for a in each])) for name, each in answers.items()
    }
    losses = {name: np.array(each[0]["losses"]) for name, each in answers.items()}
    least, ours = np.min(list(losses.values()), axis=0), f"{problem} tlbench"
    return [
        [
            *(problem, name.removeprefix(f"{problem} "), f"{seconds[name]:.2f}"),
            "" if name == ours else f"{seconds[name] / seconds[ours]:.1f}x",
            f"{((losses[name] - least) / least).max():.1e}",
            f"{max(o.peak_bytes for o in found[name]) / 2**30:.2f} GiB",
        ]
        for name in answers
    ]


def _drawn(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Features, (rows, features) float32, none negative, with a spectrum that falls off; labels that they half tell."""
    rows, width, classes = shape
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, rows)
    means = rng.normal(size=(classes, width)).astype(np.float32) * 0.06
    shared = rng.normal(size=(width // 4, width)).astype(np.float32) / np.sqrt(width // 4)
    shared *= (4 / np.sqrt(np.arange(1, width // 4 + 1)))[:, None].astype(np.float32)
    features = means[labels] + rng.normal(size=(rows, width // 4)).astype(np.float32) @ shared
    features += rng.normal(size=(rows, width)).astype(np.float32) * np.float32(0.5)
    return np.maximum(features, 0).astype(np.float32), labels


# ---------------------------------------------------------------- the sides


def _logistic(features: np.ndarray, labels: np.ndarray) -> Solved:
    from tlbench.probing import logistic, spectrum, threads
    from tlbench.probing.design import Design

    design = Design([features], labels, int(labels.max()) + 1)
    with threads.over_blocks():
        began = time.perf_counter()
        found = spectrum.of(design)
        heads = list(logistic.solve(design, found, STRENGTHS))
        seconds = time.perf_counter() - began
    return seconds, [
        _log_loss(features @ head.kernel + head.bias, labels)
        + strength / 2 * float(((head.kernel * found.scale[:, None]) ** 2).sum())
        for strength, head in zip(STRENGTHS, heads, strict=True)
    ]


def _logistic_of_scikit_learn(features: np.ndarray, labels: np.ndarray) -> Solved:
    from sklearn.linear_model import LogisticRegression

    began = time.perf_counter()
    rows = _standardised(features)
    # Its own tolerance, 1e-4, leaves the weak strengths far from their least loss.
    model = LogisticRegression(warm_start=True, max_iter=5000, tol=1e-5)
    heads = []
    for strength in STRENGTHS:
        model.C = 1 / (strength * len(rows))
        model.fit(rows, labels)
        heads.append((model.coef_.T.copy(), model.intercept_.copy()))
    seconds = time.perf_counter() - began
    return seconds, [
        _log_loss(rows @ kernel + bias, labels) + strength / 2 * float((kernel**2).sum())
        for strength, (kernel, bias) in zip(STRENGTHS, heads, strict=True)
    ]


def _ridge(features: np.ndarray, labels: np.ndarray) -> Solved:
    from tlbench.probing import ridge, spectrum, threads
    from tlbench.probing.design import Design

    design = Design([features], labels, int(labels.max()) + 1)
    with threads.over_blocks():
        began = time.perf_counter()
        found = spectrum.of(design)
        heads = ridge.solve(design, found, PENALTIES)
        seconds = time.perf_counter() - began
    return seconds, [
        _squares(features @ head.kernel + head.bias, labels)
        + strength * float(((head.kernel * found.scale[:, None]) ** 2).sum())
        for strength, head in zip(PENALTIES, heads, strict=True)
    ]


def _ridge_of_scikit_learn(features: np.ndarray, labels: np.ndarray) -> Solved:
    from sklearn.linear_model import Ridge

    began = time.perf_counter()
    rows, targets = _standardised(features), np.eye(labels.max() + 1, dtype=np.float32)[labels]
    heads = []
    for strength in PENALTIES:
        model = Ridge(alpha=strength * len(rows), solver="cholesky").fit(rows, targets)
        heads.append((model.coef_.T, model.intercept_))
    seconds = time.perf_counter() - began
    return seconds, [
        _squares(rows @ kernel + bias, labels) + strength * float((kernel**2).sum())
        for strength, (kernel, bias) in zip(PENALTIES, heads, strict=True)
    ]


SIDES: dict[str, Callable[[np.ndarray, np.ndarray], Solved]] = {
    "logistic tlbench": _logistic,
    "logistic scikit-learn": _logistic_of_scikit_learn,
    "ridge tlbench": _ridge,
    "ridge scikit-learn": _ridge_of_scikit_learn,
}


def _standardised(features: np.ndarray) -> np.ndarray:
    from sklearn.preprocessing import StandardScaler

    return StandardScaler().fit_transform(features)


def _log_loss(scores: np.ndarray, labels: np.ndarray) -> float:
    from scipy.special import log_softmax

    return -float(
        log_softmax(scores.astype(np.float64), axis=1)[np.arange(len(labels)), labels].mean()
    )


def _squares(scores: np.ndarray, labels: np.ndarray) -> float:
    targets = np.eye(labels.max() + 1)[labels]
    return float(((scores - targets) ** 2).sum(axis=1).mean())


def _arguments() -> argparse.Namespace:
    parser = measure.parser(__doc__)
    parser.add_argument("--full", action="store_true", help="45,000 x 2,048 features")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--shape", choices=list(SHAPES), default="default", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tiny:
        args.repeats = 1
    return args


if __name__ == "__main__":
    main()
