"""All benchmarks, one after the other: ``python -m tests.bench``; or those named behind it."""

import argparse

from tests.bench import (
    bench_access,
    bench_choice,
    bench_detection,
    bench_gang,
    bench_gpu,
    bench_ica,
    bench_jobstore,
    bench_learned,
    bench_load,
    bench_paper,
    bench_precision,
    bench_service,
    bench_step,
    bench_storage,
    bench_study,
    bench_study_answers,
    bench_upload,
)

PARTS = (
    bench_step,
    bench_learned,
    bench_precision,
    bench_gang,
    bench_gpu,
    bench_detection,
    bench_service,
    bench_access,
    bench_jobstore,
    bench_load,
    bench_storage,
    bench_study_answers,
    bench_study,
    bench_choice,
    bench_upload,
    bench_ica,
    bench_paper,
)
NAMES = {part.__name__.rpartition(".")[2].removeprefix("bench_"): part for part in PARTS}

parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
names = parser.parse_args().names
if unknown := [name for name in names if name not in NAMES]:
    parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(NAMES)}")
for name in names or NAMES:
    part = NAMES[name]
    print(f"\n== {(part.__doc__ or '').splitlines()[0]}", flush=True)
    part.main()
