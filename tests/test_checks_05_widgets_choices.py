"The checks behind the exercises of lesson 05, choices."
from checking import assert_check

from vlground import checks_tasks as checks


def only_one(labels, first, second):
    return sum(a == label != b for label, a, b in zip(labels, first, second)), sum(b == label != a for label, a, b in zip(labels, first, second))


def test_check_only_one():
    def mark(labels, choices): return sum(a == b for a, b in zip(labels, choices))
    assert_check(checks.check_only_one, only_one, [
        (lambda labels, a, b: mark(labels, b) - mark(labels, a), 'Not their difference'),
        (lambda labels, a, b: {'first': 1, 'second': 0}, 'a pair'),
        (lambda labels, a, b: only_one(labels, a, b)[::-1], 'first model comes first'),
        (lambda labels, a, b: tuple(n/2 for n in only_one(labels, a, b)), 'It is a count'),
        (lambda labels, a, b: (mark(labels, a), mark(labels, b)), 'Neither is right alone'),
        (lambda labels, a, b: (sum(x != y and y != label for x, y, label in zip(a, b, labels)), sum(x != y and x != label for x, y, label in zip(a, b, labels))), 'To differ is not'),
        (lambda labels, a, b: tuple(min(n, 1) for n in only_one(labels, a, b)), '(2, 1)'),
        (lambda labels, a, b: (only_one(labels, a, b)[0], 0), '(0, 1)'),
    ])


def choose(four): return four.index(max(four))


def gains(labels, first, second, was=lambda four, label: choose(four) == label, key=lambda label, a, b: b[label] - a[label], reverse=True, among=lambda was_right, is_right: is_right and not was_right):
    every = zip(range(len(labels)), labels, first, second)
    found = [(key(label, a, b), i) for i, label, a, b in every if among(was(a, label), was(b, label))]
    return [i for _, i in sorted(found, key=lambda pair: pair[0], reverse=reverse)]


def test_check_largest_gains():
    assert_check(checks.check_largest_gains, gains, [
        (lambda *given: [], '[0]'),
        (lambda *given: gains(*given, among=lambda old, new: old != new), 'the second is not'),
        (lambda *given: gains(*given, among=lambda old, new: new), 'only surer'),
        (lambda labels, first, second: gains(labels, first, second, among=lambda old, new: not old), 'Both are wrong'),
        (lambda *given: gains(*given, was=lambda four, label: four[label] == max(four)), 'of equal ones'),
        (lambda *given: gains(*given, reverse=False), 'the larger comes first'),
        (lambda *given: sorted(gains(*given)), 'the larger comes first'),
        (lambda *given: gains(*given, key=lambda label, a, b: b[label]), 'how sure'),
        (lambda *given: gains(*given, key=lambda label, a, b: max(b) - max(a)), 'how sure'),
        (lambda labels, first, second: [i for _, i in sorted(((second[i][labels[i]] - first[i][labels[i]], i) for i in gains(labels, first, second)), reverse=True)], 'earlier item'),
        (lambda labels, first, second: gains([1]*len(labels), first, second), 'more items'),
    ])
