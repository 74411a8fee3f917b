"The checks behind the exercises of lesson 11, on checking folders."
from collections import Counter

from checking import assert_check

from vlground import checks_labels as checks


def folder_kind(names, first=False, exact=False, loose=False, upper=True, whole=True, order=('store', 'refer', 'captions', 'pictures'), start=False, inside=False):
    def of(names):
        ends = '' if start else '.p' if loose else ').p'
        refer = 'refs(unc).p' in names if exact else any(name.startswith('refs' if loose else 'refs(') and name.endswith(ends) for name in names)
        captions = any(name in ('captions.tsv', 'captions.jsonl') if whole else 'captions.tsv' in name or name == 'captions.jsonl' for name in names)
        pictures = any('.jpg' in name.lower() or '.png' in name.lower() if inside else (name.lower() if upper else name).endswith(('.jpg', '.png')) for name in names)
        signs = dict(store='manifest.json' in names, refer=refer, captions=captions, pictures=pictures)
        return next((kind for kind in order if signs[kind]), 'unknown')
    return next((kind for name in names if (kind := of([name])) != 'unknown'), 'unknown') if first else of(names)


def test_check_folder_kind():
    assert_check(checks.check_folder_kind, folder_kind, [
        (lambda names: folder_kind(names, first=True), 'although there are pictures'),
        (lambda names: folder_kind(names, exact=True), 'umd'),
        (lambda names: folder_kind(names, loose=True), 'no brackets'),
        (lambda names: folder_kind(names, upper=False), 'upper case'),
        (lambda names: folder_kind(names, order=('store', 'captions', 'refer', 'pictures')), 'before captions'),
        (lambda names: folder_kind(names, order=('refer', 'store', 'captions', 'pictures')), 'before all others'),
        (lambda names: folder_kind(names, start=True), 'refs(unc).txt'),
        (lambda names: folder_kind(names, inside=True), 'a.jpg.txt'),
        (lambda names: folder_kind(names, whole=False), 'whole names'),
        (lambda names: folder_kind(names) if names else 'pictures', 'empty folder'),
    ])


def repeated(captions, share, edge=False, lower=True, strip=True, order=True):
    count = Counter((text.strip() if strip else text).lower() if lower else text.strip() for text in captions)
    found = [text for text, n in count.items() if (n >= share*len(captions) if edge else n > share*len(captions))]
    return sorted(found, key=lambda text: (-count[text], text)) if order else sorted(found)


def test_check_repeated():
    assert_check(checks.check_repeated, repeated, [
        (lambda *a: repeated(*a, edge=True), 'exactly one half'),
        (lambda *a: repeated(*a, lower=False), 'same caption'),
        (lambda *a: repeated(*a, strip=False), 'Blanks'),
        (lambda *a: repeated(*a, order=False), 'most frequent one comes first'),
        (lambda captions, share: [text for text, n in Counter(text.strip().lower() for text in captions).most_common() if n > share*len(captions)], 'alphabetical'),
    ])
