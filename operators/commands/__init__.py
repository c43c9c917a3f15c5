"""Console scripts. Importing this package comes before importing torch, so it also settles how its threads wait."""

import os

# torch's OpenMP threads spin while they wait for each other. On two cores of which another process had one, that made
# a training step of 0.2 s take 1.8 s; asleep, they lose nothing there, and little on a machine of their own. Whoever
# set the variable keeps it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
