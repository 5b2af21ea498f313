"""In which order the runs of a study are measured."""

from collections.abc import Iterator

from tests.bench.measured.studies import FAMILIES, SCALES, TUNING_SEED, Study


def order(study: Study, seeds: int) -> Iterator[tuple[str, int, float | None]]:
    """Arm, seed and scale of all runs, seed by seed, so that a broken-off file is of use.

    The best scales are chosen once the first seed has its other arms. A scale of None follows from
    other runs.
    """
    for seed in range(seeds):
        for arm, scale in study.arms:
            yield arm, seed, scale
        if not study.is_tuned:
            continue
        if seed == 0:
            for family in FAMILIES:
                for candidate in SCALES:
                    yield family, TUNING_SEED, candidate
        for family in FAMILIES:
            yield family, seed, None
