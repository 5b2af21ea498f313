"""What the recorded grid shows, in Markdown and as pictures."""

import math
from collections.abc import Iterator, Mapping, Sequence

from service.studies.plots import curve_png
from tests.bench.choice.recording import EPOCHS, KINDS, SCALES, Row
from tests.bench.choice.replaying import (
    AT_ONCE,
    LEAST_SEEDS,
    NOISES,
    Choice,
    Noise,
    replayed,
    whole_seeds,
)
from tests.bench.choice.showing import curve_of
from tests.bench.measured.intervals import interval, paired
from tests.bench.measured.page import TITLES, marked, shown, table

# By metric, its title, and whether less is better.
METRICS = {
    "kid_pca": ("KID", True),
    "frechet_pca": ("Fréchet", True),
    "sliced_wasserstein_pca": ("sliced Wasserstein", True),
    "mmd_pca": ("MMD", True),
    "coverage_pca": ("coverage", False),
    "recall_pca": ("recall", False),
}


def tables(rows: Sequence[Row]) -> str:
    """All data sets of the file, in Markdown."""
    parts = ["\n\n".join(_data(rows, data)) for data in EPOCHS]
    return "\n\n".join([*parts, *_all(rows)]) + "\n"


def pictures(rows: Sequence[Row]) -> Mapping[str, bytes]:
    """The PNG of the study's curve of each data set, by the name of its file."""
    found = {data: _whole(rows, data) for data in EPOCHS}
    return {_file(data): curve_png(curve_of(data, mine)) for data, mine in found.items() if mine}


def _file(data: str) -> str:
    return f"noise-{data}.png"


def _whole(rows: Sequence[Row], data: str) -> list[Row]:
    """The runs of the seeds that are whole; none where these are less than two."""
    seeds = whole_seeds(data, rows)
    return [row for row in rows if row.data == data and row.seed < seeds] if seeds > 1 else []


def _data(rows: Sequence[Row], data: str) -> Iterator[str]:
    mine = _whole(rows, data)
    yield f"### {TITLES[data]}"
    if not mine:
        yield "Not measured: the file has no two seeds of the whole grid."
        return
    seeds = whole_seeds(data, mine)
    seconds = sum(rung.train_s + rung.evaluate_s for row in mine for rung in row.rungs)
    failed = sum(row.failed is not None for row in mine)
    yield (
        f"{len(mine)} runs of {EPOCHS[data]} epochs, {seeds} seeds each; {failed} diverged; "
        f"{seconds / 3600:.1f} hours of one thread, measuring included."
    )
    yield f"![KID against the scale of the noise]({_file(data)})"
    found = curve_of(data, mine)
    lowest = []
    for process in found.processes:
        at = int(process.mean.argmin())
        (kind,) = process.where.values()
        lowest.append(f"{kind} at {process.places[0][at]:.2f} ({process.mean[at]:.4g})")
    yield " ".join((f"The curves are lowest for {' and '.join(lowest)}.", *found.notes))
    for kind in KINDS:
        yield f"**{kind}**: means over seeds, with the half width of the 95 % interval."
        yield _metrics(mine, kind)
    yield (
        "**laplace − gaussian** at the same scale and seed, with the half width of the 95 % "
        "interval; bold where it excludes 0."
    )
    yield _differences(mine)
    if seeds >= LEAST_SEEDS:
        for at_once in AT_ONCE:
            choices = [replayed(data, mine, seed, seeds, at_once) for seed in range(seeds)]
            trials = "one trial" if at_once == 1 else f"{at_once} trials"
            yield f"ASHA, replayed once for each seed with {trials} at one time:"
            yield _replays(choices)
            yield _bars(choices)


def _all(rows: Sequence[Row]) -> Iterator[str]:
    """The place of each noise among the 16, as a mean over the measures."""
    of = {data: _places(mine) for data in EPOCHS if (mine := _whole(rows, data))}
    if not of:
        return
    yield "### All measures together"
    yield (
        f"The place of a noise among all {len(NOISES)}, the best 1, as a mean over the "
        f"{len(METRICS)} measures above."
    )
    means = {noise: math.fsum(one[noise] for one in of.values()) / len(of) for noise in NOISES}
    lines = [
        [f"{noise[0]}, σ = {noise[1]:g}", *(f"{one[noise]:.2f}" for one in (*of.values(), means))]
        for noise in sorted(NOISES, key=lambda noise: means[noise])
    ]
    yield table(["", *(TITLES[data] for data in of), "mean"], lines)


def _places(rows: Sequence[Row]) -> Mapping[Noise, float]:
    places = dict.fromkeys(NOISES, 0.0)
    for metric, (_, is_less_better) in METRICS.items():
        values: dict[Noise, list[float]] = {noise: [] for noise in NOISES}
        for row in rows:
            if row.failed is None:
                values[row.kind, row.scale].append(row.rungs[-1].metrics[metric])
        means = {noise: math.fsum(of) / len(of) for noise, of in values.items()}
        order = sorted(NOISES, key=lambda noise: means[noise], reverse=not is_less_better)
        for place, noise in enumerate(order, start=1):
            places[noise] += place / len(METRICS)
    return places


def _metrics(rows: Sequence[Row], kind: str) -> str:
    cells: dict[str, list[tuple[float, str]]] = {metric: [] for metric in METRICS}
    for scale in SCALES:
        ended = [r for r in rows if (r.kind, r.scale, r.failed) == (kind, scale, None)]
        for metric, of in cells.items():
            found = interval([row.rungs[-1].metrics[metric] for row in ended])
            of.append((found.mean, shown(found)))
    for metric, of in cells.items():
        choose = min if METRICS[metric][1] else max
        best = of.index(choose(of, key=lambda cell: cell[0]))
        of[best] = (of[best][0], f"**{of[best][1]}**")
    lines = [
        [f"σ = {scale:g}", *(cells[metric][k][1] for metric in METRICS)]
        for k, scale in enumerate(SCALES)
    ]
    return table(["", *(title for title, _ in METRICS.values())], lines)


def _differences(rows: Sequence[Row]) -> str:
    lines = []
    for scale in SCALES:
        line = [f"σ = {scale:g}"]
        for metric in METRICS:
            of_gaussian, of_laplace = (
                {
                    row.seed: row.rungs[-1].metrics[metric]
                    for row in rows
                    if (row.kind, row.scale, row.failed) == (kind, scale, None)
                }
                for kind in KINDS
            )
            found = paired(of_laplace, of_gaussian)
            line.append("–" if found is None else marked(found))
        lines.append(line)
    return table(["", *(title for title, _ in METRICS.values())], lines)


def _replays(choices: Sequence[Choice]) -> str:
    head = (
        "seed",
        "its best",
        "epochs ÷ all",
        "time ÷ all",
        "with confirmation on both sides",
        "regret",
        "standard error",
        "confirmed",
        "not told from the best",
        "grid's best among them",
    )
    lines = [
        [
            str(seed),
            f"{one.best[0]} {one.best[1]:g}",
            f"{one.epochs:.2f}",
            f"{one.seconds:.2f}",
            f"{one.whole:.2f}",
            f"{one.regret:.4f}",
            f"{one.error:.4f}",
            str(one.confirmed),
            f"{one.like} of {len(NOISES)}",
            "yes" if one.holds else "no",
        ]
        for seed, one in enumerate(choices)
    ]
    return table(head, lines)


def _bars(choices: Sequence[Choice]) -> str:
    count = len(choices)
    epochs = math.fsum(one.epochs for one in choices) / count
    seconds = math.fsum(one.seconds for one in choices) / count
    within = sum(one.regret <= one.error for one in choices)
    holds = sum(one.holds for one in choices)
    return (
        f"Epochs {epochs:.3f} and time {seconds:.3f} of the whole grid's (bar 0.6); regret of "
        f"one standard error of the seed difference at most in {within} of {count}; the grid's "
        f"best among those not told from the best in {holds} of {count} (bar 9 of 10)."
    )
