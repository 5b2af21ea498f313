"""What can go wrong between a program and the service.

::

    ClientError
    ├── ApiError          the service refused; ``problem`` says why
    ├── Unreachable       nothing answers at the address
    ├── JobFailed         the job one waited for has failed or was cancelled
    └── StudyFailed       the study one waited for has
"""

from api import bodies


class ClientError(Exception):
    """Something went wrong between this program and the service."""


class ApiError(ClientError):
    """The service refused a request; ``retry_after_s`` is when it wants to be asked again, where
    it says so."""

    def __init__(self, problem: bodies.Problem, retry_after_s: float | None = None) -> None:
        lines = [problem.detail or problem.title]
        lines += [
            f"  {field.pointer}: {field.message}"
            for field in problem.errors
            if field.message not in problem.detail
        ]
        super().__init__("\n".join(lines))
        self.problem = problem
        self.retry_after_s = retry_after_s


class Unreachable(ClientError):
    """Nothing answers at the address."""

    def __init__(self, url: str, cause: object) -> None:
        super().__init__(
            f"no service answers at {url} ({cause}); start one with: spreadtrain serve"
        )
        self.url = url


class JobFailed(ClientError):
    """The job has failed or was cancelled."""

    def __init__(self, job_id: str, state: str, reason: str, message: str) -> None:
        super().__init__(f"{job_id} {state} ({reason}): {message}")
        self.job_id = job_id
        self.state = state
        self.reason = reason
        self.message = message


class StudyFailed(ClientError):
    """The study has failed or was cancelled."""

    def __init__(self, study_id: str, state: str, reason: str, message: str) -> None:
        super().__init__(f"{study_id} {state} ({reason}): {message}")
        self.study_id = study_id
        self.state = state
        self.reason = reason
        self.message = message
