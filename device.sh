#!/bin/bash
# Operators on the GPU, two of issue 7's measurements one after the other: MG-TFNO on patches beside the TFNO on whole
# fields (128 x 128), then, in the time that is left, the table of models on Darcy flow in equal time. At most 7 minutes;
# the same command goes on. Starts at most 4 CPU processes of one thread (a parent that waits is not counted). Writes 4
# files into $OUT/learning.
#   OUT=... bash device.sh            SMALL=1 PY=... OUT=... bash device.sh   (a try on a CPU)
export PYTHONPATH=. OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1
PY=${PY:-python3}
HERE=${OUT:?}/learning
mkdir -p "$HERE"
DEVICE=cuda EACH=${EACH:-20} EPOCHS=${EPOCHS:-20} ALL=${ALL:-415}
[ -n "$SMALL" ] && DEVICE=cpu EACH=0.01 EPOCHS=1
timeout $ALL $PY -m benchmarks.patched_tfno --device $DEVICE --epochs $EPOCHS --processes 4 ${SMALL:+--small} \
  --out "$HERE/patched_tfno.json" > "$HERE/patched_tfno.log" 2>&1
LEFT=$((ALL - SECONDS))
[ $LEFT -gt 20 ] && timeout $LEFT $PY -m benchmarks.darcy_models --device $DEVICE --seconds $EACH --processes 4 \
  --minutes 9 --out "$HERE/darcy_models_gpu.json" > "$HERE/darcy_models.log" 2>&1
tail -4 "$HERE"/*.log
