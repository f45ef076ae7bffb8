#!/usr/bin/env bash
# Serves the bundles in MONAI Label. `make label` calls this with its settings in the environment. Without a trained
# model it trains one first, shortly, on simulated scans.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=$(realpath -m "$RUNS")
out=$(realpath -m "$LABEL_OUT")
studies=$STUDIES

trained() { # a training of any bundle that left a model?
  [ -d "$runs" ] && find -L "$runs" -path "$out" -prune -o -path '*/models/model.pt' -print -quit | grep -q .
}

if ! trained; then
  echo "No trained model in $RUNS: training one shortly (a full one: make demo)"
  OUT=$runs/demo EPOCHS=${LABEL_EPOCHS:-3} tools/demo.sh
fi
if [ -z "$studies" ]; then
  studies=$runs/demo/cohort
  [ -f "$studies/dataset.json" ] || { echo "No cohort in $RUNS/demo: give STUDIES=/path (a cohort, a folder of scans or a DICOMweb URL)" >&2; exit 2; }
fi
case "$studies" in
  *://*) ;;
  *) studies=$(realpath -m "$studies") ;;
esac

# shellcheck disable=SC2086 - LABEL_ARGS is a list of options
exec "$VENV_LABEL/bin/python" -m grn_monai.cli label --bundles bundles --runs "$runs" --studies "$studies" \
  --out "$out" --port "$PORT" ${LABEL_ARGS:-}
