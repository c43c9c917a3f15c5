"""Our reader of MATLAB's version 5 beside scipy's, on files that MATLAB itself wrote, and on damaged ones."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from datagen.interchange.matlab5 import Damaged, variables

# scipy's own test files, by MATLAB 5 to 7 on machines of either byte order; some distributions leave them out.
FILES = sorted((Path(scipy.io.__file__).parent / "matlab/tests/data").glob("*.mat"))
BROKEN = {
    "bad_miuint32.mat",
    "bad_miutf8_array_name.mat",
    "broken_utf8.mat",
    "corrupted_zlib_checksum.mat",
    "corrupted_zlib_data.mat",
    "malformed1.mat",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not FILES, reason="scipy is installed without its test files")
def test_files_of_matlab_hold_what_scipy_says():
    alike, kinds = 0, set()
    for path in FILES:
        try:
            found = variables(path)
        except Damaged:
            # Not of version 5, or damaged on purpose: scipy's name for the former ends in its version.
            header = path.read_bytes()[:128]
            assert (
                path.name in BROKEN or header[126:] not in (b"IM", b"MI") or header[124:126] not in (b"\0\1", b"\1\0")
            )
            continue
        if path.name in BROKEN:
            continue
        for name, shape, kind in scipy.io.whosmat(path):
            if name.startswith("__"):
                continue  # scipy's name for what MATLAB keeps under none
            mine = found[name]
            kinds.add(kind)
            if mine.kind == "numbers":
                assert mine.shape == shape
                theirs = scipy.io.loadmat(path, variable_names=[name], mat_dtype=True)[name]
                np.testing.assert_array_equal(mine.array(), theirs, err_msg=f"{path.name}: {name}")
                alike += 1
            elif mine.kind == "text" and shape[0] == 1 and mine.shape[1]:
                assert [mine.text()] == list(scipy.io.loadmat(path, variable_names=[name])[name])
                alike += 1
            else:
                assert kind not in ("double", "single", "int8", "uint8", "int16") or mine.kind == "complex array"
    assert alike > 20
    assert {"double", "char", "cell", "struct", "sparse"} <= kinds


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i2", "u1", "i8"])
def test_every_type_and_shape_that_scipy_writes(tmp_path, dtype, compressed):
    values = {f"a{d}": (100 * np.random.default_rng(d).random(range(2, 3 + d))).astype(dtype) for d in range(1, 5)}
    values["flag"] = np.array([[True, False]])
    scipy.io.savemat(tmp_path / "a.mat", values, do_compression=compressed)
    found = variables(tmp_path / "a.mat")
    assert set(found) == set(values)
    for name, expected in values.items():
        array = found[name].array()
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == (expected.dtype if expected.dtype != bool else np.uint8)


def test_damaged_bytes_are_damaged_and_nothing_worse(tmp_path):
    """scipy's reader ends the process on some of these."""
    rng = np.random.default_rng(0)
    scipy.io.savemat(tmp_path / "a.mat", {"coeff": rng.random((4, 5)), "sol": rng.random((4, 5)), "note": "text"})
    good, path = (tmp_path / "a.mat").read_bytes(), tmp_path / "b.mat"
    refused = 0
    for length in range(0, len(good), 7):
        path.write_bytes(good[:length])
        with pytest.raises(Damaged):
            read_all(path)
    for _ in range(400):
        content = bytearray(good)
        content[rng.integers(128, len(good))] = rng.integers(0, 256)
        path.write_bytes(content)
        try:
            read_all(path)
        except Damaged:
            refused += 1
    # 40 of about 450 bytes after the header are values, whose changes no format without checksums can see.
    assert refused > 50


def read_all(path):
    found = variables(path)
    if set(found) != {"coeff", "sol", "note"}:
        raise Damaged("names")
    return [found["coeff"].array(), found["sol"].array(), found["note"].text()]
