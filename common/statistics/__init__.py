"""Whether a difference between two sets of trainings is real: tests, intervals, power, and the verdict they allow.

Only numbers go in and come out. The tests are SciPy's; what is written here is how they are combined.
"""

from common.statistics.assessment import Assessment, Verdict, assess_paired, assess_unpaired
from common.statistics.means import (
    MeanDifference,
    PermutationResult,
    equivalence_p_value,
    holm,
    paired_difference,
    permutation_test,
    sign_flip_test,
    welch_difference,
)
from common.statistics.power import detectable_effect, power, runs_needed
from common.statistics.predictions import (
    SEED_SPREAD_RATIO,
    BootstrapDifference,
    McNemar,
    bootstrap_classification,
    bootstrap_mean,
    mcnemar,
    seed_spread_guess,
)

__all__ = [
    "SEED_SPREAD_RATIO",
    "Assessment",
    "BootstrapDifference",
    "McNemar",
    "MeanDifference",
    "PermutationResult",
    "Verdict",
    "assess_paired",
    "assess_unpaired",
    "bootstrap_classification",
    "bootstrap_mean",
    "detectable_effect",
    "equivalence_p_value",
    "holm",
    "mcnemar",
    "paired_difference",
    "permutation_test",
    "power",
    "runs_needed",
    "seed_spread_guess",
    "sign_flip_test",
    "welch_difference",
]
