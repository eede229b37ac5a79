"""Pickles from outside: numpy arrays and plain containers, built here piece by piece; nothing else is called."""

from __future__ import annotations

import codecs
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from kshot.data.archives import GET_IT_AGAIN
from kshot.errors import DataError
from kshot.files import open_regular

_KINDS = "biufcSU"  # of dtypes: numbers and texts; objects would be addresses in memory


def _dtype(code: Any, *_: Any) -> np.dtype[Any]:
    if not isinstance(code, str):
        raise DataError(f"the pickle holds an array of {code!r:.40}, and only numbers and texts are admitted")
    dtype = np.dtype(code)
    if dtype.kind not in _KINDS:
        raise DataError(f"the pickle holds an array of {dtype}, and only numbers and texts are admitted")
    return dtype


def _empty(*_: Any) -> np.ndarray:
    return np.empty(0, np.uint8)


def _array(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    return np.frombuffer(content, _checked(dtype)).reshape(shape, order=order)


def _scalar(dtype: Any, content: Any) -> Any:
    raw = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(raw, _checked(dtype), count=1)[0]


def _checked(dtype: Any) -> np.dtype[Any]:
    if not isinstance(dtype, np.dtype) or dtype.kind not in _KINDS or dtype.hasobject:
        raise DataError("the pickle holds an array without a proper type")
    return dtype


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise DataError(f"the pickle holds bytes in the encoding {encoding!r}, and only latin1 is admitted")
    return codecs.encode(text, encoding)


def _bytes(*content: Any) -> bytes:
    """As `bytes`, but for a number, which would be a size."""
    if content and isinstance(content[0], int):
        raise DataError(f"the pickle asks for {content[0]} bytes of nothing")
    return bytes(*content)


_ADMITTED: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _dtype,
    "numpy.ndarray": _empty,  # the argument of _reconstruct, which ignores it
    "_codecs.encode": _latin1,  # how Python 3 writes bytes for protocol 2
    "__builtin__.long": int,
}
for _module in ("builtins", "__builtin__"):
    _plain = {list, tuple, dict, set, frozenset, int, float, complex, bool, str}
    _ADMITTED |= {f"{_module}.{kind.__name__}": kind for kind in _plain}
    _ADMITTED |= {f"{_module}.bytes": _bytes, f"{_module}.bytearray": lambda *content: bytearray(_bytes(*content))}
for _core in ("core", "_core"):  # numpy 1 wrote numpy.core and numpy 2 writes numpy._core
    _ADMITTED[f"numpy.{_core}.multiarray._reconstruct"] = _empty
    _ADMITTED[f"numpy.{_core}.multiarray.scalar"] = _scalar
    _ADMITTED[f"numpy.{_core}.numeric._frombuffer"] = _array


class _RestrictedUnpickler(pickle._Unpickler):
    """Admits numpy arrays, dtypes and scalars and the containers of builtins; a pickle may otherwise run any code.

    It is Python's own unpickler in Python: that in C keeps what a pickle numbers in an array of any length that the
    pickle names, and numpy's own reading of types believes what they say of themselves.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _ADMITTED:
            raise DataError(
                f"the pickle asks for {module}.{name}, and only numpy arrays and plain containers are admitted, since "
                f"anything else may run code on this machine; do not open the file: get it again from its publisher"
            )
        return _ADMITTED[f"{module}.{name}"]

    def load_build(self) -> None:
        """Give the latest object its state: an array its values, or a dtype its byte order."""
        state, latest = self.stack.pop(), self.stack[-1]  # type: ignore[attr-defined]
        if isinstance(latest, np.dtype):
            if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
                raise DataError("the pickle holds an array without a proper type")
            ordered = latest.newbyteorder(state[1])
            self.stack[-1] = ordered  # type: ignore[attr-defined]
            memo: dict[int, Any] = self.memo  # type: ignore[attr-defined]
            memo.update({number: ordered for number, value in memo.items() if value is latest})
        elif isinstance(latest, np.ndarray):
            _, shape, dtype, fortran, raw = state
            content = raw.encode("latin1") if isinstance(raw, str) else raw
            checked: Any = (1, shape, _checked(dtype), bool(fortran), content)
            latest.__setstate__(checked)  # which compares the sizes
        else:
            raise DataError(f"the pickle changes {type(latest).__name__}, and only arrays have a state")

    dispatch[pickle.BUILD[0]] = load_build


def load_pickle(file: Path | BinaryIO) -> Any:
    """The content of a pickle made of numpy arrays and plain containers; strings of Python 2 are read as latin1.

    Raises
    ------
    DataError
        If the file is missing, truncated, asks for any other class or function, or holds arrays of objects; it names
        the file.
    """
    if isinstance(file, Path):
        try:
            with open_regular(file) as opened:
                return load_pickle(opened)
        except OSError as error:
            raise DataError(f"cannot read {file}: {error}") from error
    where = getattr(file, "name", "pickle")
    try:
        return _RestrictedUnpickler(file, encoding="latin1").load()
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    except MemoryError:
        raise DataError(f"{where} asks for more memory than there is: {GET_IT_AGAIN}") from None
    except Exception as error:  # damaged pickles raise whatever the operation at the damaged place raises
        raise DataError(f"{where} cannot be read ({error!r:.200}): {GET_IT_AGAIN}") from error
