"""Our product of a CSR matrix with a vector is scipy's, whatever the order of the rows and the types."""

import numpy as np
import pytest
import scipy.sparse as sp

from solvers.csr import Product


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_product(dtype, index):
    rng = np.random.default_rng(0)
    A = sp.random_array((40, 40), density=0.2, rng=rng, format="csr")
    A = (A + 1j * A.T if np.dtype(dtype).kind == "c" else A).tocsr().astype(dtype)
    A = sp.csr_array(sp.diags_array((np.arange(40) != 7).astype(dtype)) @ A)  # an empty row
    A = sp.csr_array((A.data[::-1].copy(), A.indices[::-1].astype(index), A.indptr.astype(index)), A.shape)
    x = rng.standard_normal(80).astype(dtype)[::2]  # not contiguous
    result = Product(A)(x)
    assert result.dtype == dtype
    # sums of at most 40 terms, in one order or another
    np.testing.assert_allclose(result, A.toarray() @ x, atol=50 * np.finfo(dtype).eps * np.abs(A).sum(axis=1).max())


def test_duplicates_add_up():
    A = sp.csr_array((np.array([1.0, 2.0, 5.0]), np.array([1, 1, 0]), np.array([0, 2, 3])), (2, 2))
    np.testing.assert_array_equal(Product(A)(np.array([10.0, 1.0])), [3.0, 50.0])
