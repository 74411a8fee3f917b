"The checks behind the exercises of lesson 01, questions."
import re
from collections import Counter, defaultdict
from itertools import groupby

from checking import assert_check

from vlground import checks_tasks as checks


def majority(answers): return Counter(answers).most_common(1)[0][0] # of equal ones, the first that it met


def soonest(answers):
    counts, winner = Counter(), None
    for answer in answers:
        counts[answer] += 1
        if winner is None or counts[answer] > counts[winner]: winner = answer
    return winner


def test_check_majority():
    assert_check(checks.check_majority, majority, [
        (lambda answers: Counter(answers).most_common(1)[0], 'a string'),
        (lambda answers: Counter(answers).most_common(1), 'a string'),
        (lambda answers: max(Counter(answers).values()), 'a string'),
        (lambda answers: answers[0], 'The first answer'),
        (lambda answers: min(answers, key=answers.count), 'The first answer'),
        (lambda answers: answers[-1], 'The last answer'),
        (lambda answers: majority(answers) if 2*answers.count(majority(answers)) > len(answers) else answers[0], 'more than half'),
        (lambda answers: max(answers[::-1], key=answers.count), 'Neither the last'),
        (lambda answers: max(sorted(answers), key=answers.count), 'Neither the last'),
        (lambda answers: max(sorted(answers)[::-1], key=answers.count), 'A set forgets'),
        (lambda answers: max(answers, key=lambda answer: (answers.count(answer), answer)), 'A set forgets'),
        (soonest, 'two sooner'),
    ])


def test_a_set_is_refused_whatever_its_order():
    for seed in range(5): # strings have another hash in each process: here their order is drawn
        def by_set(answers): return max(sorted(set(answers), key=lambda answer: hash((seed, answer))), key=answers.count)
        assert not checks.check_majority(by_set)


def chances(answers): return [1/len(set(answers))/answers.count(answer) for answer in answers]


def by_groups(answers, ready=sorted):
    groups = [list(group) for _, group in groupby(ready(answers))]
    return [1/len(groups)/len(group) for group in groups for _ in group]


def test_check_chances():
    assert_check(checks.check_chances, chances, [
        (lambda answers: dict(zip(answers, chances(answers))), 'not one for each answer'),
        (lambda answers: [1/len(set(answers))]*len(set(answers)), 'not one for each answer'),
        (lambda answers: [1/(1 + len(set(answers)))/answers.count(answer) for answer in answers], 'chance is 1'),
        (lambda answers: [1/answers.count(answer) for answer in answers], 'different answers'),
        (lambda answers: [1/len(set(answers))]*len(answers), 'share its chance'),
        (lambda answers: [answers.count(answer)/len(answers) for answer in answers], 'share its chance'),
        (lambda answers: [1/len(answers)]*len(answers), 'first, so the last question'),
        (lambda answers: [(.5 if len(set(answers)) > 1 else 1)/answers.count(answer) for answer in answers], 'written into the code'),
        (lambda answers: by_groups(answers, list), 'side by side'),
        (by_groups, 'order of the questions'),
        (lambda answers: [round(chance, 3) for chance in chances(answers)], 'rounded'),
    ])


def telling_word(asked, least, once=set, cut=str.split, far=lambda share: abs(share - .5), enough=lambda n, least: n >= least, best=lambda word, distance: (-distance, word)):
    answers = defaultdict(list)
    for text, answer in asked:
        for word in once(cut(text)): answers[word].append(answer == 'yes')
    told = {word: far(sum(yes)/len(yes)) for word, yes in answers.items() if enough(len(yes), least)}
    return min(told, key=lambda word: best(word, told[word]))


def by_number(asked, least):
    answers = defaultdict(list)
    for text, answer in asked:
        for word in set(text.split()): answers[word].append(1 if answer == 'yes' else -1)
    return min(answers, key=lambda word: (-abs(sum(answers[word])), word))


def by_parts(asked, least):
    words = sorted({word for text, _ in asked for word in text.split()})
    answers = {word: [answer == 'yes' for text, answer in asked if word in text] for word in words}
    return max((word for word in words if sum(word in text.split() for text, _ in asked) >= least), key=lambda word: abs(sum(answers[word])/len(answers[word]) - .5))


def share_by_occurrence(asked, least):
    answers, questions = defaultdict(list), Counter(word for text, _ in asked for word in set(text.split()))
    for text, answer in asked:
        for word in text.split(): answers[word].append(answer == 'yes')
    return min((word for word in answers if questions[word] >= least), key=lambda word: (-abs(sum(answers[word])/len(answers[word]) - .5), word))


def test_check_telling_word():
    assert_check(checks.check_telling_word, telling_word, [
        (lambda asked, least: (telling_word(asked, least), .5), 'a string'),
        (lambda asked, least: Counter(word for text, _ in asked for word in text.split()).most_common(1)[0][0], 'most frequent word'),
        (lambda asked, least: telling_word(asked, least, far=lambda share: -abs(share - .5)), 'most frequent word'),
        (lambda asked, least: telling_word(asked, least, far=lambda share: share), 'always no'),
        (by_number, 'not the number'),
        (lambda asked, least: telling_word(asked, 1), 'unicorn'),
        (lambda asked, least: telling_word(asked, least, enough=lambda n, least: n > least or least == 1), '*at least*'),
        (lambda asked, least: telling_word(asked, least, once=list), 'stands twice'),
        (share_by_occurrence, 'three times'),
        (lambda asked, least: telling_word(asked, least, once=dict.fromkeys, best=lambda word, distance: -distance), 'though "zebra"'),
        (lambda asked, least: telling_word(asked, least, once=dict.fromkeys, best=lambda word, distance: (-distance, [-ord(letter) for letter in word])), 'though "zebra"'),
        (lambda asked, least: telling_word(asked[::-1], least, once=dict.fromkeys, best=lambda word, distance: -distance), 'not the last'),
        (by_parts, 'parts of words'),
        (lambda asked, least: telling_word(asked, least, cut=lambda text: re.findall(r'\w+', text)), 'with its mark'),
    ])
