#!/usr/bin/env bash
# The main job, step by step: each step is a command that works by itself. `make demo` calls this with its settings in
# the environment (METHODS=all adds GRN-SEL and GRN-SSL). Results of other settings are removed from OUT first; a
# stopped run of the same settings goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
bin=$root/${VENV:-.venv}/bin
out=$(realpath -m "$OUT")
cohort=$out/cohort
[ -z "${COHORT:-}" ] || cohort=$(realpath -m "$COHORT")

case "$METHODS" in
  default) joint="grn_plus" ;;
  all) joint="grn_plus grn_sel grn_ssl" ;;
  *) echo "METHODS has to be default or all, not $METHODS" >&2; exit 2 ;;
esac

step() { # show a command, and run it in the folder of a bundle (or here: .)
  local folder=$1
  shift
  printf '\n\033[1m[%s]\033[0m %s\n' "$folder" "${*//$root\//}"
  (cd "$folder" && "$@")
}

# Only folders that an earlier demo made here are ever removed, and a cohort only if the demo simulated it.
settings="cohort=${COHORT:+$cohort} simulate=${COHORT:-$SIMULATE} fraction=$FRACTION epochs=$EPOCHS slice=$SLICE seed=$SEED base=$BASE depth=$DEPTH"
if [ -f "$out/settings.txt" ] && [ "$(cat "$out/settings.txt")" != "$settings" ]; then
  rm -rf "$out/unet" "$out/grn_plus" "$out/grn_sel" "$out/grn_ssl" "$out/evaluation" "$out/measured" "$out"/report.{html,json}
  [ -n "${COHORT:-}" ] || [ ! -f "$out/cohort/simulation.json" ] || rm -rf "$out/cohort"
fi
mkdir -p "$out"
echo "$settings" > "$out/settings.txt"

if [ -z "${COHORT:-}" ]; then
  # shellcheck disable=SC2086 - SIMULATE is a list of options
  step . "$bin/python" -m data_prep simulate --out "$cohort" --seed "$SEED" --workers "$WORKERS" $SIMULATE
fi
step . "$bin/python" -m data_prep check "$cohort"

if [ "$METHODS" = all ]; then # now, not after the other methods have trained
  "$bin/python" - "$cohort" "$FRACTION" "$SEED" "$DEPTH" << 'EOF'
import sys

from grn_monai.data import datalist
from grn_monai.errors import report_input_errors

report_input_errors()
cohort, fraction, seed, depth = sys.argv[1:]
datalist(cohort, "unlabeled", fraction=float(fraction), seed=int(seed), depth_axis=int(depth) if depth.isdigit() else depth)
EOF
fi

data=(--dataset_dir "$cohort" --seed "$SEED" --slice_size "[$SLICE,$SLICE]" --depth_axis "$DEPTH")
bundle=("$bin/python" -m monai.bundle run)
train=("${bundle[@]}" training --config_file configs/train.yaml "${data[@]}" --fraction "$FRACTION" --epochs "$EPOCHS")
unet=bundles/us_layers_supervised
evaluate="'configs/train.yaml','configs/evaluate.yaml'"

step $unet "${train[@]}" --output_dir "$out/unet"
for name in $joint; do
  step "bundles/us_layers_$name" "${train[@]}" --output_dir "$out/$name" --base_channels "$BASE"
done
step $unet "${bundle[@]}" --config_file "[$evaluate]" "${data[@]}" \
  --output_dir "$out/unet" --eval_dir "$out/evaluation/unet"
for name in $joint; do
  step "bundles/us_layers_$name" "${bundle[@]}" --config_file "[$evaluate,'configs/no_sge.yaml']" "${data[@]}" \
    --base_channels "$BASE" --output_dir "$out/$name" --eval_dir "$out/evaluation/$name"
  step "bundles/us_layers_$name" "${bundle[@]}" --config_file "[$evaluate]" "${data[@]}" \
    --base_channels "$BASE" --save_enhanced true --output_dir "$out/$name" --eval_dir "$out/evaluation/${name}_sge"
done
step . "$bin/grn-monai" report "$out" --cohort "$cohort" --depth-axis "$DEPTH"
# What a user without truth gets: millimetres, quality flags and pictures of every scan.
step . "$bin/grn-monai" measure "$cohort" "$out/evaluation/grn_plus_sge/predictions" --out "$out/measured" \
  --depth-axis "$DEPTH"
step . "$bin/grn-monai" report "$out/measured"
printf '\nLook at %s and %s\n' "${out#"$root"/}/report.html" "${out#"$root"/}/measured/report.html"
