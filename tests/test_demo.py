"The demo, tiny: from nothing to its report, killed and resumed, with figures that a plain count confirms."
import importlib.util
import io
import json
import math
import re
import statistics
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from killing import begin, kill, wait_until

from vlground.boxes import box_iou
from vlground.core import load_json, save_json
from vlground.demo import (ARMS, SIZES, DemoSize, circumstances, collect, curves_figure, demo_jobs, demo_table, difference_figure, differences, efficiency_figure, finetuning_figure, label_figure,
                           mean_and_error, answers_of, run_demo, run_demo_jobs, run_folder, verdict, write_report)
from vlground.expressions import read_refer
from vlground.pretrain import build_model
from vlground.store import Store

TINY = DemoSize(pairs=40, val=12, refer=40, steps=8, finetune_steps=(6, 4), fractions=(1., 1/2), headline=1/2, seeds=2, regions=6)
FIGURES = ('labels', 'refer', 'fractions', 'pretrained', 'zero_shot', 'chance', 'ceiling', 'test_expressions', 'plan')


@pytest.fixture(scope='module')
def done(tmp_path_factory):
    "A demo that nobody disturbed."
    folder = tmp_path_factory.mktemp('demo')/'whole'
    with redirect_stdout(io.StringIO()) as said: demo = run_demo(folder, TINY, seed=4, workers=1, quiet=True)
    return folder, demo, said.getvalue()


DEMO = '''
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_demo import TINY
from vlground.demo import run_demo
if __name__ == '__main__': run_demo(Path(sys.argv[1]), TINY, seed=4, workers=2, quiet=True)
'''


def test_killed_and_run_again_it_comes_to_the_same_figures(done, tmp_path):
    whole, demo, _ = done
    (tmp_path/'demo.py').write_text(DEMO)
    process = begin(str(tmp_path/'demo.py'), tmp_path/'killed', Path(__file__).parent)
    # both pre-trainings of the first seed have ended, fine-tunings have not
    wait_until(process, lambda: len(list(tmp_path.glob('killed/runs/*/zero_shot.json'))) >= 2)
    kill(process)
    assert not (tmp_path/'killed'/'demo.json').exists(), 'it was killed too late to show anything'
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob('killed/runs/*/final.safetensors')}
    with redirect_stdout(io.StringIO()): again = run_demo(tmp_path/'killed', TINY, seed=4, workers=1, quiet=True)
    assert {name: again[name] for name in FIGURES} == {name: demo[name] for name in FIGURES}
    assert before and all(path.stat().st_mtime_ns == time for path, time in before.items()), 'what was finished is not done again'
    for arm in ('baseline', 'ours'):
        a, b = (build_model(run_folder(folder, arm, 4000)).state_dict() for folder in (whole, tmp_path/'killed'))
        assert all(map(torch.equal, a.values(), b.values()))


def test_demo_json_holds_what_is_promised(done):
    folder, demo, said = done
    assert load_json(folder/'demo.json') == json.loads(json.dumps(demo)) and demo['seconds'] > 0
    assert {'precision', 'recall', 'coverage', 'by_kind'} < set(demo['labels']) and all(0 < demo['labels'][name] <= 1 for name in ('precision', 'recall', 'coverage'))
    for arm in ARMS: assert set(demo['refer'][arm]) == {'accuracy', 'stderr', 'n'} and demo['refer'][arm]['n'] == 2
    assert 0 < demo['refer']['chance'] < demo['refer']['ceiling'] <= 1 and demo['refer']['ours'] == demo['fractions']['0.5']['ours']
    assert demo['fractions']['1']['expressions'] > demo['fractions']['0.5']['expressions'] > 0
    assert set(demo['pretrained']['ours']) == {'alignment', 'pairs', 'phrases'} and set(demo['pretrained']['baseline']) == {'alignment'}
    assert {'date', 'machine', 'python', 'torch', 'commit'} <= set(demo['made']) == set(circumstances())
    assert said.count('expressions') == 2 and f'report: {folder/"report.html"}' in said


def test_accuracies_are_those_of_the_answers(done):
    "Counted again from the predictions on disk, for every run: right where the best of its regions has IoU > 0.5."
    folder, demo, _ = done
    store, data = Store(folder/'regions'), read_refer(folder/'W'/'refer')
    files = {said.id: said.file_name for said in data.expressions}
    for name, fraction in (('1', 1.), ('0.5', 1/2)):
        shares = {}
        for arm in ARMS:
            for seed in (4000, 4001):
                hits = []
                for answer in answers_of(run_folder(folder, arm, seed, fraction)):
                    candidates = [[0., 0., 256., 256.], *store.get(files[answer['id']]).boxes.tolist()]
                    best = max(range(len(answer['scores'])), key=answer['scores'].__getitem__)
                    hits.append(bool(box_iou(torch.tensor([candidates[best]]), torch.tensor([answer['box']]))[0, 0] > .5))
                assert len(hits) == demo['test_expressions'] == len(data.split('testA')) + len(data.split('testB'))
                shares[arm, seed] = sum(hits)/len(hits)
        row = demo['fractions'][name]
        for arm in ARMS:
            mine = [shares[arm, seed] for seed in (4000, 4001)]
            assert row[arm]['accuracy'] == pytest.approx(statistics.mean(mine)) and row[arm]['stderr'] == pytest.approx(statistics.stdev(mine)/math.sqrt(2))
        gaps = [shares['ours', seed] - shares['baseline', seed] for seed in (4000, 4001)]
        assert row['difference']['accuracy'] == pytest.approx(statistics.mean(gaps)) and row['difference']['stderr'] == pytest.approx(statistics.stdev(gaps)/math.sqrt(2))
        for arm in ('baseline', 'ours'):
            gaps = [shares[arm, seed] - shares['scratch', seed] for seed in (4000, 4001)]
            assert (row['over_scratch'][arm]['accuracy'], row['over_scratch'][arm]['stderr']) == pytest.approx((statistics.mean(gaps), statistics.stdev(gaps)/math.sqrt(2)))


def test_arms_differ_in_nothing_but_the_loss_and_its_learning_rate(done):
    folder, _, _ = done
    for seed in (4000, 4001):
        ours, base = (load_json(run_folder(folder, arm, seed)/'config.json') for arm in ('ours', 'baseline'))
        assert {key for key, value in ours['pretrain'].items() if value != base['pretrain'][key]} == {'grounding', 'learning_rate'} and base['pretrain']['grounding'] == 'none'
        assert {key: value for key, value in ours.items() if key not in ('pretrain', 'train')} == {key: value for key, value in base.items() if key not in ('pretrain', 'train')}
        assert {key for key, value in ours['train'].items() if value != base['train'][key]} == {'learning_rate'}
        for fraction in TINY.fractions:
            results = [load_json(run_folder(folder, arm, seed, fraction)/'result.json') for arm in ARMS]
            assert all(result['expressions'] == results[0]['expressions'] for result in results)
            trains = [load_json(run_folder(folder, arm, seed, fraction)/'config.json') for arm in ARMS]
            assert len({train['data'].pop('start') for train in trains}) == 3 # the weights they begin with
            assert trains[0] == trains[1] == trains[2]


# the report

def test_the_report_says_what_demo_json_says_and_fetches_nothing(done):
    folder, demo, _ = done
    page = (folder/'report.html').read_text()
    table = re.search(r'<h2>Referring expressions</h2>.*?<table>(.*?)</table>', page, re.S)[1]
    rows = [re.findall(r'<td>(.*?)</td>', row) for row in re.findall(r'<tr>(.*?)</tr>', table, re.S)[1:]]
    for row, found in zip(rows, demo['fractions'].values(), strict=True):
        assert row[0] == f'{found["expressions"]:,}'
        assert row[1:4] == [f'{found[arm]["accuracy"]*100:.1f} ± {found[arm]["stderr"]*100:.1f}' for arm in ARMS]
        gaps = [f'{each["accuracy"]*100:+.1f} ± {each["stderr"]*100:.1f}'.replace('-', '−') for each in (found['difference'], found['over_scratch']['ours'], found['over_scratch']['baseline'])]
        assert row[4:] == gaps and verdict(found) in page
    assert page.count('<img') == 5 and page.count('src="data:image/png;base64,') == 5 and all(len(alt) > 20 for alt in re.findall(r'<img alt="(.*?)"', page))
    assert not re.findall(r'(?:src|href)="(?!data:)', page) and '<script' not in page
    for kind, row in demo['labels']['by_kind'].items():
        precision = f'{row["precision"]*100:.0f}' if row['matched'] else '–'
        assert f'<tr><td>{"nothing in the picture" if kind == "none" else kind}</td><td>{row["matched"]:,}</td><td>{precision}</td>' in page
    headline = re.search(r'<p class="verdict">(.*?)</p>', page)[1]
    assert page.count('class="verdict"') == 1 and headline == f'{demo["refer"]["expressions"]:,} expressions: {verdict(demo["refer"])}.'
    assert '(0.002 with grounding, 0.001 without)' in page
    won, lost = differences(folder, 4000, 1/2)
    assert f'{len(won)} test expressions are answered rightly\nonly with grounding and {len(lost)} only without it' in page


def test_the_report_passes_the_check_of_the_repository(done):
    spec = importlib.util.spec_from_file_location('check_demo', Path(__file__).parent.parent/'.ci'/'check_demo.py')
    check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check)
    assert not check.problems_of_report((done[0]/'report.html').read_text())
    # eight steps may leave an arm below chance, which the check would say; all else must be there
    assert all('far below chance' in problem for problem in check.problems_of(done[1], 'small'))


def test_figures_can_be_drawn_and_empty_panels_are_blank(done):
    folder, demo, _ = done
    assert len(efficiency_figure(demo).axes[0].lines) >= 4 and len(curves_figure(folder, [4000, 4001]).axes) == 6
    assert [axes.get_title() for axes in finetuning_figure(folder, TINY, [4000, 4001]).axes] == ['all expressions', '0.5 of the pictures']
    for figure in (label_figure(folder), difference_figure(folder, *differences(folder, 4000, 1/2))):
        assert len(figure.axes) == 6
        for axes in figure.axes: assert bool(axes.images) == bool(axes.get_title()) == axes.axison


def test_the_table_for_the_readme(done):
    lines = demo_table(done[1]).split('\n')
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines if line.startswith('|')]
    assert len(rows) == 2 + len(TINY.fractions) and {len(row) for row in rows} == {7}
    for row, found in zip(rows[2:], done[1]['fractions'].values()): assert row[0] == f'{found["expressions"]:,}' and row[3] == f'{found["ours"]["accuracy"]*100:.1f} ± {found["ours"]["stderr"]*100:.1f}'
    assert f'{done[1]["test_expressions"]:,} referring expressions' in lines[-5] + lines[-4] + lines[-3] and done[1]['made']['date'][:10] in lines[-1]


def test_a_second_run_stands_below_the_table(done):
    first, second = (json.loads(json.dumps(done[1])) for _ in range(2))
    for demo, gaps in ((first, (.05, .05)), (second, (.01, .06))):
        for row, gap in zip(demo['fractions'].values(), gaps): row['difference'] |= dict(accuracy=gap, stderr=.02)
    numbers = [f'{row["expressions"]:,}' for row in first['fractions'].values()]
    table, said = demo_table(first, second).split('\n\nAnother processor')
    assert table == demo_table(first) and '+1.0 ± 2.0, +6.0 ± 2.0' in said and said.endswith(f'the gain with {numbers[1]} expressions.') and second['made']['date'][:10] in said
    for row in second['fractions'].values(): row['difference']['accuracy'] = 0.
    assert demo_table(first, second).endswith('the gain with no number of expressions.')


# jobs

@pytest.mark.parametrize('name', SIZES)
def test_every_job_comes_after_what_it_needs(name):
    size = SIZES[name]
    jobs = demo_jobs(size, range(size.seeds))
    order = list(jobs)
    assert len(order) == size.seeds*(2 + len(ARMS)*len(size.fractions))
    for job, need in jobs.items():
        if need is not None: assert order.index(need) < order.index(job) and job[1] == need[1] and job[0] in (need[0], 'scratch')
    assert len({run_folder(Path(), *job) for job in order}) == len(order)


def test_a_job_that_fails_ends_the_demo_and_says_why(tmp_path):
    for workers in (1, 2):
        with pytest.raises(FileNotFoundError): run_demo_jobs(tmp_path, TINY, [0, 1], workers, quiet=True)


@pytest.mark.parametrize('change', [dict(steps=9), dict(pairs=41), dict(fractions=(1., 1/4), headline=1.)])
def test_another_size_is_refused(done, tmp_path, change):
    copytree(done[0]/'W', tmp_path/'demo'/'W')
    save_json(load_json(done[0]/'plan.json'), tmp_path/'demo'/'plan.json')
    with pytest.raises(ValueError, match='holds a demo of another size, seed or version'): run_demo(tmp_path/'demo', replace(TINY, **change), seed=4, quiet=True)
    with pytest.raises(ValueError, match='holds a demo of another size, seed or version'): run_demo(tmp_path/'demo', TINY, seed=5, quiet=True)


@pytest.mark.parametrize('change, told', [(dict(seeds=1), 'two seeds'), (dict(headline=1/3), 'none of the fractions'), (dict(finetune_steps=(5,)), 'as many finetune_steps')])
def test_sizes_that_cannot_be(change, told):
    with pytest.raises(ValueError, match=told): replace(TINY, **change)


# figures of several seeds

@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_mean_and_error(values):
    found = mean_and_error(values)
    assert found['n'] == len(values) and found['accuracy'] == pytest.approx(statistics.mean(values), abs=1e-9)
    assert found['stderr'] == pytest.approx(statistics.stdev(values)/math.sqrt(len(values)), abs=1e-7)


@pytest.mark.parametrize('gap, error, said', [(.05, .02, 'with grounding is ahead: +5.0 ± 2.0 points'), (.05, .025, 'undecided: +5.0 ± 2.5 points'), (-.05, .02, 'with grounding is behind: −5.0 ± 2.0 points'),
                                              (0., 0., 'undecided'), (.05, math.nan, 'undecided'), (-.01, .02, 'undecided: −1.0 ± 2.0 points')])
def test_verdict(gap, error, said):
    alone = dict(ours=dict(accuracy=.021, stderr=.01, n=3), baseline=dict(accuracy=-.034, stderr=.02, n=3))
    sentence = verdict(dict(difference=dict(accuracy=gap, stderr=error, n=3), over_scratch=alone))
    assert sentence.startswith(said) and sentence.endswith('points over 3 seeds (against no pre-training: +2.1 ± 1.0 with grounding, −3.4 ± 2.0 without grounding)')


def test_collect_and_write_again(done):
    folder, demo, _ = done
    found = collect(folder, TINY, [4000, 4001])
    assert all(demo[name] == value for name, value in found.items())
    page = (folder/'report.html').read_bytes()
    assert write_report(folder, TINY, [4000, 4001], demo).read_bytes() == page
