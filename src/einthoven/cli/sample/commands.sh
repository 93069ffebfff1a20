#!/usr/bin/env bash
# From ECG files and a table of labels to a model, its report and its predictions.
#
# The 40 ECGs in this folder are SIMULATED by einthoven. They are not of patients, and a model that
# is trained on them is not valid for patients. For ECGs of your own, change COHORT and ECG.
#
#   bash commands.sh     runs everything in some minutes; or copy the commands one by one
#
# An interrupted command continues when it is repeated. No data leave this computer.
set -euo pipefail
cd "$(dirname "$0")"

COHORT=labels.csv               # columns: path, patient, age, sex, and a label of 0 and 1
ECG=simulated-ecgs/0008.hea     # one of its files

# 1. Check the table, and one ECG: splits and patients; leads, rate, unit, noise.
einthoven doctor $COHORT
einthoven doctor $ECG

# 2. Cross-validate and train. With few records, five models are trained, each without a fifth of
#    the patients, which it then predicts: every record is tested by a model that has not seen its
#    patient. The final model, runs/first/model, is trained on all records. --store keeps the packed
#    signals in this folder instead of a cache folder in your home.
einthoven posttrain $COHORT --store store --folds 5 --out runs/first

# 3. Scores of these predictions, with confidence intervals; patients are drawn, not records.
einthoven evaluate runs/first --by patient

# 4. Does fine-tuning help here? With fewer than 1,000 records it is not tried, and runs/first is a
#    linear probe. The same with fine-tuning takes longer. The differences are paired, record by
#    record.
einthoven posttrain $COHORT --store store --folds 5 --set stage2.keep=always --out runs/tuned
einthoven compare runs/tuned runs/first --by patient

# 5. Both in one page to read and to pass on: scores, curves, calibration, example ECGs.
einthoven report runs/tuned runs/first --cohort $COHORT --out report.html

# 6. Predict one ECG, and a table or a folder of ECGs. The final model has been trained on these
#    records, so its probabilities are too good here: for records of this table, the honest ones are
#    in runs/first/predictions.
einthoven predict --model runs/first/model $ECG
einthoven predict --model runs/first/model $COHORT --out predictions.csv
