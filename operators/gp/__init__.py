"""Partial differential equations on boxes, solved by conditioning a Gaussian process on them."""

from operators.gp.kernels import GaussianMixture as GaussianMixture
from operators.gp.kernels import Kernel as Kernel
from operators.gp.kernels import Product as Product
from operators.gp.kernels import StudentMixture as StudentMixture
from operators.gp.kernels import Sum as Sum
from operators.gp.problems import Advection as Advection
from operators.gp.problems import AllenCahn as AllenCahn
from operators.gp.problems import Diffusion as Diffusion
from operators.gp.problems import Helmholtz as Helmholtz
from operators.gp.problems import Poisson as Poisson
from operators.gp.problems import Problem as Problem
from operators.gp.problems import Reaction as Reaction
from operators.gp.problems import ReactionDiffusion as ReactionDiffusion
from operators.gp.solution import Solution as Solution
from operators.gp.solve import Observations as Observations
from operators.gp.solve import solve as solve
from operators.gp.terms import laplacian as laplacian
from operators.gp.terms import partial as partial
