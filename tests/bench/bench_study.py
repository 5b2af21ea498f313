"""What a study through REST costs beside the same Tuner alone: a hundred trivial trials.

Both train the same toy with actors that are reused, on a Ray that is there already: the service
from before the POST to the last trial's end, the Tuner from the start of its process to the same,
and to its return, which it needs some time for. The service has its warm process, as it has seconds
after its start. They take turns, as the machine's speed
changes by a quarter within minutes. Beside it: seconds from a free place to the next trial's first
step.
"""

import contextlib
import gc
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from api.app import create_app
from api.client import Client, StudyHandle
from api.main import running_services
from service.cluster.ray_cluster import RayCluster
from service.jobs import FINAL_STATES
from service.jobstore import JobStore
from service.settings import Settings, ray_environment
from service.studies.ledger import Phase, Trial
from tests.e2e.processes import wait_until
from tests.serving import served
from tests.studying import METRIC, RATE, new_study, study_spec
from workers.artifacts import LocalStore

TRIALS = 100
CONCURRENCY = 2
TURNS = 3
LONGEST_S = 600
_BARE = """
import sys, tempfile, time
import psutil
import ray
from ray import tune
import os
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
trials, concurrency, spec = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

class Trivial(tune.Trainable):
    def setup(self, config):
        import torch
        from workers.data import load
        from workers.spec import JOB_SPEC
        torch.set_num_threads(1)
        self._spec = JOB_SPEC.validate_json(config["spec"])
        self._data = load(self._spec.dataset, None)
        self._rate = config["rate"]

    def reset_config(self, new_config):
        self._rate = new_config["rate"]
        return True

    def step(self):
        from workers.events import Metrics
        from workers.kinds import resolve
        from workers.train import train
        optimizer = self._spec.trainer.optimizer.model_copy(update={"learning_rate": self._rate})
        trainer = self._spec.trainer.model_copy(update={"optimizer": optimizer})
        spec = resolve(self._spec.model_copy(update={"trainer": trainer}), self._data.info)
        found = [e for e in train(spec, self._data) if isinstance(e, Metrics)][-1]
        return {"loss": found.values["held_out_loss_nats"], "done": True}

class Ends(tune.Callback):
    last = 0.0

    def on_trial_complete(self, iteration, trials, trial, **info):
        self.last = time.time()

ends = Ends()
begun = time.monotonic()
ray.init(address="local", num_cpus=concurrency, include_dashboard=False, log_to_driver=False,
         configure_logging=False, object_store_memory=80 << 20)
starting = time.monotonic() - begun
with tempfile.TemporaryDirectory() as folder:
    found = tune.Tuner(
        tune.with_resources(Trivial, {"cpu": 1}),
        param_space={"spec": spec, "rate": tune.loguniform(1e-4, 1e-2)},
        tune_config=tune.TuneConfig(num_samples=trials, reuse_actors=True),
        run_config=tune.RunConfig(
            name="bare",
            storage_path=folder,
            verbose=0,
            callbacks=[ends],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()
    if len(found) != trials or found.num_errors:
        sys.exit(f"{found.num_errors} of {len(found)} trials failed")
started = psutil.Process().create_time() + starting
print("seconds", ends.last - started, time.time() - started, flush=True)
os._exit(0)
"""


def bare(trials: int) -> tuple[float, float]:
    """Seconds of Tune's own driver from the start of its process to the last trial's end, and to
    its return, without those in which it starts a Ray."""
    told = subprocess.run(
        [*(sys.executable, "-c", _BARE, str(trials), str(CONCURRENCY)), new_spec()],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = [line for line in told.stdout.splitlines() if line.startswith("seconds")]
    to_end, to_return = map(float, line.split()[1:])
    return to_end, to_return


def new_spec() -> str:
    """The spec that both train."""
    return new_study().request.spec.model_dump_json()


def studied(trials: int) -> tuple[float, list[float]]:
    """Seconds from before the POST to the last trial of the search, and seconds between a free
    place and a first step there."""
    ray_environment(joining=False)
    request = {
        "name": "which rate",
        "spec": study_spec(),
        "space": {RATE: {"loguniform": [1e-4, 1e-2]}},
        "objective": {"metric": METRIC, "mode": "min"},
        "budget": {"trials": trials},
        "concurrency": CONCURRENCY,
        "confirmation": {"top": 1, "seeds": [1]},
    }
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spreadtrain-bench-")))
        settings = Settings(data_dir=folder)
        jobs = stack.enter_context(contextlib.closing(JobStore.open(settings.database)))
        ray = stack.enter_context(
            contextlib.closing(RayCluster("", folder / "ray", CONCURRENCY, "bench"))
        )
        ray.start()
        store = LocalStore(folder / "artifacts")
        services = stack.enter_context(running_services(settings, jobs, store, ray))
        url = stack.enter_context(served(create_app(services, settings)))
        client = stack.enter_context(Client(url))
        wait_until(_has_spare, 60, "a warm process")
        gc.collect()
        gc.freeze()  # as the service does, see api.main.answer
        begun = time.time()
        study = client.submit_study(request)
        for _ in range(LONGEST_S):  # looks from here take time from the service in this process
            if _has_searched(jobs, study, trials):
                break
            time.sleep(1)
        ends = [t.ended_at.timestamp() for t in _searched(jobs, study) if t.ended_at is not None]
        seconds, gaps = max(ends) - begun, _gaps(jobs, study)
        study.wait()
    return seconds, gaps


def _has_spare() -> bool:
    below = psutil.Process().children(recursive=True)
    return any(process.cmdline()[:1] == ["ray::Executor"] for process in below)


def _searched(jobs: JobStore, study: StudyHandle) -> list[Trial]:
    return [trial for trial in jobs.ledger.trials(study.id) if trial.phase is Phase.SEARCH]


def _has_searched(jobs: JobStore, study: StudyHandle, trials: int) -> bool:
    searched = _searched(jobs, study)
    return len(searched) == trials and all(t.state in FINAL_STATES for t in searched)


def _gaps(jobs: JobStore, study: StudyHandle) -> list[float]:
    attempts = [jobs.attempts(trial.job_id)[-1] for trial in _searched(jobs, study)]
    steps = sorted(a.first_step_at.timestamp() for a in attempts if a.first_step_at is not None)
    ends = sorted(a.ended_at.timestamp() for a in attempts if a.ended_at is not None)
    return [step - end for step, end in zip(steps[CONCURRENCY:], ends, strict=False)]


def main(trials: int = TRIALS, turns: int = TURNS) -> None:
    """Print each turn, the ratio of the medians, and the start of a trial."""
    print(f"{trials} trials, {CONCURRENCY} at one time")
    alone, returned, studies, gaps = [], [], [], []
    for _ in range(turns):
        to_end, to_return = bare(trials)
        seconds, between = studied(trials)
        alone.append(to_end)
        returned.append(to_return)
        studies.append(seconds)
        gaps += between
        print(
            f"bare Tuner {to_end:.1f} s (it returns after {to_return:.1f} s), study "
            f"{seconds:.1f} s: {seconds / to_end:.2f} ({seconds / to_return:.2f})"
        )
    ratio, other = (
        statistics.median(studies) / statistics.median(one) for one in (alone, returned)
    )
    print(f"study ÷ bare, medians of {turns} turns: {ratio:.2f} (bar 1.3)")
    print(f"the same to the return of the bare Tuner: {other:.2f}")
    print(f"from a free place to a first step: p50 {statistics.median(gaps):.2f} s (bar 0.3)")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
