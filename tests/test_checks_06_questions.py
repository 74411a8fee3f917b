"The checks behind the exercises of lesson 06, questions."
from collections import Counter

from checking import assert_check

from vlground import checks_labels


def score(answer, people, cap=True, divide=3):
    scores = []
    for i in range(len(people)):
        n = sum(other == answer for other in people[:i] + people[i + 1:])
        scores.append(min(n/divide, 1) if cap else n/divide)
    return sum(scores)/len(scores)


def by_text(answer, people):
    scores = [min(sum(other == answer for other in people if other != left_out)/3, 1) for left_out in people]
    return sum(scores)/len(scores)


def test_check_soft_score():
    assert_check(checks_labels.check_soft_score, score, [
        (lambda answer, people: min(people.count(answer)/3, 1), 'count all ten'),
        (lambda answer, people: score(answer, people, cap=False), 'capped at 1'),
        (lambda answer, people: score(answer, people, divide=4), 'One of ten'),
        (lambda answer, people: min(people[1:].count(answer)/3, 1), 'voice away'),
        (by_text, 'all ten go at once'),
        (lambda answer, people: min(3*people.count(answer), 10)/10, 'four people'),
        (lambda answer, people: score(answer, people)*len(people)/10, 'four people'),
        (lambda answer, people: 1.0, 'Nobody'),
    ])


def labels(answers, least, strict=False, order=lambda pair: (-pair[1], pair[0]), first=0, late=False):
    pairs = sorted(Counter(answers).items(), key=order)
    kept = [pair for pair in pairs if (pair[1] > least if strict else pair[1] >= least)]
    if late: return {answer: label for label, (answer, n) in enumerate(pairs) if n >= least}
    return {answer: label for label, (answer, _) in enumerate(kept, first)}


def test_check_answer_labels():
    assert_check(checks_labels.check_answer_labels, labels, [
        (lambda answers, least: labels(answers, least, first=1), 'count from 0'),
        (lambda answers, least: labels(answers, least, strict=True), 'at least, not more'),
        (lambda answers, least: labels(answers, 1), 'less often'),
        (lambda answers, least: labels(answers, least, order=lambda pair: (pair[1], pair[0])), 'most frequent'),
        (lambda answers, least: labels(answers, least, order=lambda pair: -pair[1]), 'who came first'),
        (lambda answers, least: labels(answers, least, order=lambda pair: pair[0]), 'most frequent'),
        (lambda answers, least: labels(answers, least, order=lambda pair: (-pair[1] // 2, pair[0])), 'most frequent'),
        (lambda answers, least: list(labels(answers, least)), 'count from 0'),
    ])
