"""A labelled cohort of simulated ECGs in PTB-XL's layout, for tests, examples and teaching."""

from einthoven.cohorts.synthetic.ecg import SyntheticECG, Truth, simulate
from einthoven.cohorts.synthetic.statements import statements_made
from einthoven.cohorts.synthetic.write import synthesize

__all__ = ["SyntheticECG", "Truth", "simulate", "statements_made", "synthesize"]
