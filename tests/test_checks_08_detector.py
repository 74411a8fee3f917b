"The checks behind the exercises of lesson 08, detector."
import math

import torch
import torch.nn.functional as F
from checking import assert_check
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder, Matcher

from vlground import checks_labels as checks
from vlground.core import torch_rng


def assign(iou, high, low, rescue=True, touched=True, ties=True, own=True, first=False, nothing=-1, strict=False, gap=-2):
    "Faster R-CNN's rule, with a switch for each part that can be got wrong."
    if not len(iou): return torch.full((iou.shape[1],), -1)
    value, thing = iou.max(0)
    if first: thing = (iou >= high).float().argmax(0)
    positive = value > high if strict else value >= high
    result = torch.where(positive, thing, torch.where(value < low, nothing, gap))
    for row, each in enumerate(iou if rescue else ()):
        best = each == each.max() if ties else torch.arange(len(each)) == each.argmax()
        if touched: best &= each > 0
        result = torch.where(best, thing if own else row, result)
    return result


def test_check_assign_anchors():
    assert_check(checks.check_assign_anchors, assign, [
        (lambda *given: assign(*given).tolist(), 'a tensor, a number for each anchor'),
        (lambda *given: assign(*given, nothing=0), '-1, not 0'),
        (lambda *given: assign(*given, gap=-1), 'not asked: -2'),
        (lambda *given: assign(*given, first=True), 'overlaps most'),
        (lambda *given: assign(*given, strict=True), 'just 0.75 is positive'),
        (lambda *given: assign(*given, rescue=False), 'only 0.4'),
        (lambda iou, high, low: assign(iou, high, low).where(iou.amax(0) >= low, -1) if len(iou) else assign(iou, high, low), 'Even below'),
        (lambda *given: assign(*given, ties=False), 'equally good'),
        (lambda *given: assign(*given, own=False), 'belongs to thing 0'),
        (lambda *given: assign(*given, touched=False), 'no anchor touches'),
        (lambda iou, high, low: assign(iou, .7, .3) if high == .6 else assign(iou, high, low), 'write 0.7 and 0.3'),
        (lambda iou, high, low: assign(iou, high, low) if len(iou) else iou.max(0).indices, 'no maximum over no rows'),
    ])


@given(st.integers(1, 5), st.integers(1, 12), st.integers(0, 10**6))
def test_the_rule_is_that_of_torchvision(things, anchors, seed):
    "Where each thing touches an anchor; ten steps of IoU, so that there are ties."
    iou = (torch.randint(0, 10, (things, anchors), generator=torch_rng('iou', seed)) + 1)/10
    expected = Matcher(.75, .25, allow_low_quality_matches=True)(iou)
    assert assign(iou, .75, .25).tolist() == expected.tolist() == checks._assigned(iou, .75, .25)


def decode(anchors, corrections, axes=(0, 1), limit=math.log(1000/16), lower=None, new_sides=False, corner=False, base=1.):
    middle, sides = (anchors[:, :2] + anchors[:, 2:])/2, anchors[:, 2:] - anchors[:, :2]
    grown = sides*corrections[:, 2:].clamp(max=limit, min=lower).exp()*base
    if corner: return torch.cat([anchors[:, :2] + corrections[:, :2]*sides, anchors[:, :2] + corrections[:, :2]*sides + grown], 1)
    middle = middle + corrections[:, :2]*(grown if new_sides else sides)[:, list(axes)]
    return torch.cat([middle - grown/2, middle + grown/2], 1)


def test_check_decode():
    def shares(anchors, corrections):
        boxes = decode(anchors, corrections)
        return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
    def swapped(anchors, corrections): return decode(anchors, corrections[:, [0, 1, 3, 2]])
    assert_check(checks.check_decode, decode, [
        (shares, 'leaves the anchor as it is'),
        (lambda anchors, corrections: decode(anchors, corrections, base=2.), 'leaves the anchor as it is'),
        (lambda *given: decode(*given, axes=(1, 1)), 'share one of the *width*'),
        (lambda *given: decode(*given, axes=(0, 0)), 'share of the *height*'),
        (lambda *given: decode(*given, corner=True), 'about the middle'),
        (swapped, 'about the middle'),
        (lambda *given: decode(*given, lower=0.), 'fourth place is the height'),
        (lambda *given: decode(*given, new_sides=True), '*old* sides'),
        (lambda anchors, corrections: decode(anchors, corrections[:1].expand_as(corrections) if len(corrections) else corrections), 'its own correction'),
        (lambda *given: decode(*given, limit=math.inf), 'would be infinite'),
        (lambda *given: decode(*given, lower=-math.log(1000/16)), 'has no limit'),
        (lambda anchors, corrections: decode(anchors, corrections) if len(anchors) else torch.zeros(0), 'shape (0, 4)'),
    ])


def test_torchvision_passes_the_check_of_corrections():
    assert checks.check_decode(lambda anchors, corrections: BoxCoder((1., 1., 1., 1.)).decode_single(corrections, anchors))


def loss(said, right, positive, beta):
    return F.smooth_l1_loss(said[positive], right[positive], beta=beta, reduction='sum')/len(positive)


def pieces(said, right, positive, beta, square=lambda d, beta: d**2/(2*beta), line=lambda d, beta: d - beta/2, size=torch.abs):
    d = size(said[positive] - right[positive])
    return torch.where(d < beta, square(d, beta), line(d, beta)).sum()/len(positive)


def test_check_box_loss():
    def masked(said, right, positive, beta):
        return (F.smooth_l1_loss(said, right, beta=beta, reduction='none')*positive[:, None]).sum()/len(positive)
    def largest(said, right, positive, beta):
        return F.smooth_l1_loss(said[positive], right[positive], beta=beta, reduction='none').amax(1).sum()/len(positive)
    assert_check(checks.check_box_loss, loss, [
        (lambda said, right, positive, beta: loss(said, 0*right, positive, beta), 'What is right costs nothing'),
        (lambda *given: pieces(*given, line=lambda d, beta: d), '1 - beta/2'),
        (lambda *given: pieces(*given, square=lambda d, beta: d**2), 'twice beta'),
        (lambda *given: pieces(*given, square=lambda d, beta: d**2/2), 'twice beta'),
        (lambda *given: pieces(*given, size=lambda d: d), 'absolute value'),
        (lambda *given: loss(*given)/4, 'not averaged'),
        (largest, 'All four numbers'),
        (lambda said, right, positive, beta: loss(said, right, positive, .1), 'beta is an argument'),
        (lambda said, right, positive, beta: loss(said, right, torch.ones_like(positive), beta), 'cost nothing here'),
        (lambda said, right, positive, beta: loss(said[positive], right[positive], positive[positive], beta), 'cost nothing here'),
        (masked, 'choose the rows'),
        (lambda said, right, positive, beta: loss(said, right, positive, beta)*positive.sum()/positive.sum(), 'Without a positive'),
    ])
