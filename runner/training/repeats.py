"""Events that a run reports again because it started over."""

from collections import Counter
from collections.abc import Iterable


class Repeats:
    """Recognises repeated events, so that no event is passed on twice.

    A run's events are the same in every attempt, so counting them is enough.

    >>> repeats = Repeats()
    >>> repeats.is_repeated("a")  # the first event of run a
    False
    >>> repeats.start_over(["a"])
    >>> repeats.is_repeated("a"), repeats.is_repeated("a")  # the first event again, then the second one
    (True, False)
    """

    def __init__(self) -> None:
        # run id → events passed on since the checkpoint that the run starts from
        self._passed: Counter[str] = Counter()
        # run id → repeated events that are still to come
        self._to_come: Counter[str] = Counter()

    def start_over(self, run_ids: Iterable[str]) -> None:
        """These runs begin another attempt."""
        for run_id in run_ids:
            self._to_come[run_id] = self._passed[run_id]

    def is_repeated(self, run_id: str) -> bool:
        """Whether the run's next event was passed on before. Call this once for each event: it counts the event."""
        if self._to_come[run_id]:
            self._to_come[run_id] -= 1
            return True
        self._passed[run_id] += 1
        return False

    def are_to_come(self, run_ids: Iterable[str]) -> bool:
        """Whether one of these runs still has repeated events to come."""
        return any(self._to_come[run_id] for run_id in run_ids)

    def checkpointed(self, run_ids: Iterable[str]) -> None:
        """The next attempt of these runs continues from this checkpoint.

        It will report again only what was passed on beyond it: the repeated events that are still to come now.
        """
        for run_id in run_ids:
            self._passed[run_id] = self._to_come[run_id]

    def ended(self, run_id: str) -> None:
        """The run reports nothing more."""
        del self._passed[run_id], self._to_come[run_id]
