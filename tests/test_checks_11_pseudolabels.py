"The checks behind the exercises of lesson 11, pseudo labels."
import torch
from checking import assert_check

from vlground import checks_labels as checks
from vlground.boxes import box_iou


def mention(phrase, truth, strict=True, last=False):
    shared = [min(phrase[1], end) - max(phrase[0], start) for start, end in truth]
    if not shared or (max(shared) <= 0 if strict else max(shared) < 0): return -1
    return len(shared) - 1 - shared[::-1].index(max(shared)) if last else shared.index(max(shared))


def mention_by_iou(phrase, truth):
    ious = [(min(phrase[1], end) - max(phrase[0], start))/(max(phrase[1], end) - min(phrase[0], start)) for start, end in truth]
    return ious.index(max(ious)) if ious and max(ious) > 0 else -1


def test_check_mention():
    assert_check(checks.check_mention, mention, [
        (lambda phrase, truth: truth.index(phrase) if phrase in truth else -1, 'not equal'),
        (lambda phrase, truth: next((i for i, (start, end) in enumerate(truth) if start <= phrase[0] < end), -1), 'begins before'),
        (lambda phrase, truth: next((i for i, (start, end) in enumerate(truth) if min(end, phrase[1]) > max(start, phrase[0])), -1), 'shares more'),
        (lambda phrase, truth: mention(phrase, truth, strict=False), 'touch'),
        (lambda phrase, truth: mention(phrase, truth) if truth else 0, 'no mention'),
        (lambda phrase, truth: mention(phrase, truth, last=True), 'the first counts'),
        (lambda phrase, truth: mention_by_iou(phrase, truth), 'length of the mention'),
    ])


def iou(a, b): return box_iou(torch.tensor([a[1]]), torch.tensor([b[1]])).item()


def thinned(labels, score, overlap, order=True, own=False, edge=False, chain=False, late=False, strict=False):
    kept, seen = [], []
    for label in sorted(labels, key=lambda label: -label[2]) if order else labels:
        if (label[2] < score if strict else label[2] <= score) and not late: continue
        rivals = [other for other in (seen if chain else kept) if not own or other[0] == label[0]]
        if not any(iou(label, other) >= overlap if edge else iou(label, other) > overlap for other in rivals): kept.append(label)
        seen.append(label)
    return [label for label in kept if (label[2] >= score if strict else label[2] > score)]


def test_check_preset():
    assert_check(checks.check_preset, thinned, [
        (lambda *a: thinned(*a, order=False), 'surest first'),
        (lambda labels, score, overlap: thinned(labels, 0, overlap), 'above the threshold'),
        (lambda *a: thinned(*a, strict=True), 'equal to it'),
        (lambda labels, score, overlap: thinned(labels, .5, overlap), 'The score is an argument'),
        (lambda labels, score, overlap: thinned(labels, overlap, overlap), 'The score is an argument'),
        (lambda labels, score, overlap: thinned(labels, score, .5), 'The overlap is an argument'),
        (lambda labels, score, overlap: thinned(labels, score, score), 'The overlap is an argument'),
        (lambda *a: thinned(*a, own=True), 'different phrases'),
        (lambda *a: thinned(*a, edge=True), 'exactly 0.5'),
        (lambda *a: thinned(*a, chain=True), 'drops nobody'),
    ])


def precision_recall(phrases, gold, all_phrases=False, twice=False, by_phrases=False, skip=False, empty=False):
    matched = [each for each in phrases if (each[0] or all_phrases) and not (skip and each[1] is None)]
    right = [each[1] for each in matched if each[2]]
    if not matched: return (1. if empty else 0.), 0.
    return len(right)/len(matched), (len(right) if twice else len(set(right)))/(len(phrases) if by_phrases else gold) if gold else 0.


def test_check_precision():
    assert_check(checks.check_precision, precision_recall, [
        (lambda *a: precision_recall(*a)[::-1], 'Recall is divided'),
        (lambda *a: precision_recall(*a, by_phrases=True), 'not by the phrases'),
        (lambda *a: precision_recall(*a, all_phrases=True), 'without a region'),
        (lambda *a: precision_recall(*a, skip=True), 'names nothing'),
        (lambda *a: precision_recall(*a, twice=True), 'found once'),
        (lambda *a: precision_recall(*a, empty=True), 'precision is 0'),
        (lambda phrases, gold: (precision_recall(phrases, gold)[0], precision_recall(phrases, gold)[1] if gold else 1/gold), 'recall is 0'),
    ])
