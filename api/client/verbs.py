"""What jobs and studies are asked alike."""

from abc import ABC, abstractmethod
from typing import Self


class Verbs(ABC):
    """Wishes about something that runs; asking twice is safe."""

    @abstractmethod
    def _ask(self, verb: str) -> Self:
        """Send the wish, and read the answer."""

    def cancel(self) -> Self:
        """Ask it to end, a study with its trials."""
        return self._ask("cancel")

    def pause(self) -> Self:
        """Ask it to publish a checkpoint and give its resources back, a study its trials'."""
        return self._ask("pause")

    def resume(self) -> Self:
        """Let it go on from where it was, or take the wish to pause back."""
        return self._ask("resume")
