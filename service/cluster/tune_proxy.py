"""A trial of Ray Tune that trains nothing: it waits for what the service knows of a configuration.

The configuration's trials are jobs, which the service runs as it runs any. So this process holds
no core and no data, and its end costs no training.
"""

from typing import Any

from workers.memory import lasting

with lasting():
    import ray
    from ray.tune import Trainable

CONFIGURATION, DESK, NAMESPACE = "configuration", "desk", "namespace"
"""Keys of a trial's config: the configuration's number, and where to ask."""


class Proxy(Trainable):  # type: ignore[misc]  # ray's modules are not followed
    """Hands on the results of one configuration after another."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first configuration."""
        self._desk = ray.get_actor(config[DESK], namespace=config[NAMESPACE])
        self._configuration: int = config[CONFIGURATION]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next one."""
        self._configuration = new_config[CONFIGURATION]
        return True

    def step(self) -> dict[str, Any]:
        """The next result, or the end; waits for it."""
        found: dict[str, Any] = ray.get(self._desk.wait_for.remote(self._configuration))
        return found

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """What has been trained is in the jobs' checkpoints."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """There is nothing to load."""
