"""Given a PDE family and a seed: verified samples, any number of them, on any number of machines.

>>> from datagen import build
>>> family = build("darcy", grid=16)
>>> family.mesh.spacing
(0.0625, 0.0625)
"""

from datagen.family import Family as Family
from datagen.family import Field as Field
from datagen.family import LinearSystem as LinearSystem
from datagen.family import Sample as Sample
from datagen.family import build as build
from datagen.family import families as families
from datagen.family import register as register
from datagen.fields import GaussianRandomField as GaussianRandomField
from datagen.grids import Grid as Grid
