#!/bin/bash
# The study of docs/poseidon.md on a machine with a GPU: from the root of the repository, with OUT set.
# Four processes, one thread each, at most 6.4 minutes; what is done by then is in $OUT/poseidon/study.json.
set -u
export PYTHONPATH=${PYTHONPATH:+$PYTHONPATH:}. PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1
SCALE=${SCALE:-full} MINUTES=${MINUTES:-6.4} WORKERS=${WORKERS:-4}
free=$(df -Pk /dev/shm 2>/dev/null | awk 'NR==2 {print $4}')
WORK=/tmp/poseidon_study
[ "${free:-0}" -gt 8000000 ] && WORK=/dev/shm/poseidon_study  # checkpoints are written through to the disk
mkdir -p "$OUT/poseidon"
timeout 412 python3 -m benchmarks.poseidon_study --stage all --scale "$SCALE" --workers "$WORKERS" --minutes "$MINUTES" \
  --work "$WORK" --result "$OUT/poseidon/study.json" >"$OUT/poseidon/log.txt" 2>&1
echo "poseidon_study: rc $?; $(tail -1 "$OUT/poseidon/log.txt")"
