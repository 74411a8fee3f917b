"The checks behind the exercises of lesson 05."
import torch
from checking import assert_check

from vlground import checks_labels as checks


def test_check_count_pairs():
    assert_check(checks.check_count_pairs, lambda overlap, threshold: len((overlap > threshold).nonzero()), [
        (lambda overlap, threshold: float(overlap[overlap > threshold].sum()), 'count values'),
        (lambda overlap, threshold: int((overlap > threshold).any(1).sum()), 'rows that have a pair'),
        (lambda overlap, threshold: int((overlap >= threshold).sum()), 'strictly greater'),
        (lambda overlap, threshold: int((overlap > .5).sum()), '0.5 written'),
        (lambda overlap, threshold: int((overlap > threshold).sum()) if threshold else overlap.numel(), 'not even at threshold 0'),
        (lambda overlap, threshold: sum(value > threshold for row in overlap.tolist() for value in row), 'compare tensors'),
    ])


def matrix_at(iou, scores, which, phrases, iou_threshold, score_threshold, strict=True, strict_score=True):
    kept = scores > score_threshold if strict_score else scores >= score_threshold
    passes = (iou > iou_threshold if strict else iou >= iou_threshold) & kept[:, None]
    return torch.stack([passes[which == phrase].any(0) for phrase in range(phrases)])


def last_box_wins(iou, scores, which, phrases, iou_threshold, score_threshold):
    matrix = torch.zeros(phrases, iou.shape[1], dtype=torch.bool)
    for row, score, phrase in zip(iou, scores, which):
        if score > score_threshold: matrix[phrase] = row > iou_threshold
    return matrix


def top_box_only(iou, scores, which, phrases, iou_threshold, score_threshold):
    matrix = torch.zeros(phrases, iou.shape[1], dtype=torch.bool)
    for phrase in range(phrases):
        mine = torch.where(which == phrase, scores, -1)
        best = int(mine.argmax())
        if mine[best] > score_threshold: matrix[phrase] = iou[best] > iou_threshold
        # and yet both regions where two boxes are equally sure
        for box in (mine == mine[best]).nonzero()[:, 0].tolist():
            if mine[box] > score_threshold: matrix[phrase] |= iou[box] > iou_threshold
    return matrix


def test_check_matrix_at():
    assert_check(checks.check_matrix_at, matrix_at, [
        (lambda *given: matrix_at(*given).float(), 'truth values'),
        (lambda iou, *rest: matrix_at(torch.zeros_like(iou), *rest), 'with the first region'),
        (lambda iou, scores, which, *rest: matrix_at(iou, scores, which.sort().values, *rest), 'another order'),
        (last_box_wins, 'overwrite'),
        (top_box_only, 'every box above the score'),
        (lambda iou, scores, which, phrases, a, b: matrix_at(iou, scores, which, phrases, a, 0), 'low score'),
        (lambda *given: (lambda matrix: matrix[matrix.any(1)])(matrix_at(*given)), 'still has a row'),
        (lambda *given: matrix_at(*given, strict=False), 'An IoU of exactly'),
        (lambda *given: matrix_at(*given, strict_score=False), 'A score of exactly'),
        (lambda iou, scores, which, phrases, a, b: matrix_at(iou, scores, which, phrases, b, a), 'exchanged'),
        (lambda iou, scores, which, phrases, a, b: matrix_at(iou, scores, which, phrases, .5, .5), 'written into the code'),
    ])


def largest(overlap, rows=torch.all, strict=True, top=100):
    for i in reversed(range(top)):
        if rows((overlap > i/100 if strict else overlap >= i/100).any(1)): return i/100
    return -1.


def test_check_largest_threshold():
    assert_check(checks.check_largest_threshold, largest, [
        (lambda overlap: float(overlap.amax(1).min()), 'Whole hundredths'),
        (lambda overlap: largest(overlap.T), 'its largest value'),
        (lambda overlap: largest(overlap, torch.any), 'weakest row'),
        (lambda overlap: largest(overlap, strict=False), '0.49'),
        (lambda overlap: max(largest(overlap), 0.), 'lost even at 0'),
        (lambda overlap: -1. if overlap.amax() == 1 else largest(overlap), 'up to 0.99'),
        (lambda overlap: largest(overlap) if overlap.amax() != .57 else .57, 'Compare instead'),
        (lambda overlap: largest(overlap) or -1., 'kept at 0'),
    ])
