"The checks behind the exercises of lesson 02."
import re

from checking import assert_check

from vlground import checks


def words_by_walking(caption):
    found, start = [], None
    for at, letter in enumerate(caption + ' '):
        if letter.isspace() and start is not None: found, start = [*found, (start, at)], None
        elif not letter.isspace() and start is None: start = at
    return found


def searched(caption): return [(caption.find(word), caption.find(word) + len(word)) for word in caption.split()]


def by_one_space(caption):
    at, found = 0, []
    for word in caption.split():
        found.append((at, at + len(word)))
        at += len(word) + 1
    return found


def test_check_word_offsets():
    assert_check(checks.check_word_offsets, words_by_walking, [
        (lambda caption: [(start, end - 1) for start, end in words_by_walking(caption)], 'one past the last'),
        (lambda caption: [(start - i, end - i) for i, (start, end) in enumerate(words_by_walking(caption))], 'leave the space out'),
        (searched, 'from the beginning'),
        (lambda caption: [match.span() for match in re.finditer(r"\w+", caption)], 'not letters alone'),
        (by_one_space, 'several spaces'),
        (lambda caption: [match.span() for match in re.finditer('[^ ]+', caption)], 'A tab'),
        (lambda caption: words_by_walking(caption) or [(0, 0)], 'empty'),
        (lambda caption: caption.split(), 'could not be read'),
    ])


def runs(tags, pattern='d?j*n+'):
    return [match.span() for match in re.finditer(pattern, ''.join({'DT': 'd', 'JJ': 'j', 'NN': 'n'}.get(tag, '-') for tag in tags))]


def skips_what_it_read(tags):
    found, at = [], 0
    while at < len(tags):
        end = at + (tags[at] == 'DT')
        while tags[end:end + 1] == ['JJ']: end += 1
        nouns = end
        while tags[end:end + 1] == ['NN']: end += 1
        if end > nouns: found.append((at, end))
        at = max(end, at + 1) if end > nouns else end + 1
    return found


def test_check_runs():
    assert_check(checks.check_runs, runs, [
        (lambda tags: [(start, end - 1) for start, end in runs(tags)], 'one past the last'),
        (lambda tags: runs(tags, 'j*n+'), 'determiner out'),
        (lambda tags: runs(tags, 'd?j?n+'), 'several adjectives'),
        (lambda tags: runs(tags, 'd?j*n'), 'several nouns'),
        (lambda tags: runs(tags)[:1], 'stop after the first'),
        (lambda tags: runs(tags, '(d?j*n+)+'), 'may touch'),
        (lambda tags: runs(tags, 'd?j*n+|d'), 'determiner without a noun'),
        (skips_what_it_read, 'read in vain'),
        (lambda tags: runs(tags, 'd?j*n+|j+$'), 'Adjectives at the end'),
        (lambda tags: runs(tags) or [(0, 0)], 'no word at all'),
    ])


def pieces(start, end, offsets, condition=lambda first, last, start, end: first < end and last > start, none=(0, 0), past=1):
    found = [i for i, (first, last) in enumerate(offsets) if condition(first, last, start, end)]
    return (found[0], found[-1] + past) if found else none


def exact_ends(start, end, offsets):
    firsts, lasts = [i for i, (first, last) in enumerate(offsets) if first == start < last], [i for i, (_, last) in enumerate(offsets) if last == end]
    return (firsts[0], lasts[-1] + 1) if firsts and lasts else (0, 0)


def test_check_pieces_of():
    assert_check(checks.check_pieces_of, pieces, [
        (lambda *arguments: pieces(*arguments, past=0), 'one past the last'),
        (lambda *arguments: pieces(*arguments, lambda first, last, start, end: first < end and last >= start), '[CLS]'),
        (lambda *arguments: pieces(*arguments, lambda first, last, start, end: first <= end and last > start), 'begins where "dog" ends'),
        (exact_ends, 'ends just where'),
        (lambda *arguments: pieces(*arguments, lambda first, last, start, end: last > first >= start and last <= end), 'larger than the phrase'),
        (lambda *arguments: pieces(*arguments, none=(-1, -1)), 'cut off'),
    ])
