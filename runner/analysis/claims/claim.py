"""A claim is a sentence that an experiment can test. It is declared here, and judged in `judge`.

A claim is a function `(name) -> Claim` under `@claim("name")` (`runner.registry`), in a module of `experiments/claims/`
or in a plugin. Its config is the budget `full`. The other budgets are `--set` overrides of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from runner import registry
from runner.analysis.claims.paired_values import Effect, PairedValues
from runner.config import reader
from runner.config.sweep import Sweep
from runner.errors import UserError, unknown
from runner.storage.results import Results

Budget = Literal["smoke", "small", "full"]

BUDGETS: tuple[Budget, ...] = ("smoke", "small", "full")

Measure = Callable[[Results], PairedValues]
"""A sweep → the two values that are compared, for each tested seed."""


@dataclass(frozen=True)
class DocumentBudget:
    """How the document trained. A claim is judged on such runs only.

    >>> DocumentBudget("the notebook's", {"epochs": 10}).words
    "the notebook's: epochs 10"
    """

    whose: str = "ours, because the document names none"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Run parameters that all runs of the sweep have, such as `epochs`, and their values."""

    @property
    def words(self) -> str:
        named = ", ".join(f"{name} {'all' if value is None else value}" for name, value in self.parameters.items())
        return f"{self.whose}: {named}" if named else self.whose


@dataclass(frozen=True)
class Claim:
    """One sentence, the experiment that tests it, and the rule. No field may depend on a result.

    >>> claim = Claim(
    ...     name="higher_accuracy",
    ...     sentence="Batch norm raises accuracy.",
    ...     source="the tutorial",
    ...     config=Path("configs/mine.yaml"),
    ...     metric="test accuracy, median of the last epoch's readings",
    ...     unit="pp",
    ...     smallest_effect=0.5,
    ...     claimed=1,
    ...     measure=lambda results: PairedValues(values=[97.1, 97.3], baseline=[96.4, 96.4]),
    ...     budgets={"smoke": ["fixed.epochs=1"]},
    ...     reason="0.5 pp are 50 of the 10,000 test images.",
    ... )
    >>> claim.sweep_name
    'mine'
    """

    name: str
    sentence: str
    source: str
    """The document that says so."""
    config: Path
    """The config of the budget `full`. Its file name is the sweep's name, and claims may share it."""
    metric: str
    """What is compared, in words, and why it is measured so."""
    unit: str
    smallest_effect: float
    """The smallest effect of interest, in `unit`; for a claim of equivalence the margin."""
    claimed: Literal[1, -1, "equivalence"]
    """The sign of the effect that the sentence claims."""
    measure: Measure
    budgets: Mapping[str, Sequence[str]]
    """The `--set` overrides of `smoke` and `small`."""
    reason: str = ""
    """Why the smallest effect, and the target where there is one, have these values."""
    effect: Effect = "difference"
    document: DocumentBudget = DocumentBudget()
    selection_seeds: Sequence[int] = ()
    """The seeds that choose learning rates. They are not tested."""
    table: str = "metrics.csv"
    """The file in the sweep's folder that holds the numbers."""
    contradicts: str = ""
    """A document that says the opposite, if there is one."""
    remarks: Callable[[Results], tuple[str, ...]] | None = None
    """What a reader must also know about the runs. Failed and diverged runs are noted for every claim."""

    def sweep(self, budget: Budget) -> Sweep:
        """The sweep that this budget trains. Errors: UserError where the config is wrong."""
        return reader.load(self.config, tuple(self.budgets.get(budget, ())))

    @property
    def sweep_name(self) -> str:
        return self.config.stem

    @property
    def claimed_effect(self) -> str:
        """What the sentence claims of the effect, such as "≤ −20 %"."""
        relation = {1: "≥ +", -1: "≤ −", "equivalence": "within ±"}[self.claimed]
        return f"{relation}{self.smallest_effect:g} {self.unit}"

    @property
    def texts(self) -> tuple[str, ...]:
        """The wording, which decides nothing."""
        return self.sentence, self.source, self.metric, self.reason, self.contradicts, self.document.whose

    @property
    def scale(self) -> float:
        """The factor between an estimate and the claim's unit: a ratio is in %."""
        return 100.0 if self.effect == "ratio" else 1.0


def chosen_claims(names: Iterable[str] = ()) -> tuple[Claim, ...]:
    """The claims of these names, or all claims where no name is given, in the order of their declaration.

    Errors: UserError that lists every unknown name.
    """
    known = list(registry.claim)
    wanted = list(dict.fromkeys(names)) or known
    if faults := [unknown("claim", name, known) for name in wanted if name not in known]:
        raise UserError(*faults)
    return tuple(registry.claim[name](name) for name in known if name in wanted)


def family(name: str) -> tuple[str, ...]:
    """The claims whose tests are counted together: all claims of the package or plugin that declares this one.

    It does not depend on the claims that a command names. A claim that is not registered is its own family.
    """

    def package(name: str) -> str:
        return registry.claim[name].__module__.partition(".")[0]

    if name not in registry.claim:
        return (name,)
    return tuple(other for other in registry.claim if package(other) == package(name))


def sweeps_of(chosen: Sequence[Claim], budget: Budget) -> list[Sweep]:
    """The sweeps that the claims need, each once.

    Errors: UserError where a config is wrong, and where two claims need different runs of one sweep.
    """
    sweeps: dict[str, Sweep] = {}
    for claim in chosen:
        sweep = claim.sweep(budget)
        first = sweeps.setdefault(sweep.name, sweep)
        if [run.run_id for run in first.runs] != [run.run_id for run in sweep.runs]:
            fault = f"other claims have another sweep '{sweep.name}'; rename its config"
            raise UserError(f"claim '{claim.name}': {fault}")
    return list(sweeps.values())
