"The look that .ci/run takes at the demo's figures finds what is missing or cannot be true."
import copy
import importlib.util

import pytest
from notebooks import ROOT

spec = importlib.util.spec_from_file_location('check_demo', ROOT/'.ci'/'check_demo.py')
check_demo = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_demo)


def arm(accuracy, stderr=.01): return {'accuracy': accuracy, 'stderr': stderr, 'n': 3}


GOOD = {'seconds': 200., 'labels': {'precision': .8, 'recall': .7, 'coverage': .9}, 'fractions': {'1': {}},
        'refer': {'baseline': arm(.4), 'ours': arm(.5), 'difference': arm(.1), 'chance': .1, 'ceiling': .9}}


@pytest.mark.parametrize('size', ['small', 'full'])
def test_good_figures_pass(size): assert check_demo.problems_of(GOOD, size) == []


@pytest.mark.parametrize('path, value, word', [
    ('seconds', None, 'seconds'), ('labels.recall', 0., 'labels.recall'), ('labels.coverage', 1.2, 'labels.coverage'), ('labels', None, 'labels.precision'),
    ('refer.ours.accuracy', float('nan'), 'refer.ours.accuracy'), ('refer.ours.accuracy', 50., 'refer.ours.accuracy'), ('refer.ours', None, 'refer.ours.n'),
    ('refer.ours.accuracy', .95, 'above the ceiling'), ('refer.baseline.accuracy', .01, 'below chance'), ('refer.chance', .95, 'not below the ceiling'),
    ('refer.difference', None, 'refer.difference'), ('fractions', None, 'fractions')])
def test_bad_figures_are_found(path, value, word):
    demo = copy.deepcopy(GOOD)
    *way, last = path.split('.')
    place = demo
    for key in way: place = place[key]
    if value is None: del place[last]
    else: place[last] = value
    assert any(word in problem for problem in check_demo.problems_of(demo, 'small'))


def test_only_the_full_size_must_decide_the_question():
    demo = copy.deepcopy(GOOD) | {'refer': GOOD['refer'] | {'difference': arm(.015)}}
    assert check_demo.problems_of(demo, 'small') == []
    assert any('twice the standard error' in problem for problem in check_demo.problems_of(demo, 'full'))


def test_the_report_stands_alone():
    good = '<table></table><img src="data:image/png;base64,AA"><a href="https://example.org">more</a>'
    assert check_demo.problems_of_report(good) == []
    assert len(check_demo.problems_of_report('<p>nothing</p>')) == 2
    for outside in ('<script src="https://cdn.example.org/x.js"></script>', '<link rel="stylesheet" href="https://example.org/x.css">', '<img src="/etc/x.png">'):
        assert check_demo.problems_of_report(good + outside)
