#!/bin/bash
# Four trainings of the learned multigrid on four CPU processes (one thread each), about 6 minutes; no GPU.
# From the worktree's root; writes OUT/learnedmg/*.safetensors and *.log. Every minute what is best so far is on disk.
export PYTHONPATH=. OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1 PYTHONUNBUFFERED=1
export NUMBA_CACHE_DIR=${NUMBA_CACHE_DIR:-/tmp/numba_learnedmg}
out=${OUT:-/tmp/learnedmg_out}/learnedmg
minutes=${MINUTES:-5}
limit=${LIMIT:-400}
mkdir -p "$out"
train() {
  timeout "$limit" python3 -m operators.models.train_preconditioner --minutes "$minutes" --out "$out/$1.safetensors" "${@:2}" > "$out/$1.log" 2>&1 &
}

train a --hidden 8 --seed 0
train b --hidden 16 --seed 1
train c --hidden 8 --seed 2 --steps 6
train d --hidden 16 --seed 3 --batch 8
wait
tail -n 2 "$out"/*.log
