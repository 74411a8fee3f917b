"The checks behind the exercises of lesson 06, expressions."
from checking import assert_check

from vlground import checks_labels as checks


def corners_of(xywh, size):
    x, y, width, height = xywh
    return [max(x, 0), max(y, 0), min(x + width, size[0]), min(y + height, size[1])]


def cut_first(xywh, size):
    x, y = max(xywh[0], 0), max(xywh[1], 0)
    return x, y, min(x + xywh[2], size[0]), min(y + xywh[3], size[1])


def test_check_corners_of():
    assert_check(checks.check_corners_of, corners_of, [
        (lambda xywh, size: xywh, 'the near one plus the size'),
        (lambda xywh, size: corners_of(xywh, size)[2:] + corners_of(xywh, size)[:2], 'in the order'),
        (lambda xywh, size: (xywh[0], xywh[1], xywh[0] + xywh[2], xywh[1] + xywh[3]), 'at the right or below'),
        (lambda xywh, size: corners_of(xywh, size[::-1]), 'exchanged'),
        (lambda xywh, size: [xywh[0], xywh[1], *corners_of(xywh, size)[2:]], 'at the left or above'),
        (cut_first, 'before you cut'),
    ])


def kept(scores, lowest):
    places = [i for i, score in enumerate(scores) if not score < lowest]
    return places if places else [scores.index(max(scores))] if scores else []


def test_check_kept():
    def on(condition, other): return lambda scores, lowest: other(scores, lowest) if condition(scores, lowest) else kept(scores, lowest)
    assert_check(checks.check_kept, kept, [
        (lambda scores, lowest: [score for score in scores if score >= lowest], 'Give places'),
        (lambda scores, lowest: [place + 1 for place in kept(scores, lowest)], 'counted from 0'),
        (lambda scores, lowest: [i for i, score in enumerate(scores) if score > lowest] or kept(scores, 2.)[1:], 'just as high'),
        (lambda scores, lowest: [i for i, score in enumerate(scores) if score > lowest] or kept(scores, 2.), 'just as high'),
        (lambda scores, lowest: kept(scores, .65), 'is an argument'),
        (lambda scores, lowest: sorted(kept(scores, lowest), key=lambda i: -scores[i]), 'in the order of the scores'),
        (lambda scores, lowest: [i for i, score in enumerate(scores) if score >= lowest], 'the surest detection stays'),
        (on(lambda scores, lowest: not scores or max(scores) < lowest, lambda scores, lowest: list(range(len(scores)))), 'and only that'),
        (on(lambda scores, lowest: scores and max(scores) < lowest, lambda scores, lowest: [len(scores) - 1 - scores[::-1].index(max(scores))]), 'the first stays'),
        (on(lambda scores, lowest: scores and max(scores) < lowest, lambda scores, lowest: [i for i, score in enumerate(scores) if score == max(scores)]), 'the first stays'),
        (lambda scores, lowest: [i for i in kept(scores, lowest) if scores[i]], 'A score of 0'),
        (lambda scores, lowest: kept(scores, lowest) if scores else [0], 'give an empty list'),
        (lambda scores, lowest: [i for i, s in enumerate(scores) if s >= lowest] or [scores.index(max(scores))], 'give an empty list'),
    ])


def with_gold(detections, gold, splits):
    return {name: list(boxes) + list(gold[name])*(splits[name] == {'train'}) for name, boxes in detections.items()}


def changes_them(detections, gold, splits):
    for name, boxes in detections.items():
        if splits[name] == {'train'}: boxes += gold[name]
    return dict(detections)


def test_check_with_gold():
    assert_check(checks.check_with_gold, with_gold, [
        (lambda detections, gold, splits: detections, 'come behind them'),
        (lambda detections, gold, splits: {name: gold[name] + boxes for name, boxes in detections.items()}, 'come behind them'),
        (lambda detections, gold, splits: {name: boxes + gold[name] for name, boxes in detections.items()}, 'tested on'),
        (lambda detections, gold, splits: {name: boxes + gold[name]*(splits[name] <= {'train'}) for name, boxes in detections.items()}, 'nobody points at'),
        (lambda detections, gold, splits: {name: boxes + gold[name]*('train' in splits[name]) for name, boxes in detections.items()}, 'another split'),
        (lambda detections, gold, splits: {name: boxes for name, boxes in with_gold(detections, gold, splits).items() if len(detections) < 2 or 'train' in splits[name]}, 'none is left out'),
        (lambda detections, gold, splits: {name: boxes + gold[name][:1]*(splits[name] == {'train'}) for name, boxes in detections.items()}, 'All gold boxes'),
        (changes_them, 'have changed'),
    ])
