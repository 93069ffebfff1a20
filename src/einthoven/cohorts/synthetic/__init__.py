"""A labelled cohort of simulated ECGs in PTB-XL's layout, for tests, examples and teaching."""

from einthoven.cohorts.synthetic.ecg import SyntheticECG, Truth, simulate
from einthoven.cohorts.synthetic.sample import sample_record, write_sample
from einthoven.cohorts.synthetic.statements import statements_made
from einthoven.cohorts.synthetic.write import check_empty, synthesize

__all__ = [
    "SyntheticECG",
    "Truth",
    "check_empty",
    "sample_record",
    "simulate",
    "statements_made",
    "synthesize",
    "write_sample",
]


def __dir__() -> list[str]:
    return sorted(__all__)
