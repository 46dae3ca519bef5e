import pytest
import torch

from stalegrid.codecs.coding import Coding
from stalegrid.codecs.int8 import Int8
from stalegrid.codecs.topk import TopK
from stalegrid.errors import ProtocolError
from stalegrid.programs import layout_of

TENSORS = (torch.arange(12.0).view(3, 4), torch.tensor([1, 2]), torch.arange(70.0), torch.empty(0))
CODING = Coding(TopK(1.0), False, (layout_of(TENSORS),), ((12, 0, 64, 0),))


def test_what_may_lose_nothing_travels_as_it_is() -> None:
    parts = CODING.encode(TENSORS, CODING.vectors(TENSORS))
    assert layout_of(parts) == CODING.coded[0]
    assert torch.equal(parts[2], TENSORS[1])
    assert torch.equal(parts[5], torch.arange(64.0, 70.0))
    for made, sent in zip(CODING.decode(parts), TENSORS, strict=True):
        assert torch.equal(made, sent)


def test_integers_and_the_rest_of_a_vector_are_exact_beside_a_loss() -> None:
    lossy = Coding(Int8(), False, CODING.layouts, CODING.spans)
    made = lossy.decode(lossy.encode(TENSORS, lossy.vectors(TENSORS)))
    assert not torch.equal(made[0], TENSORS[0])
    assert torch.equal(made[1], TENSORS[1])
    assert torch.equal(made[2][64:], TENSORS[2][64:])


def test_what_arrives_lies_in_memory_as_it_is_due() -> None:
    images = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    coding = Coding(TopK(1.0), False, (layout_of((images,)),), ((120,),))
    (made,) = coding.decode(coding.encode((images,), coding.vectors((images,))))
    assert made.stride() == images.stride() != images.contiguous().stride()
    assert torch.equal(made, images)


def test_shapes_are_told_apart_by_what_travels() -> None:
    small, large = torch.ones(64), torch.ones(200)
    coding = Coding(Int8(), False, (layout_of((large,)), layout_of((small,))), ((200,), (64,)))
    assert not coding.alike
    for vector in (small, large):
        (made,) = coding.decode(coding.encode((vector,), coding.vectors((vector,))))
        assert made.shape == vector.shape
    assert Coding(
        TopK(0.01), False, (layout_of((torch.ones(99),)), layout_of((torch.ones(101),))), ((99,), (101,))
    ).alike
    with pytest.raises(ProtocolError, match="another content than its edge carries"):
        coding.vectors((torch.ones(3),))


def test_bytes_that_a_sender_keeps() -> None:
    assert CODING.unsent == 0
    assert Coding(TopK(1.0), True, CODING.layouts, CODING.spans).unsent == 4 * 76


def test_flags_say_what_stands_for_nothing() -> None:
    tensors = (torch.ones(3), torch.ones(2), torch.tensor([1, 0], dtype=torch.uint8), torch.ones(1))
    flagged = Coding(TopK(1.0), True, (layout_of(tensors),), ((3, 2, 0, 0),), flagged=True)
    assert flagged.absent(tensors) == {1}
