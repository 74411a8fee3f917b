"The checks behind the exercises of lesson 06, vcr."
from checking import assert_check

from vlground import checks_labels


def marked(tokens, objects, first=1, comma=', ', by_kind=False):
    def number(i): return objects[:i].count(objects[i]) + 1 if by_kind else i + first
    def one(token): return token if isinstance(token, str) else '[' + comma.join(f'{objects[i]}{number(i)}' for i in token) + ']'
    return ' '.join(map(one, tokens))


def each_in_brackets(tokens, objects):
    return ' '.join(token if isinstance(token, str) else ', '.join(f'[{objects[i]}{i + 1}]' for i in token) for token in tokens)


def nothing_at_zero(tokens, objects):
    return ' '.join(token if isinstance(token, str) else '[' + ', '.join(f'{objects[i]}{i + 1}' for i in token if i) + ']' for token in tokens)


def test_check_marked_text():
    assert_check(checks_labels.check_marked_text, marked, [
        (lambda tokens, objects: marked(tokens, objects, first=0), 'printed from 1'),
        (lambda tokens, objects: marked(tokens, objects, comma=','), 'a comma and a space'),
        (each_in_brackets, 'one pair of brackets'),
        (lambda tokens, objects: marked(tokens, objects, by_kind=True), 'printed from 1'),
        (nothing_at_zero, 'index 0 is an object'),
        (lambda tokens, objects: ''.join(marked((token,), objects) for token in tokens), 'single spaces'),
        (lambda tokens, objects: marked(tokens, objects) + ' ', 'single spaces'),
        (lambda tokens, objects: marked([t if isinstance(t, str) else t[:1] for t in tokens], objects), 'one pair of brackets'),
        (lambda tokens, objects: marked(tokens, objects[1:] + ('x',)), 'index 0 is an object'),
        (lambda tokens, objects: marked([t if isinstance(t, str) else sorted(t) for t in tokens], objects), 'keep their order'),
    ])


def kept_and_moved(texts, order=sorted, new=lambda kept, i: kept.index(i), meant=lambda texts: {i for text in texts for token in text if not isinstance(token, str) for i in token}):
    kept = list(order(meant(texts)))
    return kept, [tuple(token if isinstance(token, str) else tuple(new(kept, i) for i in token) for token in text) for text in texts]


def by_appearance(texts):
    kept = list(dict.fromkeys(i for text in texts for token in text if not isinstance(token, str) for i in token))
    return kept, [tuple(token if isinstance(token, str) else tuple(map(kept.index, token)) for token in text) for text in texts]


def one_by_one(texts):
    "Each text has a list of its own; the first is returned."
    every = [kept_and_moved([text]) for text in texts]
    return every[0][0], [moved for _, (moved,) in every]


def sorted_references(texts):
    kept, moved = kept_and_moved(texts)
    return kept, [tuple(token if isinstance(token, str) else tuple(sorted(token)) for token in text) for text in moved]


def with_repeats(texts):
    kept = sorted(i for text in texts for token in text if not isinstance(token, str) for i in token)
    return kept, kept_and_moved(texts)[1]


def first_of_each(texts):
    kept, moved = kept_and_moved(texts)
    return kept, [tuple(token if isinstance(token, str) else token[:1] for token in text) for text in moved]


def test_check_only_meant():
    assert_check(checks_labels.check_only_meant, kept_and_moved, [
        (lambda texts: kept_and_moved(texts)[0], 'Two things'),
        (lambda texts: (kept_and_moved(texts)[0], [text for text in kept_and_moved(texts)[1] if any(not isinstance(token, str) for token in text)]), 'Two things'),
        (lambda texts: kept_and_moved(texts, meant=lambda texts: {i for text in texts for token in text if not isinstance(token, str) for i in token if i}), 'stays object 0'),
        (lambda texts: (kept_and_moved(texts)[0], texts), 'its place in that list'),
        (lambda texts: kept_and_moved(texts, new=lambda kept, i: kept.index(i) + 1), 'stays object 0'),
        (first_of_each, 'each of them is meant'),
        (by_appearance, 'must rise'),
        (sorted_references, 'its own order'),
        (with_repeats, 'is in the list once'),
        (one_by_one, 'share one list'),
        (lambda texts: kept_and_moved(texts[:1]) if len(texts) > 1 else kept_and_moved(texts), 'share one list'),
        (lambda texts: kept_and_moved(texts, order=lambda meant: sorted(meant, key=str)), 'sorted as numbers'),
        (lambda texts: (set(kept_and_moved(texts)[0]), kept_and_moved(texts)[1]), 'stays object 0'),
    ])
    lists = lambda texts: (tuple(kept_and_moved(texts)[0]), [[token if isinstance(token, str) else list(token) for token in text] for text in kept_and_moved(texts)[1]])
    assert checks_labels.check_only_meant(lists) # lists and tuples are as good as each other


def chosen(scores, best=max): return scores.index(best(scores))


def accuracies(answer_scores, rationale_scores, answer_labels, rationale_labels, given='right', joint='and', best=max, of=None):
    n = of or len(answer_labels)
    picked = [chosen(scores, best) for scores in answer_scores]
    a = [one == label for one, label in zip(picked, answer_labels)]
    under = answer_labels if given == 'right' else picked
    if given == 'transposed': r = [chosen([row[label] for row in scores], best) == right for scores, label, right in zip(rationale_scores, answer_labels, rationale_labels)]
    else: r = [chosen(scores[i], best) == right for scores, i, right in zip(rationale_scores, under, rationale_labels)]
    first, second = sum(a)/n, sum(r)/n
    return first, second, {'and': sum(x and y for x, y in zip(a, r))/n, 'or': sum(x or y for x, y in zip(a, r))/n, 'product': first*second, 'least': min(first, second)}[joint]


def test_check_three_accuracies():
    assert_check(checks_labels.check_three_accuracies, accuracies, [
        (lambda *given: tuple(100*share for share in accuracies(*given)), 'not percents'),
        (lambda *given: accuracies(*given)[:2], 'Three shares'),
        (lambda *given: (1., 1., 1.), 'both choices wrong'),
        (lambda *given: accuracies(*given, best=min), 'highest'),
        (lambda *given: accuracies(*given, joint='or'), 'asks for both'),
        (lambda *given: accuracies(*given, given='transposed'), 'those given answer a'),
        (lambda *given: accuracies(*given, given='chosen'), 'does not matter here'),
        (lambda *given: accuracies(*given, joint='product'), 'no product'),
        (lambda *given: accuracies(*given, joint='least'), 'no product'),
        (lambda *given: accuracies(*given, of=min(len(given[2]), 2)), 'of all items'),
        (lambda answers, rationales, a, r: accuracies(answers, rationales, [label + 4 for label in a], r), 'IndexError'),
    ])
