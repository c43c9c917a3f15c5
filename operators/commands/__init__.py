"""Console scripts. Importing this package comes before importing torch, so it also settles how its threads wait, and
what becomes of memory that it frees."""

import os

from operators.commands.memory import keep_freed_memory

# torch's OpenMP threads spin while they wait for each other. Where another process has one of two cores, that made a
# training step of 0.2 s take 1.3 to 1.8 s (measured on the demo's model). Threads that sleep while they wait took
# 0.22 s there, and 0.18 s where spinning ones took 0.14 s. Whoever has set the variable keeps it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
keep_freed_memory()
