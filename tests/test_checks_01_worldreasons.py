"The checks behind the exercises of lesson 01, choices."
from checking import assert_check

from vlground import checks_tasks as checks


def share(rights): return sum(rights)/len(rights)


def joint_accuracy(answers, reasons): return share([right and dict(reasons)[item] for item, right in answers])


def test_check_joint_accuracy():
    def own(pairs): return [right for _, right in pairs]
    assert_check(checks.check_joint_accuracy, joint_accuracy, [
        (lambda answers, reasons: joint_accuracy(answers, reasons)*len(answers), 'neither the number'),
        (lambda answers, reasons: 100*joint_accuracy(answers, reasons), 'per cent'),
        (lambda answers, reasons: joint_accuracy(answers, reasons)/max(share(own(answers)), 1e-9), 'all four items'),
        (lambda answers, reasons: share(own(answers)), 'Do the reasons count'),
        (lambda answers, reasons: share(own(answers + reasons)), 'mean of both'),
        (lambda answers, reasons: share([right or dict(reasons)[item] for item, right in answers]), 'Do the reasons count'),
        (lambda answers, reasons: share(own(reasons)), 'Do the answers count'),
        (lambda answers, reasons: share(own(answers))*share(own(reasons)), 'may not be multiplied'),
        (lambda answers, reasons: min(share(own(answers)), share(own(reasons))), 'smaller of the two'),
        (lambda answers, reasons: share([a and b for a, b in zip(own(answers), own(reasons))]), 'another order'),
    ])


def remap(text, kinds, here, of=lambda token, kinds: kinds[token], again=False, known=lambda token, moved: token in moved, order=list, short=lambda text: None):
    moved, out = {}, list(text)
    for place in order(range(len(text))):
        token = text[place]
        if isinstance(token, str): continue
        if again or not known(token, moved):
            free = [i for i, kind in enumerate(here) if kind == of(token, kinds) and i not in moved.values()]
            if not free: return short(text)
            moved[token] = free[0]
        out[place] = moved[token]
    return out


def by_first(text, kinds, here): return [token if isinstance(token, str) else here.index(kinds[token]) for token in text]


def by_place(text, kinds, here):
    old = [token for token in text if not isinstance(token, str)]
    return remap(text, {token: kinds[place % len(kinds)] for place, token in enumerate(old)}, here)


def by_number(text, kinds, here):
    old = sorted({token for token in text if not isinstance(token, str)})
    new = remap(old, kinds, here)
    return new if new is None else [token if isinstance(token, str) else new[old.index(token)] for token in text]


def one_after_the_other(text, kinds, here):
    old = list(dict.fromkeys(token for token in text if not isinstance(token, str)))
    new = remap(old, kinds, here)
    if new is None: return None
    for before, after in zip(old, new): text = [after if token == before else token for token in text]
    return text


def common_count(text, kinds, here):
    old = list(dict.fromkeys(token for token in text if not isinstance(token, str)))
    places = {kind: [i for i, each in enumerate(here) if each == kind] for kind in here}
    if any(len([each for each in old if kinds[each] == kind]) > len(places.get(kind, ())) for kind in kinds): return None
    counted = {token: places[kinds[token]][n % len(places[kinds[token]])] for n, token in enumerate(old)}
    return [token if isinstance(token, str) else counted[token] for token in text]


def half(text, kinds, here):
    left = [token for token in text if isinstance(token, str) or kinds[token] in here]
    return None if len(text) > len(left) and all(isinstance(token, str) for token in left) else remap(left, kinds, here)


def shared(text, kinds, here):
    if any(kinds[token] not in here for token in text if not isinstance(token, str)): return None
    return remap(text, kinds, here) or by_first(text, kinds, here)


def test_check_remap():
    assert_check(checks.check_remap, remap, [
        (lambda *arguments: ' '.join(map(str, remap(*arguments) or ())), 'a list of words'),
        (lambda text, kinds, here: text, 'counted from 0'),
        (lambda *arguments: [token if isinstance(token, str) else token + 1 for token in remap(*arguments) or ()], 'counted from 0'),
        (by_place, 'by the reference'),
        (lambda *arguments: remap(*arguments, again=True), 'same dog twice stays'),
        (by_first, 'the second may not get'),
        (by_number, 'not of the old numbers'),
        (lambda *arguments: remap(*arguments, order=reversed), 'the second may not get'),
        (one_after_the_other, 'one is replaced after the other'),
        (common_count, 'count of its own'),
        (lambda *arguments: remap(*arguments, known=lambda token, moved: moved.get(token)), 'Ask with `in`'),
        (lambda text, kinds, here: remap([int(token) if str(token).isdigit() else token for token in text], kinds, here), 'The word "0"'),
        (lambda *arguments: remap(*arguments, short=lambda text: text), 'No dog here'),
        (lambda *arguments: remap(*arguments, short=lambda text: []), 'No dog here'),
        (half, 'not half a text'),
        (lambda *arguments: {}[0] if remap(*arguments) is None else remap(*arguments), 'KeyError'),
        (shared, 'Two dogs there, one here'),
        (lambda text, kinds, here: remap(text, kinds, here) if len(here) >= len(kinds) else None, 'one dog here is enough'),
        (lambda text, kinds, here: remap(text, kinds, here) if here else None, 'needs nothing'),
    ])


def subsumes(description, things, fits=all, get=lambda thing, trait, value: thing.get(trait) == value):
    return [fits([get(thing, trait, value) for trait, value in description.items()]) for thing in things]


def up_to_the_first_that_fails(description, things):
    found = subsumes(description, things)
    return found if False not in found else found[:found.index(False) + 1] + [False]*(len(found) - found.index(False) - 1)


def test_check_subsumes():
    assert_check(checks.check_subsumes, subsumes, [
        (lambda description, things: all(subsumes(description, things)), 'a list of two'),
        (lambda description, things: [n for n, fits in enumerate(subsumes(description, things)) if fits], 'a list of two'),
        (lambda description, things: [int(fits) for fits in subsumes(description, things)], 'a list of two'),
        (lambda description, things: [set(description) <= set(thing) for thing in things], 'values are compared'),
        (lambda description, things: subsumes(description, things, get=lambda thing, trait, value: thing[trait] == value), 'KeyError'),
        (lambda description, things: subsumes(description, things, get=lambda thing, trait, value: thing.get(trait, value) == value), 'cannot be named rightly'),
        (lambda description, things: [thing.items() <= description.items() for thing in things], 'other way round'),
        (lambda description, things: [thing == description for thing in things], 'says less'),
        (lambda description, things: [subsumes(description, [thing], any)[0] and set(description) <= set(thing) for thing in things], 'one wrong trait'),
        (lambda description, things: [set(description.values()) <= set(thing.values()) for thing in things], 'same trait'),
        (lambda description, things: [bool(description) and said for said in subsumes(description, things)], 'true of everything'),
        (up_to_the_first_that_fails, 'judged for itself'),
        (lambda description, things: subsumes(description, things)[::-1], 'values are compared'),
    ])
