"The checks behind the exercises of lesson 23, scale."
from math import ceil

from checking import assert_check

from vlground import checks_training as checks


def least_accumulate(share, fixed, sample, memory):
    divisors = [parts for parts in range(1, share + 1) if not share % parts]
    return next((parts for parts in divisors if fixed + sample*share/parts <= memory), 0)


def test_check_least_accumulate():
    assert_check(checks.check_least_accumulate, least_accumulate, [
        (lambda share, fixed, sample, memory: least_accumulate(share, 0., sample, memory), 'as if nothing were fixed'),
        (lambda share, fixed, sample, memory: ceil(share/max(1, (memory - fixed)//sample)), 'remainder'),
        (lambda share, fixed, sample, memory: next((2**i for i in range(10) if fixed + sample*share/2**i <= memory), 0), 'powers of two'),
        (lambda share, fixed, sample, memory: next((n for n in range(1, share + 1) if not share % n and fixed + sample*share/n < memory), 0), 'last byte'),
        (lambda share, fixed, sample, memory: least_accumulate(share, fixed, sample, memory) or share, 'alone do not fit'),
        (lambda share, fixed, sample, memory: least_accumulate(share, fixed, int(sample), memory) if sample > 2 else least_accumulate(share, fixed, sample, memory), '2.5 bytes'),
        (lambda share, fixed, sample, memory: share if fixed + share*sample > memory >= fixed + sample else least_accumulate(share, fixed, sample, memory), 'rounded up is 2'),
    ])


def most_cards(seconds, size, bandwidth, least, most, factor=lambda n: 2*(n - 1)/n, cut=lambda seconds, n: seconds/n):
    return max((n for n in range(1, most + 1) if cut(seconds, n)/(cut(seconds, n) + factor(n)*size/bandwidth) >= least), default=1)


def test_check_most_cards():
    assert_check(checks.check_most_cards, most_cards, [
        (lambda *a: most_cards(*a, factor=lambda n: (n - 1)/n), 'factor 2'),
        (lambda *a: most_cards(*a, factor=lambda n: 2 if n > 1 else 0), 'not twice'),
        (lambda *a: most_cards(*a, cut=lambda seconds, n: seconds), 'divided by the cards'),
        (lambda *a: min(64, most_cards(*a)), 'More cards than 64'),
        (lambda seconds, size, bandwidth, least, most: most_cards(seconds, size, bandwidth, least, 64), 'than there are'),
        (lambda seconds, size, bandwidth, least, most: most_cards(seconds, size, bandwidth, .5, most), 'Nine tenths'),
        (lambda *a: most_cards(*a, factor=lambda n: 2*(n - 1)/n + 1e-9) - 1 or 1, 'speed'),
    ])
