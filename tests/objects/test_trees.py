import pickle
from dataclasses import dataclass

import pytest
import torch
from torch.utils import _pytree as pytree

from stalegrid.objects import Form, call, mapped, spread, tensors_in
from stalegrid.objects.trees import PLACE


def tree():
    return (torch.ones(2),), {"mask": None, "rest": [torch.zeros(1), 3, "a"]}


def test_a_tree_comes_apart_and_together():
    form, tensors = Form.split(tree())
    assert [tuple(x.shape) for x in tensors] == [(2,), (1,)]
    args, kwargs = form.fill(tensors)
    assert args[0] is tensors[0]
    assert kwargs == {"mask": None, "rest": [tensors[1], 3, "a"]}


def test_forms_compare_and_travel():
    form, _ = Form.split(tree())
    assert pickle.loads(pickle.dumps(form)) == form
    assert pickle.loads(pickle.dumps(PLACE)) is PLACE
    assert Form.split(((torch.ones(2),), {}))[0] != form
    assert Form.split(((torch.ones(2), 1), {}))[0] != Form.split(((torch.ones(2), 2), {}))[0]


def test_a_function_is_called_as_its_form_says():
    form, tensors = Form.split(tree())
    assert call(lambda x, mask, rest: (x, mask, rest[1]), form, tensors) == (tensors[0], None, 3)
    assert call(lambda *x: x, None, tensors) == tensors


def test_tensors_are_mapped_where_they_stand():
    doubled = mapped(lambda x: x * 2, tree())
    assert tensors_in(doubled)[0].tolist() == [2, 2]
    assert doubled[1]["mask"] is None


@pytest.mark.parametrize("output", [{"a": 1}, [1, 2], 3])
def test_only_a_tuple_is_spread(output):
    assert spread(output) == (output,)
    assert spread((1, 2)) == (1, 2)


def test_registered_classes_are_trees():
    @dataclass
    class Output:
        loss: object

    pytree.register_dataclass(Output)
    form, (found,) = Form.split(Output(torch.ones(1)))
    assert form.fill([found]).loss is found
