import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stalegrid.engines.distributed.wire import Wire
from stalegrid.errors import ProtocolError
from stalegrid.programs.actions import Edge, Tag
from stalegrid.programs.grid import Unit
from stalegrid.programs.messages import ALIGNMENT, END, Message, TensorSpec, layout_of

CPU = torch.device("cpu")
EDGE = Edge("activation", Unit(0, 0), Unit(0, 1))
TAG = Tag(EDGE, 5)
DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
]


def numbers(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(-100, 100, shape, generator=draw).to(dtype)


def travel(*tensors: Tensor, wire: Wire | None = None) -> Message:
    """Pack into a buffer full of rubbish and unpack."""
    wire = wire or Wire(layout_of(tensors))
    buffer = torch.full((wire.nbytes,), 0xA5, dtype=torch.uint8)
    wire.pack(Message(TAG, 3, tensors), buffer)
    return wire.unpack(buffer, TAG, CPU)


def same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_of_every_type_arrive_as_they_were(dtype: torch.dtype) -> None:
    sent = (numbers((3, 5), dtype), numbers((), dtype), numbers((7,), dtype))
    message = travel(*sent)
    assert (message.tag, message.version) == (TAG, 3)
    assert len(message.tensors) == 3
    assert all(same(a, b) for a, b in zip(sent, message.tensors, strict=True))


@settings(deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 6), max_size=4).map(tuple), max_size=5),
    dtypes=st.lists(st.sampled_from(DTYPES), min_size=5, max_size=5),
)
def test_any_list_of_tensors_arrives(shapes: list[tuple[int, ...]], dtypes: list[torch.dtype]) -> None:
    sent = [numbers(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=False)]
    got = travel(*sent).tensors
    assert len(got) == len(sent)
    assert all(same(a, b) for a, b in zip(sent, got, strict=True))


def test_special_values_arrive() -> None:
    sent = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])
    (got,) = travel(sent).tensors
    assert torch.equal(got.view(torch.int32), sent.view(torch.int32))


@pytest.mark.parametrize(
    "sent",
    [
        numbers((2, 3, 4, 5), torch.float32).contiguous(memory_format=torch.channels_last),
        numbers((3, 4), torch.float32).t(),
        numbers((2, 3, 4), torch.float64).permute(2, 0, 1),
    ],
)
def test_memory_order_arrives(sent: Tensor) -> None:
    (got,) = travel(sent).tensors
    assert same(got, sent)
    assert got.stride() == sent.stride()


@pytest.mark.parametrize(
    "sent",
    [
        numbers((1, 5), torch.float32).expand(4, 5),
        numbers((6, 8), torch.float32)[::2, 1::3],
        numbers((2, 3, 4, 5), torch.float32)[:, :, 1:].contiguous(memory_format=torch.channels_last),
    ],
)
def test_what_is_not_dense_arrives_dense(sent: Tensor) -> None:
    (got,) = travel(sent).tensors
    assert same(got, sent)
    assert got.stride() == TensorSpec.of(sent).stride


def test_another_memory_order_than_the_layout_arrives_in_that_of_the_layout() -> None:
    due = numbers((2, 3, 4, 5), torch.float32).contiguous(memory_format=torch.channels_last)
    (got,) = travel(due.contiguous(), wire=Wire(layout_of([due]))).tensors
    assert same(got, due)
    assert got.stride() == due.stride()


def test_every_tensor_starts_on_a_cache_line_of_the_buffer() -> None:
    sent = (numbers((3,), torch.int8), numbers((0,), torch.float64), numbers((33,), torch.float32))
    wire = Wire(layout_of(sent))
    assert wire.nbytes == ALIGNMENT * (1 + 1 + 0 + 3)
    buffer = torch.empty(wire.nbytes, dtype=torch.uint8)
    wire.pack(Message(TAG, 0, sent), buffer)
    starts = [t.data_ptr() - buffer.data_ptr() for t in wire.unpack(buffer, TAG, CPU).tensors if t.numel()]
    assert starts == [ALIGNMENT, 2 * ALIGNMENT]


def test_a_message_without_tensors_is_a_header() -> None:
    assert Wire(()).nbytes == ALIGNMENT
    assert travel().tensors == ()


def test_packing_copies() -> None:
    sent = numbers((4,), torch.float32)
    wire = Wire(layout_of([sent]))
    buffer = torch.empty(wire.nbytes, dtype=torch.uint8)
    wire.pack(Message(TAG, 0, (sent,)), buffer)
    before = sent.clone()
    sent.zero_()
    assert torch.equal(wire.unpack(buffer, TAG, CPU).tensors[0], before)


@pytest.mark.parametrize(
    "found",
    [
        (torch.zeros(3, 2),),
        (torch.zeros(6),),
        (torch.zeros(2, 3, dtype=torch.float64),),
        (torch.zeros(2, 3), torch.zeros(1)),
        (),
    ],
)
def test_another_content_than_the_layout_is_refused(found: tuple[Tensor, ...]) -> None:
    wire = Wire(layout_of([torch.zeros(2, 3)]))
    buffer = torch.empty(wire.nbytes, dtype=torch.uint8)
    with pytest.raises(ProtocolError, match=r"activation \(0,0\)->\(0,1\) #5 has another content"):
        wire.pack(Message(TAG, 0, found), buffer)


def test_another_message_than_the_due_one_is_refused() -> None:
    wire = Wire(())
    buffer = torch.empty(wire.nbytes, dtype=torch.uint8)
    wire.pack(Message(TAG, 0, ()), buffer)
    with pytest.raises(ProtocolError, match="brought message 5 where 6 was due"):
        wire.unpack(buffer, Tag(EDGE, 6), CPU)


@pytest.mark.parametrize("layout", [(), layout_of([torch.zeros(2, 3), torch.zeros(4, dtype=torch.int64)])])
def test_the_last_message_of_an_edge_has_no_content_and_may_come_at_any_time(layout: tuple[TensorSpec, ...]) -> None:
    wire = Wire(layout)
    buffer = torch.full((wire.nbytes,), 0xA5, dtype=torch.uint8)
    wire.pack(Message(Tag(EDGE, END), END, ()), buffer)
    assert (buffer[ALIGNMENT:] == 0xA5).all(), "a header is all that is written"
    for index in (0, 5, 10**9):
        assert wire.unpack(buffer, Tag(EDGE, index), CPU) == Message(Tag(EDGE, END), END, ())


def test_a_buffer_that_carried_the_last_message_carries_others_as_before() -> None:
    wire = Wire(layout_of([torch.zeros(3)]))
    buffer = torch.empty(wire.nbytes, dtype=torch.uint8)
    wire.pack(Message(Tag(EDGE, END), END, ()), buffer)
    wire.pack(Message(TAG, 0, (torch.ones(3),)), buffer)
    made = wire.unpack(buffer, TAG, CPU)
    assert (made.tag, made.version) == (TAG, 0)
    assert torch.equal(made.tensors[0], torch.ones(3))


@pytest.mark.parametrize("version", [0, 1, 2**40])
def test_no_version_of_a_message_with_content_is_taken_for_the_end(version: int) -> None:
    wire = Wire(layout_of([torch.zeros(3)]))
    buffer = torch.empty(wire.nbytes, dtype=torch.uint8)
    wire.pack(Message(TAG, version, (torch.ones(3),)), buffer)
    assert wire.unpack(buffer, TAG, CPU).version == version
    with pytest.raises(ProtocolError, match="another content"):
        wire.pack(Message(TAG, version, ()), buffer)


@pytest.mark.parametrize("size", [3, 9, 1])
def test_a_message_has_one_of_several_layouts_in_a_buffer_that_fits_the_largest(size: int) -> None:
    wire = Wire(*(layout_of([torch.zeros(n), torch.zeros(n, 5)]) for n in (3, 9, 1)))
    assert wire.nbytes == ALIGNMENT * (1 + 1 + 3)
    sent = numbers((size,), torch.float32), numbers((size, 5), torch.float32)
    assert all(map(same, travel(*sent, wire=wire).tensors, sent))
    buffer = torch.empty(wire.nbytes, dtype=torch.uint8)
    with pytest.raises(ProtocolError, match=r"another content .* due: \(\(\(3,\).* or \(\(\(9,\).*training.shapes"):
        wire.pack(Message(TAG, 0, (torch.zeros(2), torch.zeros(2, 5))), buffer)


def test_layouts_of_the_same_shapes_keep_their_memory_orders() -> None:
    rows, columns = torch.arange(6.0).reshape(2, 3), torch.arange(6.0).reshape(3, 2).T
    wire = Wire(layout_of([rows]), layout_of([columns]))
    for tensor in (rows, columns):
        (got,) = travel(tensor, wire=wire).tensors
        assert torch.equal(got, tensor)
        assert got.stride() == tensor.stride()


def test_a_number_of_no_layout_is_refused() -> None:
    wire = Wire(layout_of([torch.zeros(3)]), layout_of([torch.zeros(4)]))
    buffer = torch.empty(wire.nbytes, dtype=torch.uint8)
    wire.pack(Message(TAG, 0, (torch.ones(4),)), buffer)
    for number in (2, -1):
        buffer[16:24].view(torch.int64)[0] = number
        with pytest.raises(ProtocolError, match=rf"a message of no layout \(number: {number}, of 2\)"):
            wire.unpack(buffer, TAG, CPU)
