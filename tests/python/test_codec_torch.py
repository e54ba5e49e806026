"""Tensors of PyTorch through the codec. Skipped where PyTorch is not installed."""

from __future__ import annotations

import ctypes
import gc
import math
import mmap
import threading
import weakref
from typing import Any

import numpy as np
import pytest
from codec_messages import (
    ALIGNMENT,
    NUMPY_DTYPES,
    aligned,
    assert_same,
    assert_same_tensor,
    copied,
    decode,
    encode,
    run_python,
    viewed,
)

from penstock.errors import UnsupportedType


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


TORCH_DTYPES = [
    *NUMPY_DTYPES,
    *("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"),
    "float8_e8m0fnu",
]


@pytest.mark.parametrize("name", TORCH_DTYPES)
def test_torch_dtypes_and_shapes(torch: Any, name: str) -> None:
    for shape in ((), (0,), (5,), (2, 3), (2, 0, 3), (2, 1, 3, 4)):
        value = (torch.arange(math.prod(shape)).reshape(shape) % 5).to(torch.float32)
        value = value.to(getattr(torch, name))
        for received in (copied(value), viewed({"a": [value]})["a"][0]):
            assert_same_tensor(torch, value, received)
            assert received.stride() == value.stride() or received.numel() <= 1
            assert received.numel() == 0 or received.data_ptr() % ALIGNMENT == 0


def test_torch_layouts(torch: Any) -> None:
    base = torch.arange(120, dtype=torch.int32).reshape(2, 3, 4, 5)
    for value in (
        base.permute(3, 2, 1, 0),
        base[:, ::2],
        base[..., 1],
        base.permute(1, 0, 3, 2),
        base.expand(3, 2, 3, 4, 5),
        base.flip(0),
        base.to(memory_format=torch.channels_last),
    ):
        assert_same_tensor(torch, value, copied(value))
    fortran = base.permute(3, 2, 1, 0)
    assert copied(fortran).stride() == fortran.stride()
    assert viewed(fortran).stride() == fortran.stride()


def test_torch_tensors_with_history_and_lazy_bits(torch: Any) -> None:
    grad = torch.ones(3, requires_grad=True)
    for value in (grad, grad * 2, torch.nn.Parameter(torch.ones(2)), grad.detach()):
        received = copied(value)
        assert_same_tensor(torch, value, received)
        assert not received.requires_grad
    z = torch.complex(torch.tensor([1.0, 2.0]), torch.tensor([3.0, -4.0]))
    for value in (z.conj(), z.conj().imag, z.mH if z.ndim == 2 else z, torch._neg_view(z.real)):
        assert_same_tensor(torch, value, copied(value))
        assert not copied(value).is_conj()
        assert not copied(value).is_neg()


def test_torch_copies_are_the_receivers_own(torch: Any) -> None:
    message = aligned(encode(torch.arange(10)))
    value = decode(message)
    message[:] = 255
    value += 1
    assert value.tolist() == list(range(1, 11))


def test_torch_views_keep_their_owner(torch: Any) -> None:
    room = mmap.mmap(-1, 4096)
    message = encode({"a": torch.arange(8)})
    room[: len(message)] = message
    watched = weakref.ref(room)
    value = decode(room, copy=False)["a"]
    start = ctypes.addressof(ctypes.c_char.from_buffer(room))
    assert start < value.data_ptr() < start + 4096
    del room
    part = value[2:4]
    del value
    gc.collect()
    assert watched() is not None
    assert part.tolist() == [2, 3]
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    del part
    gc.collect()
    assert watched() is None


def test_torch_tensors_that_are_not_sent(torch: Any) -> None:
    class Special(torch.Tensor):
        pass

    for value, what in (
        (torch.eye(3).to_sparse(), "to_dense"),
        (torch.eye(3).to_sparse_csr(), "to_dense"),
        (torch.empty(3, device="meta"), "device 'meta': move it to the CPU"),
        (torch.ones(3).as_subclass(Special), "subclass of torch.Tensor"),
        (torch.ones(2, dtype=torch.complex32), "dtype"),
    ):
        with pytest.raises(UnsupportedType, match=what):
            encode({"t": value})
    assert_same_tensor(torch, torch.ones(2), copied(torch.ones(2)))


def test_torch_tensors_inside_messages(torch: Any) -> None:
    value = {"x": torch.ones(2, 3), "y": [np.arange(3), torch.zeros(4, dtype=torch.bfloat16)]}
    received = copied(value)
    assert_same_tensor(torch, value["x"], received["x"])
    assert_same(value["y"][0], received["y"][0])
    assert_same_tensor(torch, value["y"][1], received["y"][1])


def test_a_tensor_is_refused_as_key(torch: Any) -> None:
    with pytest.raises(UnsupportedType, match=r"has a key of type torch\.Tensor"):
        encode({torch.ones(1): 1})


@pytest.mark.full
def test_older_pytorch(torch: Any) -> None:
    """Without the exchange table, which came late: attributes in, a capsule out."""
    out = run_python("""
        import sys
        import torch
        if hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
            del torch.Tensor.__dlpack_c_exchange_api__
        from penstock import _core
        import numpy as np
        import gc
        z = torch.complex(torch.tensor([1.0, 2.0]), torch.tensor([3.0, -4.0]))
        base = torch.arange(24).reshape(2, 3, 4)
        for value in (
            base, base.permute(2, 1, 0), base[:, ::2], base[:0], torch.tensor(3.5), z.conj(),
            z.conj().imag, torch.ones(3, requires_grad=True),
            torch.ones(2, 2, dtype=torch.bfloat16), torch.ones(5).to(torch.float8_e4m3fn),
            torch.tensor([True, False]), z,
        ):
            message = _core.codec_encode({"t": value})
            room = np.zeros(len(message) + 64, np.uint8)
            start = -room.ctypes.data % 64
            place = room[start : start + len(message)]
            place[:] = np.frombuffer(message, np.uint8)
            before = sys.getrefcount(place)
            for copy in (True, False):
                got = _core.codec_decode(place, copy=copy)["t"]
                assert type(got) is torch.Tensor and got.dtype == value.dtype, got
                assert got.shape == value.shape, (got.shape, value.shape)
                assert torch.equal(got.float().real, value.detach().resolve_conj().float().real)
                assert not got.is_complex() or torch.equal(got, value.resolve_conj())
                del got
            gc.collect()
            assert sys.getrefcount(place) == before
        for value in (torch.eye(3).to_sparse(), torch.empty(3, device="meta"),
                      torch.ones(2, dtype=torch.complex32)):
            try:
                _core.codec_encode(value)
                raise AssertionError(value)
            except TypeError as error:
                print(error)
    """)
    assert "to_dense" in out
    assert "move it to the CPU" in out
    assert "torch.complex32" in out


def test_a_receiver_without_pytorch_gets_numpy(torch: Any) -> None:
    out = run_python(f"""
        import sys
        sys.modules["torch"] = None
        from penstock import _core
        for _ in range(2):
            value = _core.codec_decode({encode([torch.ones(3), 7])!r})
            print(type(value[0]).__name__, value[0].dtype, value[0].tolist())
    """)
    assert out.splitlines() == ["ndarray float32 [1.0, 1.0, 1.0]"] * 2


def test_pytorch_is_imported_by_the_first_tensor_only(torch: Any) -> None:
    out = run_python(f"""
        import sys
        from penstock import _core
        import numpy as np
        _core.codec_decode(_core.codec_encode({{"a": np.arange(3), "b": np.float32(1)}}))
        assert "torch" not in sys.modules
        print(type(_core.codec_decode({encode(torch.ones(3))!r})).__name__)
    """)
    assert out == "Tensor"


@pytest.mark.full
def test_tensors_may_die_with_the_interpreter(torch: Any) -> None:
    assert (
        run_python(f"""
        from penstock import _core
        import atexit, threading
        kept = _core.codec_decode({encode([torch.ones(3), np.arange(3)])!r})
        _core.kept = kept
        print("ok")
    """)
        == "ok"
    )
