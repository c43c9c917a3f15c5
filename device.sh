#!/bin/bash
# The published GP-HM algorithm on four rows of its authors' logs, to the end (100,000 steps of about 2 ms each).
# No GPU: 4 CPU processes of one thread each, at most 6.8 minutes, resumable from what lies in $OUT/gpdata.
#   OUT=... bash device.sh            SMALL=1 OUT=... bash device.sh   (a try: a hundredth of the steps)
export PYTHONPATH=. OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1 MKL_NUM_THREADS=1
PY=${PY:-python3}
HERE=${OUT:?}/gpdata
mkdir -p "$HERE"
# Compile once, before four processes want to.
$PY -c "import numpy; from operators.gp.toeplitz import inverse; inverse(numpy.array([2.0, 1.0]))"
for row in sin100-gaussian sin100-student sin6cos100-gaussian allen-cahn-sin100-gaussian; do
  timeout -k 5 400 $PY -m benchmarks.gp_adam --rows $row ${SMALL:+--quick} --out "$HERE/$row.json" > "$HERE/$row.log" 2>&1 &
done
wait
tail -n 2 "$HERE"/*.log
ls -la "$HERE"
