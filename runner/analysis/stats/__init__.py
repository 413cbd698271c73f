"""Statistics of paired runs: arrays in, numbers or small frozen records out; by scipy and statsmodels."""

from runner.analysis.stats.effects import (
    Reach,
    RestrictedMean,
    cohens_dz,
    probability_of_improvement,
    restricted_mean,
    time_to_target,
)
from runner.analysis.stats.intervals import (
    Interval,
    iqm,
    iqm_interval,
    mean_band,
    paired_interval,
    welch_interval,
    wilson_interval,
)
from runner.analysis.stats.significance import (
    benjamini_hochberg,
    equivalence_p,
    holm,
    levene_p,
    mcnemar_p,
    sign_flip_p,
    welch_p,
)
from runner.analysis.stats.values import Values
from runner.analysis.stats.verdicts import Verdict, power, seeds_needed, verdict

__all__ = [
    "Interval",
    "Reach",
    "RestrictedMean",
    "Values",
    "Verdict",
    "benjamini_hochberg",
    "cohens_dz",
    "equivalence_p",
    "holm",
    "iqm",
    "iqm_interval",
    "levene_p",
    "mcnemar_p",
    "mean_band",
    "paired_interval",
    "power",
    "probability_of_improvement",
    "restricted_mean",
    "seeds_needed",
    "sign_flip_p",
    "time_to_target",
    "verdict",
    "welch_interval",
    "welch_p",
    "wilson_interval",
]
