"""The door to the device: recorded, read and fed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor

from featviz_pl.numerics.device_transfer import TransferError, Transfers, numbers_on, to_device
from featviz_pl.numerics.resampling import affine_sample

CPU, META = torch.device("cpu"), torch.device("meta")


def sent(*values: float) -> list[Tensor]:
    return [to_device(torch.tensor([float(value)]), CPU) for value in values]


def recorded(*values: float) -> Transfers:
    transfers = Transfers()
    with transfers.recording():
        sent(*values)
    return transfers


def test_the_plain_door_only_moves() -> None:
    held = torch.ones(2, dtype=torch.float64)
    assert to_device(held, CPU) is held
    assert to_device(held, META).device.type == "meta"


def test_numbers_have_the_precision_asked_for_whatever_the_program_s_default() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        assert numbers_on(CPU, [0.1], torch.float32).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
    assert numbers_on(CPU, (3, 5)).dtype == torch.int64


def test_a_recorded_tensor_is_not_the_one_that_was_sent() -> None:
    transfers, held = Transfers(), torch.tensor([1.0])
    with transfers.recording():
        buffer = to_device(held, CPU)
    held.fill_(7.0)
    assert buffer.item() == 1.0


def test_readers_get_the_same_memory_every_time_and_what_was_fed_last() -> None:
    transfers = recorded(1.0, 2.0)
    with transfers.reading():
        first = sent(8.0, 9.0)
    assert [own.item() for own in first] == [1.0, 2.0]
    with transfers.feeding():
        shapes = [to_device(torch.tensor([value]), META) for value in (3.0, 4.0)]
    assert all(shape.is_meta for shape in shapes)
    with transfers.reading():
        again = sent(8.0, 9.0)
    assert [own.item() for own in again] == [3.0, 4.0]
    assert [own.data_ptr() for own in again] == [own.data_ptr() for own in first]


def test_those_that_are_not_fed_stay() -> None:
    transfers = recorded(1.0, 2.0)
    with transfers.feeding():
        sent(3.0)
    with transfers.reading():
        assert [own.item() for own in sent(0.0, 0.0)] == [3.0, 2.0]


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_transfers_is_noticed_when_they_are_read(count: int) -> None:
    transfers = recorded(1.0, 2.0)
    with pytest.raises(TransferError, match="2 tensors went to the device at first"), transfers.reading():
        sent(*range(count))


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_transfers_is_noticed_when_they_are_fed(count: int) -> None:
    transfers = recorded(1.0, 2.0, 3.0, 4.0)
    with transfers.feeding():
        sent(5.0, 6.0)
    with pytest.raises(TransferError, match=f"2 tensors were drawn at first, and {count} now"), transfers.feeding():
        sent(*range(count))


@pytest.mark.parametrize("other", [torch.ones(2), torch.ones(1, dtype=torch.float64), torch.ones(1, 1)], ids=str)
@pytest.mark.parametrize("context", [Transfers.reading, Transfers.feeding])
def test_another_shape_or_precision_is_noticed(
    other: Tensor, context: Callable[[Transfers], AbstractContextManager[None]]
) -> None:
    message = r"tensor 1 that goes to the device was \(1,\) of torch.float32 at first"
    with pytest.raises(TransferError, match=message), context(recorded(1.0)):
        to_device(other, CPU)


def test_recording_again_forgets() -> None:
    transfers = recorded(1.0, 2.0)
    with transfers.feeding():
        sent(1.0)
    with transfers.recording():
        sent(5.0)
    with transfers.feeding():
        pass
    with transfers.reading():
        assert sent(0.0)[0].item() == 5.0


def test_the_door_is_the_plain_one_after_an_error() -> None:
    held = torch.ones(1)
    with pytest.raises(KeyError), Transfers().recording():
        raise KeyError
    assert to_device(held, CPU) is held


def test_other_threads_have_a_door_of_their_own() -> None:
    held, found = torch.ones(1), list[Tensor]()
    with Transfers().recording():
        thread = threading.Thread(target=lambda: found.append(to_device(held, CPU)))
        thread.start()
        thread.join()
    assert found[0] is held


@pytest.mark.parametrize("arguments", [{}, {"border": "constant"}, {"reach": 2}], ids=str)
def test_a_sampling_on_the_meta_device_has_the_shape_of_the_real_one(arguments: dict[str, object]) -> None:
    image, matrix = torch.rand(2, 3, 5, 6, dtype=torch.float64), torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    real = affine_sample(image, matrix, (4, 7), **arguments)  # type: ignore[arg-type]
    shape = affine_sample(image.to("meta"), matrix, (4, 7), **arguments)  # type: ignore[arg-type]
    assert (shape.shape, shape.dtype, shape.is_meta) == (real.shape, real.dtype, True)
