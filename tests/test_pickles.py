"""Pickles from outside: what is harmless is read, and everything else is refused by name."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest

from kshot.data.pickles import load_pickle
from kshot.errors import DataError

CONTENT = {"data": np.arange(12, dtype=np.uint8).reshape(3, 4), "labels": [1, 2], "n": np.int64(3), "raw": b"\xff\x00"}


def dump(path: Path, content: object, protocol: int) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("numpy_core", [b"numpy._core", b"numpy.core"])
def test_arrays_scalars_and_containers_are_read(tmp_path: Path, protocol: int, numpy_core: bytes) -> None:
    content = pickle.dumps(CONTENT, protocol)
    if protocol < 4:  # names end at a line's end there, so that another name is no longer a damaged pickle
        content = content.replace(b"numpy._core", numpy_core).replace(b"numpy.core", numpy_core)
    (tmp_path / "data.pickle").write_bytes(content)
    read = load_pickle(tmp_path / "data.pickle")
    assert read.keys() == CONTENT.keys()
    np.testing.assert_array_equal(read["data"], CONTENT["data"])
    assert (read["labels"], read["n"], read["raw"]) == ([1, 2], 3, b"\xff\x00")


def test_strings_of_python_2_are_read(tmp_path: Path) -> None:
    (tmp_path / "old.pickle").write_bytes(b"(dp0\nS'names'\np1\n(lp2\nS'caf\\xe9'\np3\nas.")
    assert load_pickle(tmp_path / "old.pickle") == {"names": ["café"]}


class Malicious:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (Path.touch, (), "touch|getattr"),
        (eval, ("open('stolen', 'w')",), "eval"),
        (__import__, ("os",), "__import__"),
        (getattr, ([], "append"), "getattr"),
        (np.load, ("x.npy", None, True), "load"),
        (io.open, ("stolen", "w"), "open"),
    ],
)
def test_a_malicious_pickle_is_refused_and_not_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    protocol: int,
    function: object,
    arguments: tuple[object, ...],
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    bad = {"data": [1, Malicious(function, *(arguments or (tmp_path / "stolen",)))]}
    path = dump(tmp_path / "bad.pickle", bad, protocol)
    with pytest.raises(DataError, match=rf"bad.pickle: the pickle asks for \S*({named}|Path|copy|recons)"):
        load_pickle(path)
    assert not (tmp_path / "stolen").exists()


class Crafted:
    """Pickled as a call with a state, as numpy pickles arrays and types."""

    def __init__(self, call: object, arguments: tuple[object, ...], state: object = None) -> None:
        self.reduced = call, arguments, state

    def __reduce__(self) -> tuple[object, ...]:
        return self.reduced if self.reduced[2] is not None else self.reduced[:2]


RECONSTRUCT = np.zeros(1).__reduce__()[0]  # type: ignore[index]
FOREIGN_FLAGS = Crafted(np.dtype, ("i8", False, True), (3, "<", None, None, None, -1, -1, 63))
BOX = Crafted(np.dtype, ("V8", False, True), (3, "|", None, None, None, 8, 1, 63))


def array_of(dtype: object, raw: bytes, shape: tuple[int, ...] = (1,)) -> Crafted:
    return Crafted(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, shape, dtype, False, raw))


@pytest.mark.parametrize(
    "crafted",
    [
        array_of(np.dtype("O"), b"A" * 8),
        array_of(BOX, b"A" * 8),
        array_of(np.dtype("i8"), b"A" * 4),
        array_of(np.dtype("i8"), b"A" * 8, (2**62,)),
        array_of("i8", b"A" * 8),
        np.asarray([{}, []], object),
        Crafted(np.dtype, ("O8",)),
        Crafted(np.dtype, ([("a", "O")],)),
        Crafted(type(np.int64(1)).__reduce__(np.int64(1))[0], (np.dtype("O"), b"A" * 8)),
        Crafted(bytes, (10**13,)),
        Crafted(bytearray, (10**13,)),
        Crafted(set, (), {"a": 1}),
    ],
    ids=[
        "objects",
        "fields of objects",
        "too few bytes",
        "a huge shape",
        "a dtype that is a string",
        "an object array",
        "a dtype of objects",
        "a dtype with a field of objects",
        "a scalar that is an address",
        "bytes by size",
        "a bytearray by size",
        "a set with state",
    ],
)
def test_arrays_that_are_addresses_or_sizes_are_refused(tmp_path: Path, crafted: object) -> None:
    path = dump(tmp_path / "bad.pickle", [crafted], 4)
    with pytest.raises(DataError, match=r"bad\.pickle"):
        load_pickle(path)


def test_a_type_that_lies_about_itself_makes_no_addresses(tmp_path: Path) -> None:
    (read,) = load_pickle(dump(tmp_path / "x.pickle", [array_of(FOREIGN_FLAGS, b"A" * 8)], 4))
    assert (read.dtype, read.dtype.hasobject, int(read[0])) == (np.int64, False, int.from_bytes(b"A" * 8, "little"))


@pytest.mark.parametrize("dtype", [">i4", "<f8", "u1", "S5", "U3", "?", ">U2", "c16"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_keep_types_and_values(tmp_path: Path, dtype: str, order: str) -> None:
    array = np.asarray([[0, 1, 2], [3, 4, 5]]).astype(dtype, order=order)  # type: ignore[call-overload]
    for protocol in (2, 4, 5):
        read = load_pickle(dump(tmp_path / "x.pickle", {"a": array, "b": array.dtype, "c": array[0, 0]}, protocol))
        np.testing.assert_array_equal(read["a"], array)
        assert (read["a"].dtype.newbyteorder("="), read["c"]) == (array.dtype.newbyteorder("="), array[0, 0])
        assert read["b"] == array.dtype


@pytest.mark.parametrize("content", [b"\x80\x02r\xff\xff\xff\x7f.", b"\x80\x04\x8e\0\0\0\0\0\1\0\0.", b"(" * 10**6])
def test_a_pickle_that_names_a_size_takes_no_memory_for_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.pickle").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.pickle"):
        load_pickle(tmp_path / "bad.pickle")


def test_bytes_may_be_encoded_as_latin1_alone(tmp_path: Path) -> None:
    (tmp_path / "codec.pickle").write_bytes(b"c_codecs\nencode\n(Vabc\nVrot13\ntR.")
    with pytest.raises(DataError, match="encoding 'rot13'"):
        load_pickle(tmp_path / "codec.pickle")


@pytest.mark.parametrize("keep", [0, 1, 10, 60, -1])
def test_a_truncated_pickle_is_refused_by_name(tmp_path: Path, keep: int) -> None:
    content = pickle.dumps(CONTENT)
    (tmp_path / "short.pickle").write_bytes(content[:keep])
    with pytest.raises(DataError, match=r"short.pickle cannot be read .* damaged or incomplete: get it again"):
        load_pickle(tmp_path / "short.pickle")


def test_a_missing_pickle_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*none.pickle"):
        load_pickle(tmp_path / "none.pickle")
