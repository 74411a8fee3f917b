"The checks behind the exercises of lesson 06, Flickr30k."
import re

from checking import assert_check

from vlground import checks_labels as checks


MARK = re.compile(r'\[/EN#(\d+)/(\S+) ([^\]]*)\]')


def phrases_in(line, start=None, kinds=False, end=0):
    text = MARK.sub(r'\3', line)
    phrases, shift = [], 0
    for mark in MARK.finditer(line):
        at = mark.start() - shift if start is None else start(text, mark)
        phrases.append((at, at + len(mark[3]) + end, mark[1] + ('/' + mark[2].split('/')[0] if kinds and '/' in mark[2] else '')))
        shift += len(mark[0]) - len(mark[3])
    return text, phrases


def searched_behind_the_last(line):
    (text, phrases), at, found = phrases_in(line), 0, []
    for start, end, chain in phrases:
        at = text.index(text[start:end], at) + end - start
        found.append((at - end + start, at, chain))
    return text, found


def test_check_phrases_in():
    assert_check(checks.check_phrases_in, phrases_in, [
        (lambda line: (line, []), 'free of all markup'),
        (lambda line: (re.sub(r'\s+', '', phrases_in(line)[0]), phrases_in(line)[1]), 'spaces as they were'),
        (lambda line: phrases_in(line, end=-1), 'one past the last'),
        (lambda line: (phrases_in(line)[0], phrases_in(line)[1] or None), 'could not be read'),
        (lambda line: phrases_in(line, start=lambda text, mark: mark.start()), 'not of the line'),
        (lambda line: phrases_in(line, kinds=True), 'several kinds'),
        (lambda line: phrases_in(line, start=lambda text, mark: text.index(mark[3])), 'twice'),
        (searched_behind_the_last, 'part of an earlier word'),
        (lambda line: phrases_in(line) if line.count(' ') < 6 or 'sees' in line or 'and' in line else (phrases_in(line)[0], [(0, 3, '0')]), 'many words'),
    ])


def names_of(captions):
    told = [(words.lower(), chain) for phrases in captions for words, chain in phrases if chain != '0']
    return {chain: list(dict.fromkeys(words for words, other in told if other == chain)) for _, chain in told}


def once_in_all(captions):
    seen, names = set(), {}
    for words, chain in ((words.lower(), chain) for phrases in captions for words, chain in phrases if chain != '0'):
        if words not in seen: names.setdefault(chain, []).append(words)
        seen.add(words)
    return names


def unlike_the_last(captions):
    names = {}
    for words, chain in ((words.lower(), chain) for phrases in captions for words, chain in phrases if chain != '0'):
        if names.setdefault(chain, [None])[-1] != words: names[chain].append(words)
    return {chain: told[1:] for chain, told in names.items()}


def test_check_names_of():
    def all_of(captions): return [phrase for phrases in captions for phrase in phrases]
    assert_check(checks.check_names_of, names_of, [
        (lambda captions: {int(chain): names for chain, names in names_of(captions).items()}, 'as text'),
        (lambda captions: {chain: words for words, chain in all_of(captions)}, 'in a list'),
        (lambda captions: {chain: [words] for words, chain in all_of(captions)}, 'both'),
        (lambda captions: {chain: sorted(names) for chain, names in names_of(captions).items()}, 'the first one first'),
        (lambda captions: {chain: sorted(names, reverse=True) for chain, names in names_of(captions).items()}, 'backwards'),
        (unlike_the_last, 'came between'),
        (lambda captions: names_of([phrases[:1] for phrases in captions]), 'several phrases'),
        (lambda captions: {chain: [words.lower() for words, other in all_of(captions) if other == chain] for chain in names_of(captions)}, 'count once'),
        (lambda captions: {chain: list(dict.fromkeys(words for words, other in all_of(captions) if other == chain)) for chain in names_of(captions)}, 'letters small'),
        (once_in_all, 'Two chains'),
        (lambda captions: names_of([[(words, chain.replace('0', '00')) for words, chain in phrases] for phrases in captions]), 'leave them out'),
        (lambda captions: {chain: [] if chain == '0' else names_of(captions)[chain] for _, chain in all_of(captions)}, 'leave them out'),
        (lambda captions: names_of(captions) or {'0': []}, 'empty dict'),
    ])


def pointed_at(chain, objects, size):
    mine = [each for each in objects if chain in each[0]]*(chain != '0')
    return [box for _, box, _ in mine if box] or [(0, 0, *size)]*any(scene for _, _, scene in mine)


def test_check_pointed_at():
    def boxes(chain, objects): return [box for chains, box, _ in objects if chain in chains and box]
    assert_check(checks.check_pointed_at, pointed_at, [
        (lambda chain, objects, size: [box for _, box, _ in objects], 'another chain does not'),
        (lambda chain, objects, size: boxes(chain, objects)[0] if boxes(chain, objects) else [], 'could not be read'),
        (lambda chain, objects, size: pointed_at(chain, objects, size)[:1], 'several boxes'),
        (lambda chain, objects, size: pointed_at(chain, objects[::-1], size), 'in the order'),
        (lambda chain, objects, size: pointed_at(chain, [each for each in objects if each[0][0] == chain], size), 'several chains'),
        (lambda chain, objects, size: pointed_at(chain, [each for each in objects if each[0][-1] == chain], size), 'the first too'),
        (lambda chain, objects, size: sorted(pointed_at(chain, objects, size)), 'in the order of the objects'),
        (lambda chain, objects, size: boxes(chain, objects) or [(0, 0, *size) for chains, _, scene in objects if chain in chains and scene], 'is one box'),
        (lambda chain, objects, size: [box for chains, box, _ in objects if chain in chains], 'empty list'),
        (lambda chain, objects, size: boxes(chain, objects), 'whole picture'),
        (lambda chain, objects, size: pointed_at(chain, objects, size[::-1]), 'width, height'),
        (lambda chain, objects, size: boxes(chain, objects) or [(0, 0, *size)]*any(scene for _, _, scene in objects), 'another chain says nothing'),
        (lambda chain, objects, size: [box or (0, 0, *size) for chains, box, scene in objects if chain in chains and (box or scene)], 'not added'),
        (lambda chain, objects, size: pointed_at('x', [(('x',), box, scene) for chains, box, scene in objects if chain in chains], size), 'Chain 0'),
        (lambda chain, objects, size: pointed_at(chain, [((chain,)*(chain in ''.join(chains)), box, scene) for chains, box, scene in objects], size), 'not chain 12'),
    ])
