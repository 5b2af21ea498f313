"""All benchmarks, one after the other: ``python -m tests.bench``."""

from tests.bench import (
    bench_access,
    bench_detection,
    bench_gang,
    bench_gpu,
    bench_ica,
    bench_jobstore,
    bench_learned,
    bench_load,
    bench_precision,
    bench_service,
    bench_step,
    bench_storage,
    bench_study,
    bench_study_answers,
    bench_upload,
)

for part in (
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
    bench_upload,
    bench_ica,
):
    print(f"\n== {(part.__doc__ or '').splitlines()[0]}", flush=True)
    part.main()
