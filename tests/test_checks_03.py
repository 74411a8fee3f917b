"The checks behind the exercises of lesson 03."
import torch
from checking import assert_check
from torchvision.ops import box_iou as torchvision_iou

from vlground import checks


def test_check_largest_shift():
    assert_check(checks.check_largest_shift, lambda width, threshold: width*(1 - threshold)/(1 + threshold), [
        (lambda width, threshold: width*threshold, 'union has grown'),
        (lambda width, threshold: (1 - threshold)/(1 + threshold), 'share of the width'),
        (lambda width, threshold: width/3, 'another threshold'),
        (lambda width, threshold: width*(1 - threshold)/(1 + threshold) if threshold < .6 else width*(1 + threshold)/(1 - threshold), 'exchanged'),
        (lambda width, threshold: -width*(1 - threshold)/(1 + threshold), 'union has grown'),
        (lambda width, threshold: 1/0, 'ZeroDivisionError'),
    ])


def containment(a, b, over='a', clamp=True, nan=0., turn=False):
    a, b = a.float(), b.float()
    sides = torch.minimum(a[:, None, 2:], b[:, 2:]) - torch.maximum(a[:, None, :2], b[:, :2])
    shared = (sides.clamp(min=0) if clamp else sides).prod(-1)
    area_a, area_b = ((boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a, b))
    below = {'a': area_a[:, None], 'b': area_b, 'smaller': torch.minimum(area_a[:, None], area_b)}[over]
    share = (shared/below).nan_to_num(nan)
    return share.T if turn else share


def test_check_containment():
    assert_check(checks.check_containment, containment, [
        (lambda a, b: containment(a, b, over='b'), 'area of b'),
        (lambda a, b: torchvision_iou(a.float(), b.float()), 'union'),
        (lambda a, b: containment(a, b, over='smaller'), 'smaller of the two'),
        (lambda a, b: containment(a, b, clamp=False), 'cut each side off'),
        (lambda a, b: containment(a, b, turn=True), '(2, 3)'),
        (lambda a, b: containment(a, b).diag(), '(1, 1)'),
        (lambda a, b: containment(a, b, nan=torch.nan), 'NaN'),
    ])


def best_region(grounded, regions, threshold=.5):
    iou = torchvision_iou(grounded.float(), regions.float())
    return torch.cat([iou.new_full((len(iou), 1), threshold), iou], dim=1).argmax(dim=1) - 1


def first_region(grounded, regions, threshold):
    passing = torchvision_iou(grounded.float(), regions.float()) > threshold
    return torch.where(passing.any(1), passing.float().argmax(1), -1)


def not_strict(grounded, regions, threshold):
    if not len(regions): return torch.full((len(grounded),), -1)
    best, index = torchvision_iou(grounded.float(), regions.float()).max(1)
    return torch.where(best >= threshold, index, -1)


def never_fails(grounded, regions, threshold): return torchvision_iou(grounded.float(), regions.float()).argmax(1)


def not_without_regions(grounded, regions, threshold):
    best, index = torchvision_iou(grounded.float(), regions.float()).max(1)
    return torch.where(best > threshold, index, -1)


def test_check_best_region():
    assert_check(checks.check_best_region, best_region, [
        (lambda grounded, regions, threshold: torchvision_iou(grounded.float(), regions.float()).amax(1), 'not an IoU'),
        (first_region, 'first that passes'),
        (never_fails, 'No region comes near'),
        (not_strict, 'exactly the threshold'),
        (lambda grounded, regions, threshold: best_region(regions, grounded, threshold), 'second is better'),
        (lambda grounded, regions, threshold: best_region(grounded, regions), 'write 0.5'),
        (not_without_regions, 'no region at all'),
    ])
