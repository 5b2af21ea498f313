"""The tables of the results page, from the file of lines alone.

``python -m tests.bench.measured.page OUT.jsonl`` prints them in Markdown; with ``--into PAGE.md``
they take the place of what is between the page's two marks.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.measured.contrasts import Arm, arms_of, contrasts_of, difference, verdict
from tests.bench.measured.intervals import Interval, Sign, interval
from tests.bench.measured.record import Line, Record, chosen
from tests.bench.measured.studies import CHOSEN_BY, FAMILIES, SCALES, TUNING_SEED, best_scale

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
TITLES = {
    "mnist-10k": "MNIST, 10,000 digits",
    "mnist": "MNIST, 60,000 digits",
    "fashion-mnist": "Fashion-MNIST",
    "toy": "A toy with known directions of least residual",
    "pictures": "Colour pictures, 64×64",
}
DISTANCES = {
    "kid_pca": "KID (principal components)",
    "frechet_pca": "Fréchet (principal components)",
    "kid_efficientnet_lite0_40": "KID (EfficientNet-Lite0)",
    "frechet_efficientnet_lite0_40": "Fréchet (EfficientNet-Lite0)",
}
TOY_DISTANCES = {
    "kid_pca": "KID",
    "frechet_pca": "Fréchet",
    "sliced_wasserstein_pca": "sliced Wasserstein",
    "ring_sliced_wasserstein": "the same in the ring's plane",
}
BESIDE = {"sample_total_variance": "total variance of samples"}
OF_TOY = {"held_out_excess_nats": "held-out excess, nats"}  # no distance: more tells more
LEARNED = {
    "spread_gain": "mean gain",
    "direction_overlap": "overlap with the known directions",
    "residual_along_q": "residual along Q ÷ mean",
    "still_share": "share of Q on pixels that never change",
    "still_dimensions": "such pixels",
}


def tables(lines: Sequence[Line]) -> str:
    """All studies of the file, in Markdown."""
    return "\n\n".join("\n\n".join(_study(lines, study)) for study in TITLES) + "\n"


def _study(lines: Sequence[Line], study: str) -> Iterator[str]:
    distances = TOY_DISTANCES if study == "toy" else DISTANCES
    of_study = [line for line in lines if line.study == study]
    yield f"### {TITLES[study]}"
    if not of_study:
        yield "Not measured: the file has no runs."
        return
    yield _facts(of_study)
    if any(line.seed == TUNING_SEED for line in of_study):
        yield f"Choice of σ: `{CHOSEN_BY}` at seed {TUNING_SEED}, the chosen ones bold."
        yield _scales(of_study, study)
    yield "Means over seeds, with the half width of the 95 % interval."
    yield _means(of_study, study, distances)
    yield (
        "Paired differences, first − second, with the half width of the 95 % interval; bold where "
        "it excludes 0."
    )
    yield from _differences(of_study, study, distances)


def _facts(lines: Sequence[Line]) -> str:
    measured = [line for line in lines if line.failed is None and line.seed != TUNING_SEED]
    failed = sum(line.failed is not None for line in lines)
    samples = sorted({line.samples for line in measured})
    references = sorted({line.reference_rows for line in measured})
    spaces = sorted({space for line in measured for space in line.extractors})
    variance = {line.metrics["data_total_variance"] for line in measured}
    facts = [
        f"{len(lines)} runs, {sum(line.seconds for line in lines) / 60:.0f} minutes of wall time; "
        f"{failed} of them diverged.",
        f"{_numbers(samples)} samples against {_numbers(references)} held-out data of "
        f"`{lines[0].data[:19]}…`.",
        f"Spaces: {', '.join(spaces)}.",
        f"Total variance of the training data: {', '.join(f'{v:.4g}' for v in variance)}.",
    ]
    return " ".join(facts)


def _numbers(values: Sequence[int]) -> str:
    return " and ".join(f"{value:,}" for value in values)


def _scales(lines: Sequence[Line], study: str) -> str:
    tried = {line.scale for line in lines if line.seed == TUNING_SEED}
    columns = sorted(tried.union(SCALES))
    rows = []
    for family in FAMILIES:
        best = best_scale(lines, study, family)
        cells = []
        for scale in columns:
            line = chosen(lines, study, family, scale).get(TUNING_SEED)
            text = "–" if line is None else f"{line.metrics[CHOSEN_BY]:.4g}"
            cells.append(f"**{text}**" if scale == best else text)
        rows.append([Arm(family).label(lines, study), *cells])
    return table(["", *(f"σ = {scale:g}" for scale in columns)], rows)


def _means(lines: Sequence[Line], study: str, distances: dict[str, str]) -> str:
    # A share of no pixels says nothing.
    names = [name for name in LEARNED if any(line.metrics.get(name) for line in lines)]
    beside = BESIDE | OF_TOY if study == "toy" else BESIDE
    columns = distances | beside | {name: LEARNED[name] for name in names}
    rows = []
    for arm in arms_of(study):
        found = arm.lines(lines, study)
        cells = []
        for metric in columns:
            values = [line.metrics[metric] for line in found.values() if metric in line.metrics]
            cells.append(shown(interval(values)) if values else "–")
        rows.append([arm.label(lines, study), str(len(found)), *cells])
    return table(["", "seeds", *columns.values()], rows)


def _differences(lines: Sequence[Line], study: str, distances: dict[str, str]) -> Iterator[str]:
    rows, sentences = [], []
    columns = distances | OF_TOY if study == "toy" else distances
    for first, second in contrasts_of(study):
        a, b = (arm.lines(lines, study) for arm in (first, second))
        found = {
            title: of
            for metric, title in columns.items()
            if (of := difference(a, b, metric)) is not None
        }
        names = [arm.label(lines, study) for arm in (first, second)]
        count = len(a.keys() & b.keys())
        cells = [marked(found[title]) if title in found else "–" for title in columns.values()]
        rows.append([f"{names[0]} − {names[1]}", str(count), *cells])
        nearer = {title: found[title] for title in distances.values() if title in found}
        if nearer:
            sentences.append(
                f"- {names[0]} against {names[1]} ({_seeds(count)}): {verdict(nearer, *names)}"
            )
    yield table(["", "seeds", *columns.values()], rows)
    if sentences:
        yield "\n".join(sentences)


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def shown(of: Interval) -> str:
    """A mean with the half width of its interval, where it has one."""
    if of.half_width is None:
        return f"{of.mean:.4g}"
    return f"{of.mean:.4g} ± {of.half_width:.2g}"


def marked(of: Interval) -> str:
    """A difference as :func:`shown`, bold where its interval excludes 0."""
    is_told = of.sign in (Sign.BELOW, Sign.ABOVE)
    return f"**{shown(of)}**" if is_told else shown(of)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def written_into(page: str, content: str) -> str:
    """A page with the content between its marks; raises ValueError where these are missing."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    if END not in rest:
        raise ValueError(
            f"the page lacks the marks {BEGIN} and {END}; put them where tables belong"
        )
    return f"{before}{BEGIN}\n\n{content}\n{END}{after}"


def main() -> None:
    """Print the tables, or put them into a page."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.measured.page")
    parser.add_argument("out", type=Path, help="the file of JSON lines")
    parser.add_argument("--into", type=Path, help="the page whose tables are to be written anew")
    asked = parser.parse_args()
    content = tables(Record(asked.out).lines)
    if asked.into is None:
        print(content)
    else:
        asked.into.write_text(written_into(asked.into.read_text(), content))


if __name__ == "__main__":
    main()
