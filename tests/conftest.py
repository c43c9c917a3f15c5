"""One BLAS thread for all tests: systems are small, and a second thread waits for a busy core longer than it helps."""

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread():
    with threadpool_limits(1, user_api="blas"):
        yield
