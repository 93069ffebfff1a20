"""The scikit-learn face: any backbone as a transformer, any recipe as a classifier, on arrays.

X is (records, leads, samples) in millivolts, or the same with leads and samples flattened into one
axis, (records, leads * samples), which is what pipelines and cross-validation of scikit-learn
expect. Its rate in hertz and the names of its leads are parameters: nothing is guessed from the
numbers. What is done to a signal then, resampling, filters and crops, is the backbone's own
`Preparation`.

    embed = EcgEmbedder("st_mem_base", weights="encoder.pth", rate=500, leads=STANDARD_LEADS)
    model = make_pipeline(embed, LogisticRegression())

    probe = EcgClassifier("st_mem_base", weights="encoder.pth", rate=500, leads=STANDARD_LEADS)
    probe.fit(X, y, groups=patients).predict_proba(X_test)

Training is that of `einthoven.stages`, on an in-memory store (`einthoven.signals.store`). What is
long enough to be interrupted belongs to `einthoven posttrain`, which resumes; this does not.
"""

from einthoven.estimator.classifier import EcgClassifier
from einthoven.estimator.embedder import EcgEmbedder

__all__ = ["EcgClassifier", "EcgEmbedder"]
