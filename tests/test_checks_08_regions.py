"The checks behind the exercises of lesson 08."
import torch
from checking import assert_check
from torchvision.ops import batched_nms, box_iou, nms

from vlground import checks_labels as checks


def greedy(boxes, scores, overlap, dropped_too=False, strict=False, order=True):
    iou, stay, seen = box_iou(boxes, boxes), [], []
    for row in (scores.argsort(descending=True) if order else torch.arange(len(boxes))).tolist():
        others = seen if dropped_too else stay
        if all(iou[row, other] < overlap if strict else iou[row, other] <= overlap for other in others): stay.append(row)
        seen.append(row)
    return stay


def test_check_greedy_nms():
    assert_check(checks.check_greedy_nms, greedy, [
        (lambda *given: greedy(*given, order=False), 'in the order of their scores'),
        (lambda boxes, scores, overlap: scores[greedy(boxes, scores, overlap)].tolist(), 'rows of the input'),
        (lambda boxes, scores, overlap: scores.argsort(descending=True).tolist(), 'stays alone'),
        (lambda *given: greedy(*given, dropped_too=True), 'A chain'),
        (lambda *given: greedy(*given, strict=True), 'exactly the threshold'),
        (lambda boxes, scores, overlap: greedy(boxes, scores, .5), 'write 0.5'),
        (lambda boxes, scores, overlap: [int(scores.argmax())] and nms(boxes, scores, overlap).tolist(), 'Without a box'),
    ])


def shifted(boxes, scores, labels, overlap, apart):
    if not len(boxes): return torch.zeros(0, dtype=torch.int64)
    return nms(boxes + (labels*apart(boxes))[:, None], scores, overlap)


def width(boxes): return boxes.max() - boxes.min() + 1


def test_check_nms_by_class():
    assert_check(checks.check_nms_by_class, lambda *given: shifted(*given, width), [
        (lambda boxes, scores, labels, overlap: nms(boxes, scores, overlap), 'both stay'),
        (lambda *given: shifted(*given, lambda boxes: 100), 'beyond *all* others'),
        (lambda *given: shifted(*given, lambda boxes: 3), 'beyond *all* others'),
        (lambda *given: shifted(*given, lambda boxes: 1e6), 'cannot tell the corners apart'),
        (lambda *given: shifted(*given, lambda boxes: boxes.max() + 1), 'Corners may be negative'),
        (batched_nms, 'Corners may be negative'), # torchvision's own trick counts from 0
        (lambda boxes, scores, labels, overlap: shifted(boxes, scores, labels, .5, width), 'write 0.5'),
        (lambda boxes, scores, labels, overlap: torch.cat([rows[nms(boxes[rows], scores[rows], overlap)] for label in labels.unique() for rows in [(labels == label).nonzero()[:, 0]]]
                                                          or [torch.zeros(0, dtype=torch.int64)]), 'order of the scores'),
        (lambda boxes, scores, labels, overlap: nms(boxes + (labels*(boxes.max() - boxes.min() + 1))[:, None], scores, overlap), 'no box at all'),
        (lambda *given: shifted(*given, width).tolist(), 'a tensor of rows'),
    ])


def recall(gold, regions, thresholds, per_picture=False, strict=False, skip_empty=False, everywhere=False, mean_iou=False):
    found, per = torch.cat(regions), []
    for true, here in zip(gold, regions):
        here = found if everywhere else here
        if skip_empty and not len(here): continue
        per.append(box_iou(true, here).max(1).values if len(here) else torch.zeros(len(true)))
    def at(best): return best.mean() if mean_iou else sum(((best > t) if strict else (best >= t)).float().mean() for t in thresholds)/len(thresholds)
    return float(sum(map(at, per))/len(per) if per_picture else at(torch.cat(per)))


def test_check_average_recall():
    def precision(gold, regions, thresholds): return recall(regions, gold, thresholds)
    assert_check(checks.check_average_recall, recall, [
        (lambda gold, regions, thresholds: 0., 'the same box'),
        (lambda *given: recall(*given, mean_iou=True), 'not of the IoU'),
        (lambda gold, regions, thresholds: recall(gold, regions, thresholds)*len(thresholds), 'mean over the thresholds'),
        (lambda *given: recall(*given, strict=True), 'at least'),
        (precision, 'count things'),
        (lambda *given: recall(*given, per_picture=True), 'over all four things'),
        (lambda *given: recall(*given, everywhere=True), 'another picture'),
        (lambda *given: recall(*given, skip_empty=True), 'still count'),
    ])
