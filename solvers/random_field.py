"""Random fields for model problems, in which each is near the one before."""

import numpy as np

_MODES = 16  # cosine modes per axis of a random field; amplitudes beyond are below 1 % of the largest


class RandomField:
    r"""Stationary Gaussian random fields on the unit cube, each a small step from the one before.

    .. math:: g_t(x) = \sum_{k \ne 0} \lambda_k \xi_{k,t} \prod_a \cos \pi k_a x_a, \qquad
              \lambda_k \propto (\pi^2 |k|^2 + \tau^2)^{-\alpha/2},

    with :math:`\alpha = 2.5, \tau = 7` (Wang et al., arXiv 2401.09516), the mean variance over the cube one, and
    :math:`\xi_{t+1} = \sqrt{1 - \epsilon^2}\, \xi_t + \epsilon\, \zeta_t`: the relative change
    from one field to the next is about :math:`\epsilon`, and 1 makes them independent.

    Parameters
    ----------
    shape : tuple of int
        Points per axis.
    drift : float
        :math:`\epsilon`, 0 to 1.
    rng : numpy.random.Generator

    Attributes
    ----------
    context : ndarray, shape (16 ** dimensions,)
        Coefficients of the present field in orthonormal modes: the Euclidean distance of two contexts is the
        root-mean-square difference of their fields.

    Examples
    --------
    >>> field = RandomField((50, 50), drift=0.05, rng=np.random.default_rng(0))
    >>> first, context = field.values(), field.context
    >>> field.advance()
    >>> bool(np.sqrt(np.mean((field.values() - first) ** 2)) < 0.2)
    True
    """

    def __init__(self, shape: tuple[int, ...], drift: float, rng: np.random.Generator) -> None:
        if not 0.0 <= drift <= 1.0:
            raise ValueError(f"drift: expected a number from 0 (all alike) to 1 (independent), got {drift!r}")
        dimensions = len(shape)
        k = np.indices((_MODES,) * dimensions)
        amplitude = (np.pi**2 * np.sum(k**2, axis=0) + 49.0) ** -1.25
        amplitude.flat[0] = 0.0
        self._amplitude = amplitude / np.linalg.norm(amplitude)
        self._drift, self._rng = drift, rng
        self._modes = []
        for points in shape:
            x = np.arange(1, points + 1) / (points + 1)
            mode = np.cos(np.pi * np.outer(x, np.arange(_MODES)))
            mode[:, 1:] *= np.sqrt(2.0)  # a mean square of one
            self._modes.append(mode)
        self._xi = rng.standard_normal(amplitude.shape)

    def advance(self) -> None:
        """Go on to the next field."""
        fresh = self._rng.standard_normal(self._xi.shape)
        self._xi = np.sqrt(1.0 - self._drift**2) * self._xi + self._drift * fresh

    @property
    def context(self) -> np.ndarray:
        return (self._amplitude * self._xi).ravel()

    def values(self) -> np.ndarray:
        """The present field, shape `shape`."""
        field = self._amplitude * self._xi
        for mode in self._modes:  # sums over the first axis, and puts the grid's own last: after all, in order again
            field = np.tensordot(field, mode, axes=(0, 1))
        return field
