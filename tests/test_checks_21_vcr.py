"The checks behind the exercises of lesson 21, choices and reasons."
import math

import torch
import torch.nn.functional as F
from checking import assert_check

from vlground import checks_tasks as checks


def by_torch(scores, labels):
    table, right = torch.tensor(scores, dtype=torch.float64), torch.tensor(labels)
    return F.cross_entropy(table, right).item(), F.binary_cross_entropy_with_logits(table, F.one_hot(right, 4).double()).item()


def plain(scores, labels, exp=math.exp):
    over = [-math.log(exp(four[label])/sum(map(exp, four))) for four, label in zip(scores, labels)]
    each = [sum(math.log(1 + exp(-score if i == label else score)) for i, score in enumerate(four))/4 for four, label in zip(scores, labels)]
    return sum(over)/len(over), sum(each)/len(each)


def right_alone(scores, labels): return by_torch(scores, labels)[0], F.softplus(-torch.tensor([four[label] for four, label in zip(scores, labels)])).mean().item()


def all_right(scores, labels): return by_torch(scores, labels)[0], F.softplus(-torch.tensor(scores)).mean().item()


def of_shares(scores, labels):
    shares = torch.tensor(scores).softmax(1)
    return by_torch(scores, labels)[0], F.binary_cross_entropy(shares, F.one_hot(torch.tensor(labels), 4).float()).item()


def no_shift(scores, labels):
    shares = torch.tensor(scores, dtype=torch.float64).softmax(1)
    return -shares[range(len(labels)), labels].log().mean().item(), by_torch(scores, labels)[1]


def test_check_losses_by_hand():
    assert_check(checks.check_losses_by_hand, by_torch, [
        (lambda scores, labels: by_torch(scores, labels)[0], 'pair of numbers'),
        (lambda scores, labels: by_torch(scores, labels)[::-1], 'come first'),
        (lambda scores, labels: (by_torch(scores, labels)[0], 4*by_torch(scores, labels)[1]), 'sum of four'),
        (lambda scores, labels: (by_torch(scores, labels)[0] + (scores[0][0] > 1), by_torch(scores, labels)[1]), 'share of all four'),
        (right_alone, 'costs -log(1 - sigmoid)'),
        (all_right, 'costs -log(1 - sigmoid)'),
        (of_shares, 'ln 2'),
        (lambda scores, labels: by_torch(scores, [0]*len(labels)), 'the label names'),
        (lambda scores, labels: tuple(loss*len(labels) for loss in by_torch(scores, labels)), 'not the sum'),
        (plain, 'too large'),
        (lambda scores, labels: plain(scores, labels, lambda x: math.exp(min(x, 600))), '1000'),
        (no_shift, 'infinite'),
    ])


def pieces(offsets, pointers, plus=1, shares=lambda a, b, start, end: a < b and a < end and start < b):
    found = [0]*len(offsets)
    for start, end, thing in pointers:
        for i, (a, b) in enumerate(offsets):
            if shares(a, b, start, end): found[i] = thing + plus
    return found


def falsy(offsets, pointers):
    found = pieces(offsets, [pointer for pointer in pointers if pointer[2]])
    return found


def in_one_pass(offsets, pointers):
    found, left = [], list(pointers)
    for a, b in offsets:
        while left and left[0][1] <= a: left.pop(0)
        found.append(left[0][2] + 1 if left and a < b and a < left[0][1] and left[0][0] < b else 0)
    return found


def test_check_regions_of_pieces():
    assert_check(checks.check_regions_of_pieces, pieces, [
        (lambda offsets, pointers: [region for region in pieces(offsets, pointers) if region], 'those of [CLS] and [SEP] too'),
        (lambda offsets, pointers: [region or -1 for region in pieces(offsets, pointers)], 'Nothing points'),
        (lambda offsets, pointers: pieces(offsets, pointers, plus=0), 'region 0 is the whole picture'),
        (falsy, 'An object 0 is an object'),
        (lambda offsets, pointers: pieces(offsets, pointers, shares=lambda a, b, start, end: (a, b) == (start, end)), 'both point'),
        (lambda offsets, pointers: pieces(offsets, pointers, shares=lambda a, b, start, end: start <= a and b <= end), 'without a character'),
        (lambda offsets, pointers: pieces(offsets, pointers, shares=lambda a, b, start, end: start <= a < end), 'without a character'),
        (lambda offsets, pointers: pieces(offsets, pointers, shares=lambda a, b, start, end: a < b and a <= end and start < b), 'begins where the word ends'),
        (lambda offsets, pointers: pieces(offsets, pointers, shares=lambda a, b, start, end: a < b and a < end and start <= b), 'ends where the word begins'),
        (lambda offsets, pointers: pieces(offsets, pointers, shares=lambda a, b, start, end: a < b and start <= a and b <= end), 'longer than the word'),
        (lambda offsets, pointers: pieces(offsets, pointers[:1]), 'two objects'),
        (in_one_pass, 'any order'),
        (lambda offsets, pointers: pieces(offsets, {thing: (start, end, thing) for start, end, thing in pointers}.values()), 'the same object'),
    ])


def pair(answers, reasons):
    table = torch.tensor(answers)[:, None]*torch.tensor(reasons)
    return divmod(int(table.argmax()), 4)


def greedy(answers, reasons):
    best = answers.index(max(answers))
    return best, reasons[best].index(max(reasons[best]))


def last_of_equal(answers, reasons): return max(((a, r) for a in range(3, -1, -1) for r in range(3, -1, -1)), key=lambda each: answers[each[0]]*reasons[each[0]][each[1]])


def best_reason_first(answers, reasons): return max(((a, r) for a in range(4) for r in range(4)), key=lambda each: reasons[each[0]][each[1]])


def by_sum(answers, reasons): return max(((a, r) for a in range(4) for r in range(4)), key=lambda each: answers[each[0]] + reasons[each[0]][each[1]])


def reason_decides(answers, reasons): return max(((a, r) for r in range(4) for a in range(4)), key=lambda each: answers[each[0]]*reasons[each[0]][each[1]])


def test_check_likeliest_pair():
    assert_check(checks.check_likeliest_pair, pair, [
        (lambda answers, reasons: 4*pair(answers, reasons)[0] + pair(answers, reasons)[1], 'pair of numbers'),
        (lambda answers, reasons: pair(answers, reasons)[::-1], 'The answer comes first'),
        (lambda answers, reasons: pair(answers, [list(column) for column in zip(*reasons)]), 'column'),
        (best_reason_first, 'The chance of the answer counts too'),
        (by_sum, 'add nothing, multiply'),
        (greedy, 'need not be in the best pair'),
        (last_of_equal, '(0, 0)'),
        (reason_decides, 'the first answer'),
    ])
