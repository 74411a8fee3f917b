"The checks behind the exercises of lesson 04."
import torch
from checking import assert_check
from torch.nn.functional import binary_cross_entropy_with_logits

from vlground import checks


def test_check_pair_features():
    assert_check(checks.check_pair_features, lambda words, regions, rows, columns: (words[rows], regions[columns + 1]), [
        (lambda words, regions, rows, columns: (words[rows], regions[columns]), 'global'),
        (lambda words, regions, rows, columns: (regions[columns + 1], words[rows]), 'return the word state first'),
        (lambda words, regions, rows, columns: (words[rows], regions[(columns + 1) % 3]), 'last region'),
        (lambda words, regions, rows, columns: (words[rows - 1 + (rows == 2)], regions[columns + 1]), 'only the region move'),
        (lambda words, regions, rows, columns: (words[rows.unique()], regions[1 + columns.unique()]), 'repeated'),
        (lambda words, regions, rows, columns: (torch.stack([words[i] for i in rows]), torch.stack([regions[1 + i] for i in columns])), 'no pair'),
    ])


def split_pairs(matrix, first=1, any_row=False, swapped=False, offset=0, single=False):
    positives, negatives = [], []
    for word, row in enumerate(matrix.tolist()):
        if not (any_row or any(row[1:])): continue
        for region in range(first, len(row)):
            (positives if row[region] else negatives).append((word, region + offset))
            if single and row[region]: break
    return (negatives, positives) if swapped else (positives, negatives)


def test_check_split_pairs():
    assert_check(checks.check_split_pairs, split_pairs, [
        (lambda matrix: split_pairs(matrix, swapped=True), 'positives are the ones'),
        (lambda matrix: split_pairs(matrix, first=0), 'global'),
        (lambda matrix: split_pairs(matrix, offset=-1), '(0, 1)'),
        (lambda matrix: split_pairs(matrix, any_row=True), 'without any match'),
        (lambda matrix: split_pairs(matrix, single=True), '(0, 2)'),
        (lambda matrix: (split_pairs(matrix)[0], [(word, 1) for word in range(len(matrix))]), '(0, 2)'),
    ])


def test_check_split_pairs_takes_tensors():
    assert checks.check_split_pairs(lambda matrix: tuple(torch.tensor(part).reshape(-1, 2) for part in split_pairs(matrix)))


def weighted_loss(scores, matches, rows=True, mean=True, halves=True, zero=True, flip=False):
    losses = binary_cross_entropy_with_logits(scores, (matches if not flip else ~matches).float(), reduction='none')
    negatives = ~matches & (matches.any(1, keepdim=True) if rows else True)
    if zero and not (matches.any() and negatives.any()): return scores.sum()*0
    total = losses[matches].mean() + losses[negatives].mean()
    return total/2 if halves else total


def row_by_row(scores, matches):
    losses = [weighted_loss(scores[row:row + 1], matches[row:row + 1]) for row in range(len(scores)) if matches[row].any()]
    return torch.stack(losses).mean() if losses else scores.sum()*0


def test_check_weighted_loss():
    assert_check(checks.check_weighted_loss, weighted_loss, [
        (lambda scores, matches: weighted_loss(scores, matches, halves=False), 'not their sum'),
        (lambda scores, matches: weighted_loss(scores, matches, flip=True), 'exchange the labels'),
        (lambda scores, matches: binary_cross_entropy_with_logits(scores, matches.float()), 'One positive among four'),
        (lambda scores, matches: weighted_loss(scores, matches, rows=False), 'row without a match'),
        (row_by_row, 'not row by row'),
        (lambda scores, matches: weighted_loss(scores, matches, zero=False), 'Without a positive'),
        (lambda scores, matches: weighted_loss(scores, matches, zero=not matches.all()), 'Without a negative'),
    ])
