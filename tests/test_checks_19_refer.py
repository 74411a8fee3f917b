"The checks of lesson 19, referring expressions: they pass a solution, and name the mistake in each seeded wrong answer."
import torch
import torch.nn.functional as F
from checking import assert_check

from vlground.checks_tasks import check_ceiling_at, check_targets_with_gap


def first_right(iou, most): return any(value > .5 for value in iou.tolist()[:most])


def test_ceiling_at():
    assert_check(check_ceiling_at, lambda ious, most: sum(first_right(iou, most) for iou in ious)/len(ious), [
        (lambda ious, most: sum(first_right(iou, len(iou)) for iou in ious)/len(ious), 'Only the first'),
        (lambda ious, most: sum(first_right(iou, most - 1) or most == 1 and first_right(iou, 1) for iou in ious)/len(ious), 'last one read counts'),
        (lambda ious, most: sum(bool((iou[:most] >= .5).any()) for iou in ious)/len(ious), 'must be larger'),
        (lambda ious, most: sum(int((iou[:most] > .5).sum()) for iou in ious)/len(ious), 'counts once'),
        (lambda ious, most: sum(first_right(iou, most) for iou in ious)/max(1, sum(first_right(iou, 99) for iou in ious)), 'share of all'),
        (lambda ious, most: sum(first_right(iou, most) for iou in ious if len(iou) >= most)/len(ious), 'Fewer regions'),
    ])


def loss(logits, targets, weight, over): return F.binary_cross_entropy_with_logits(logits, targets, weight.float(), reduction='sum')/over
def judged(ious): return (ious >= .5) | (ious < .3)


def test_targets_with_gap():
    assert_check(check_targets_with_gap, lambda logits, ious, mask: loss(logits, (ious >= .5).float(), mask & judged(ious), len(logits)), [
        (lambda logits, ious, mask: loss(logits, torch.where(ious >= .5, ious, 0.), mask & judged(ious), len(logits)), 'not its IoU'),
        (lambda logits, ious, mask: loss(logits, (ious >= .5).float(), mask, len(logits)), 'not judged'),
        (lambda logits, ious, mask: loss(logits, (ious > .5).float(), mask & ((ious > .5) | (ious < .3)), len(logits)), 'exactly 0.5'),
        (lambda logits, ious, mask: loss(logits, (ious >= .5).float(), judged(ious), len(logits)), 'padded'),
        (lambda logits, ious, mask: loss(logits, (ious >= .5).float(), mask & judged(ious), (mask & judged(ious)).sum()), 'summed, not averaged'),
        (lambda logits, ious, mask: loss(logits, (ious >= .5).float(), mask & judged(ious), 1), 'mean over expressions'),
        (lambda logits, ious, mask: loss(logits, (ious >= .5).float(), mask & judged(ious), (mask & judged(ious)).any(1).sum().clamp(min=1)), 'the mean is over both'),
        (lambda logits, ious, mask: loss(logits, (ious < .5).float(), mask & judged(ious), len(logits)), 'its target is 1'),
    ])
