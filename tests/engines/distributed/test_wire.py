import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stalegrid.engines.distributed.wire import FRAME, HEAD, Head, Wire, framed
from stalegrid.errors import ProtocolError
from stalegrid.programs.actions import Edge, Tag
from stalegrid.programs.grid import Unit
from stalegrid.programs.messages import ALIGNMENT, END, Message, TensorSpec, layout_of

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


def packed(wire: Wire, message: Message, size: int = FRAME) -> Tensor:
    """Return the bytes of a message that went in frames full of rubbish."""
    frame = torch.full((size,), 0xA5, dtype=torch.uint8)
    return torch.cat([part.clone() for part in framed(wire.pack(message, 7), lambda: frame)])


def unpacked(wire: Wire, came: Tensor, edge: Edge = EDGE) -> Message:
    head = Head.read(came)
    assert head.edge == 7
    tag = Tag(edge, head.number)
    assert wire.content(tag, head) == len(came) - HEAD
    return wire.unpack(came[HEAD:], tag, head)


def travel(*tensors: Tensor, wire: Wire | None = None, size: int = FRAME) -> Message:
    """Pack and unpack."""
    wire = wire or Wire(layout_of(tensors))
    return unpacked(wire, packed(wire, Message(TAG, 3, tensors), size))


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
    size=st.integers(HEAD, 3000),
)
def test_any_list_of_tensors_arrives(shapes: list[tuple[int, ...]], dtypes: list[torch.dtype], size: int) -> None:
    sent = [numbers(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=False)]
    got = travel(*sent, size=size).tensors
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


@pytest.mark.parametrize(
    "sent", [torch.complex(numbers((5,), torch.float32), torch.ones(5)).conj(), torch._neg_view(torch.ones(5))]
)
def test_what_is_only_marked_as_conjugate_or_negative_arrives_as_its_numbers(sent: Tensor) -> None:
    (got,) = travel(sent).tensors
    assert torch.equal(got, sent.resolve_conj().resolve_neg())


def test_every_tensor_starts_on_a_cache_line() -> None:
    sent = (numbers((3,), torch.int8), numbers((0,), torch.float64), numbers((33,), torch.float32))
    wire = Wire(layout_of(sent))
    assert wire.nbytes == ALIGNMENT * (1 + 1 + 0 + 3)
    content = packed(wire, Message(TAG, 0, sent))[HEAD:].clone()
    head = Head(7, 5, 0, 0)
    starts = [t.data_ptr() - content.data_ptr() for t in wire.unpack(content, TAG, head).tensors if t.numel()]
    assert starts == [0, ALIGNMENT]


def test_a_message_without_tensors_is_a_head() -> None:
    assert Wire(()).nbytes == HEAD
    assert travel().tensors == ()


@pytest.mark.parametrize("size", [HEAD, 100, 1000, 1024, FRAME])
def test_frames_are_full_but_for_the_last(size: int) -> None:
    sent = numbers((240,), torch.float32)
    wire = Wire(layout_of([sent]))
    frames: list[Tensor] = []

    def frame() -> Tensor:
        frames.append(torch.zeros(size, dtype=torch.uint8))
        return frames[-1]

    parts = [len(part) for part in framed(wire.pack(Message(TAG, 0, (sent,)), 7), frame)]
    assert sum(parts) == wire.nbytes == 1024
    assert len(frames) == len(parts) == -(-1024 // size)
    assert parts[:-1] == [size] * (len(parts) - 1)
    assert 0 < parts[-1] <= size


def test_a_message_is_copied_into_frames_and_nowhere_else() -> None:
    sent = numbers((4,), torch.float32)
    _, piece, *_ = Wire(layout_of([sent])).pack(Message(TAG, 0, (sent,)), 7)
    assert piece.data_ptr() == sent.data_ptr()
    before = sent.clone()
    came = packed(wire := Wire(layout_of([sent])), Message(TAG, 0, (sent,)))
    sent.zero_()
    assert torch.equal(unpacked(wire, came).tensors[0], before)


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
    with pytest.raises(ProtocolError, match=r"activation \(0,0\)->\(0,1\) #5 has another content"):
        packed(wire, Message(TAG, 0, found))


@pytest.mark.parametrize("layout", [(), layout_of([torch.zeros(2, 3), torch.zeros(4, dtype=torch.int64)])])
def test_the_last_message_of_an_edge_has_no_content(layout: tuple[TensorSpec, ...]) -> None:
    wire = Wire(layout)
    last = Message(Tag(EDGE, END), 9, ())
    came = packed(wire, last)
    assert len(came) == HEAD
    assert unpacked(wire, came) == last


@pytest.mark.parametrize("version", [0, 1, 2**40])
def test_no_version_of_a_message_with_content_is_taken_for_the_end(version: int) -> None:
    wire = Wire(layout_of([torch.zeros(3)]))
    assert unpacked(wire, packed(wire, Message(TAG, version, (torch.ones(3),)))).version == version
    with pytest.raises(ProtocolError, match="another content"):
        packed(wire, Message(TAG, version, ()))


@pytest.mark.parametrize("size", [3, 9, 1])
def test_a_message_has_one_of_several_layouts_and_takes_no_more_than_that(size: int) -> None:
    wire = Wire(*(layout_of([torch.zeros(n), torch.zeros(n, 5)]) for n in (3, 9, 1)))
    assert wire.nbytes == ALIGNMENT * (1 + 1 + 3)
    sent = numbers((size,), torch.float32), numbers((size, 5), torch.float32)
    assert all(map(same, travel(*sent, wire=wire).tensors, sent))
    assert len(packed(wire, Message(TAG, 0, sent))) == ALIGNMENT * (1 + 1 + {3: 1, 9: 3, 1: 1}[size])
    with pytest.raises(ProtocolError, match=r"another content .* due: \(\(\(3,\).* or \(\(\(9,\).*training.shapes"):
        packed(wire, Message(TAG, 0, (torch.zeros(2), torch.zeros(2, 5))))


def test_layouts_of_the_same_shapes_keep_their_memory_orders() -> None:
    rows, columns = torch.arange(6.0).reshape(2, 3), torch.arange(6.0).reshape(3, 2).T
    wire = Wire(layout_of([rows]), layout_of([columns]))
    for tensor in (rows, columns):
        (got,) = travel(tensor, wire=wire).tensors
        assert torch.equal(got, tensor)
        assert got.stride() == tensor.stride()


@pytest.mark.parametrize("number", [2, -1])
def test_a_number_of_no_layout_is_refused(number: int) -> None:
    wire = Wire(layout_of([torch.zeros(3)]), layout_of([torch.zeros(4)]))
    with pytest.raises(ProtocolError, match=rf"a message of no layout \(number: {number}, of 2\)"):
        wire.content(TAG, Head.read(Head(7, 5, 0, number).written()))
