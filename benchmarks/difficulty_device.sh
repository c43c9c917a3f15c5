#!/bin/bash
# Flow past obstacles, easier and hard samples mixed (docs/difficulty.md), on a GPU: makes the data with 4 processes of one
# thread, then trains with 4 such processes that share the GPU. At most 7 minutes; resumable: the same command goes on.
#   OUT=... bash benchmarks/difficulty_device.sh            SMALL=1 OUT=... bash benchmarks/difficulty_device.sh   (a try)
export PYTHONPATH=. OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1 PYTHONUNBUFFERED=1
PY=${PY:-python3}
STUDY=${STUDY:-flow}
SECONDS_IN_ALL=${SECONDS_IN_ALL:-400}
HERE=${OUT:?}/levels
RUN="$PY -m benchmarks.difficulty_transfer"
began=$(date +%s)
left() { echo $((SECONDS_IN_ALL - $(date +%s) + began)); }
mkdir -p "$HERE" outputs
[ -n "$SMALL" ] && STUDY=tiny

timeout $(left) $RUN data --study $STUDY --workers 4 > outputs/levels-data.log 2>&1
for part in 0 1 2 3; do
  timeout $(left) $RUN run --study $STUDY --device "${DEVICE:-cuda}" --part $part 4 --minutes 6 > outputs/levels-$part.log 2>&1 &
done
wait
tail -n 2 outputs/levels-*.log
tar czf "$HERE/results.tar.gz" benchmarks/results/difficulty_transfer/$STUDY outputs/levels-*.log
ls -la "$HERE"
