"""Scikit-learn estimators: any backbone as a transformer, any recipe as a classifier
or regressor, on arrays.

X is (records, leads, samples) in millivolts, or the same with leads and samples flattened into one
axis, (records, leads * samples), as pipelines and cross-validation of scikit-learn pass it. Rate
and lead names are parameters, because they cannot be derived from the numbers. The backbone's own
`Preparation` resamples, filters and crops. X may also be a list of Records or paths, which have
their own rates, lengths and lead names, or of arrays of different lengths; it is held in memory.
Amplitudes that suit another unit than millivolts are refused.

    embed = EcgEmbedder("st_mem_base", weights="encoder.pth", rate=500, leads=STANDARD_LEADS)
    model = make_pipeline(embed, LogisticRegression())

    probe = EcgClassifier("st_mem_base", weights="encoder.pth", rate=500, leads=STANDARD_LEADS)
    probe.fit(X, y, groups=patients).predict_proba(X_test)

Training is that of `einthoven.stages`, on an in-memory store. It cannot be resumed; use
`einthoven posttrain` for long runs.
"""

from einthoven.estimator.classifier import EcgClassifier
from einthoven.estimator.embedder import EcgEmbedder
from einthoven.estimator.regressor import EcgRegressor

__all__ = ["EcgClassifier", "EcgEmbedder", "EcgRegressor"]


def __dir__() -> list[str]:
    return sorted(__all__)
