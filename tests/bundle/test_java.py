"""Strings as onnxruntime's Java binding hands them over, by the C API: JNI gives modified UTF-8.

There, U+0000 is two bytes, and a character above U+FFFF is two surrogates of three bytes each.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edgeleaf import QueryEncoder
from edgeleaf.bundle.feed import utf8_rows
from edgeleaf.bundle.manifest import QUERY_ENCODER

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="loads libonnxruntime.so from the wheel")

SAME = ("where is my parcel?", "Grüße 中文 e\u0301", "", "\ufffd")
CHANGED = ("lost parcel 😀", "𠮷野家", "👩‍👩‍👧‍👦", "parcel\0 lost")
STRING, UINT8 = 8, 2
API_VERSION = 17


class CApi:
    """A fused file in onnxruntime's C API. The numbers are places in ``OrtApi``, which never change."""

    def __init__(self, file: Path) -> None:
        library = ctypes.CDLL(str(next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"))))
        library.OrtGetApiBase.restype = ctypes.POINTER(ctypes.c_void_p)
        get_api = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)(library.OrtGetApiBase()[0])
        self._functions = ctypes.cast(get_api(API_VERSION), ctypes.POINTER(ctypes.c_void_p))
        self._environment, self._options, self._session = (ctypes.c_void_p() for _ in range(3))
        self._allocator = ctypes.c_void_p()
        self._do(3, 4, b"edgeleaf", ctypes.byref(self._environment))  # CreateEnv, fatal errors only
        self._do(10, ctypes.byref(self._options))  # CreateSessionOptions
        self._do(7, self._environment, str(file).encode(), self._options, ctypes.byref(self._session))  # CreateSession
        self._do(78, ctypes.byref(self._allocator))  # GetAllocatorWithDefaultOptions

    def close(self) -> None:
        for place, handle in ((95, self._session), (100, self._options), (92, self._environment)):
            ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._functions[place])(handle)  # Release...

    def encode_strings(self, strings: list[bytes]) -> np.ndarray:
        """Run ``text``, filled with these C strings."""
        tensor = self._tensor(STRING, [len(strings)])
        self._do(52, tensor, (ctypes.c_char_p * len(strings))(*strings), ctypes.c_size_t(len(strings)))
        return self._run(b"text", tensor, len(strings))

    def encode_bytes(self, rows: np.ndarray) -> np.ndarray:
        """Run ``utf8``, uint8 [batch, bytes]."""
        tensor, data = self._tensor(UINT8, list(rows.shape)), ctypes.c_void_p()
        self._do(51, tensor, ctypes.byref(data))  # GetTensorMutableData
        ctypes.memmove(data, rows.tobytes(), rows.size)
        return self._run(b"utf8", tensor, len(rows))

    def _tensor(self, kind: int, shape: list[int]) -> ctypes.c_void_p:
        tensor, sizes = ctypes.c_void_p(), (ctypes.c_int64 * len(shape))(*shape)
        self._do(48, self._allocator, sizes, ctypes.c_size_t(len(shape)), kind, ctypes.byref(tensor))
        return tensor

    def _run(self, name: bytes, tensor: ctypes.c_void_p, rows: int) -> np.ndarray:
        names, outputs = (ctypes.c_char_p * 1)(name), (ctypes.c_char_p * 1)(b"embedding")
        given, result, data = (ctypes.c_void_p * 1)(tensor), ctypes.c_void_p(), ctypes.c_void_p()
        one = ctypes.c_size_t(1)
        self._do(9, self._session, None, names, given, one, outputs, one, ctypes.byref(result))
        self._do(51, result, ctypes.byref(data))
        shape, width = ctypes.c_void_p(), (ctypes.c_int64 * 2)()
        self._do(65, result, ctypes.byref(shape))  # GetTensorTypeAndShape
        self._do(62, shape, width, ctypes.c_size_t(2))  # GetDimensions
        assert width[0] == rows
        vectors = np.ctypeslib.as_array(ctypes.cast(data, ctypes.POINTER(ctypes.c_float)), (rows, width[1]))
        return vectors.copy()

    def _do(self, place: int, *arguments: Any) -> None:
        status = ctypes.CFUNCTYPE(ctypes.c_void_p, *(_kind(argument) for argument in arguments))(
            self._functions[place]
        )(*arguments)
        if status:
            message = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)(self._functions[2])(status)
            raise RuntimeError(message.decode(errors="replace"))


def _kind(argument: Any) -> Any:
    if isinstance(argument, int):
        return ctypes.c_int
    return ctypes.c_size_t if isinstance(argument, ctypes.c_size_t) else ctypes.c_void_p


def modified_utf8(text: str) -> bytes:
    """What JNI's GetStringUTFChars gives for a string of Java."""
    halves = text.encode("utf-16-le")
    units = [chr(int.from_bytes(halves[at : at + 2], "little")) for at in range(0, len(halves), 2)]
    return b"".join(b"\xc0\x80" if unit == "\0" else unit.encode("utf-8", "surrogatepass") for unit in units)


def opened(bundle: Path) -> Iterator[CApi]:
    api = CApi(bundle / QUERY_ENCODER)
    yield api
    api.close()


@pytest.fixture(scope="module")
def strings(bundle: Path) -> Iterator[CApi]:
    yield from opened(bundle)


@pytest.fixture(scope="module")
def utf8(request: pytest.FixtureRequest) -> Iterator[CApi]:
    yield from opened(request.getfixturevalue("utf8_bundle"))


def test_what_java_hands_over() -> None:
    assert [modified_utf8(text) == text.encode() for text in (*SAME, *CHANGED)] == [True] * 4 + [False] * 4
    assert modified_utf8("😀") == b"\xed\xa0\xbd\xed\xb8\x80"


def test_most_strings_of_java_are_strings(strings: CApi, bundle: Path) -> None:
    found = strings.encode_strings([modified_utf8(text) for text in SAME])
    np.testing.assert_array_equal(found, QueryEncoder.load(bundle).encode(SAME))


@pytest.mark.parametrize("text", CHANGED[:3])  # onnxruntime 1.20 lets the other form of U+0000 pass
def test_an_emoji_of_java_fails_in_the_file_that_takes_strings(strings: CApi, text: str) -> None:
    """One such text fails the whole batch."""
    for batch in ([text], ["where is my parcel?", text]):
        with pytest.raises(RuntimeError, match=re.compile("invalid utf8", re.IGNORECASE)):
            strings.encode_strings([modified_utf8(one) for one in batch])


def test_the_file_that_takes_bytes_gives_the_same_vectors(utf8: CApi, tiny_bundle: Path, utf8_bundle: Path) -> None:
    texts = [*SAME, *CHANGED]
    expected = QueryEncoder.load(tiny_bundle).encode(texts)
    np.testing.assert_array_equal(QueryEncoder.load(utf8_bundle).encode(texts), expected)
    np.testing.assert_array_equal(utf8.encode_bytes(utf8_rows(texts)), expected)
    for row, text in enumerate(texts):
        np.testing.assert_array_equal(utf8.encode_bytes(utf8_rows([text]))[0], expected[row])
