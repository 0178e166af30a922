"""Not an experiment: names that moved to moevoprune.studies."""

from moevoprune.studies.saying import describe, number, p_cell, paired_table, shown_higher, verdict
from moevoprune.studies.study import INTERRUPTED, Settings, Study, last_class_as_ood, run_study

__all__ = [
    "INTERRUPTED",
    "Settings",
    "Study",
    "describe",
    "last_class_as_ood",
    "number",
    "p_cell",
    "paired_table",
    "run_study",
    "shown_higher",
    "verdict",
]
