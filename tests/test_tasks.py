"All tasks at once: which jobs there are, what starts them, and that the table holds the means of what they measured."
import json
import re
from dataclasses import replace
from statistics import mean, stdev

import pytest

from vlground.core import load_json, rng, save_json
from vlground.questions import read_vqa
from vlground.tasks import ARMS, COLUMNS, Job, TasksSize, collect_tasks, jobs_of, run_tasks, task_job, tasks_figure, tasks_rows, tasks_table
from vlground.worldfiles import write_world

SIZE, SEEDS = TasksSize(30, 60, 4, 4, 4, 2, least=2), (3000, 3001, 3002)


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    "A demo and its tasks, whose numbers were drawn."
    top = tmp_path_factory.mktemp('tasks')
    demo, out, draw = top/'demo', top/'out', rng('tests', 'tasks')
    write_world(out/'W', 1, 1, 1, 1, quiet=True, vqa=SIZE.vqa, vcr=SIZE.vcr)
    cell = dict(accuracy=.5, stderr=.01, n=3)
    save_json(dict(fractions={'1': dict(scratch=cell, baseline=cell | dict(accuracy=.6), ours=cell | dict(accuracy=.7), difference=dict(accuracy=.1, stderr=.02, n=3))},
                   chance=.07, ceiling=.91, test_expressions=2000), demo/'demo.json')
    jobs = jobs_of(demo, out, SIZE, SEEDS)
    for job in jobs:
        number = draw.random
        found = dict(refer=dict(accuracy=number(), off_the_shelf=.4), vqa=dict(val={kind: dict(accuracy=number(), n=9) for kind in ('all', 'yes/no', 'number', 'other')}),
                     vcr=dict(val=dict(answer=number(), rationale=number(), joint=number(), items=7)))
        save_json(found[job.task], job.folder/'measured.json')
        if job.task != 'refer': (job.folder/'predictions-val.jsonl').touch()
        lines = [dict(step=step, evaluation=dict(accuracy=step/100 + job.seed)) if step % 2 else dict(step=step, parts=dict(loss=1.)) for step in range(1, 6)]
        if job.task == 'vqa': (job.folder/'log.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return demo, out, jobs, collect_tasks(demo, out, jobs)


def test_each_task_has_its_arms_and_each_arm_its_start(tmp_path):
    jobs = jobs_of(tmp_path/'demo', tmp_path/'out', SIZE, SEEDS)
    assert len(jobs) == len(set(job.folder for job in jobs)) == 3*(4 + 4 + 3)
    for job in jobs:
        arm = {'blind': 'ours', 'ours': 'ours'}.get(job.arm, 'baseline')
        if job.arm != 'grounder': assert job.start() == 'scratch:'*(job.arm == 'scratch') + str(tmp_path/'demo'/'runs'/f'{arm}-{job.seed}')
    assert {job.task for job in jobs if job.arm == 'ours'} == {'vqa', 'vcr'} # those of refer are the demo's


@pytest.mark.parametrize('column, task, read', [('vqa', 'vqa', lambda found: found['val']['all']['accuracy']), ('refer', 'refer', lambda found: found['accuracy']),
    *((name, 'vcr', lambda found, name=name: found['val'][name]) for name in ('answer', 'rationale', 'joint'))])
def test_every_cell_is_the_mean_of_its_runs(measured, column, task, read):
    demo, out, jobs, found = measured
    runs = {(job.arm, job.seed): read(load_json(job.folder/'measured.json')) for job in jobs if job.task == task}
    for arm in {arm for arm, _ in runs}:
        values = [runs[arm, seed] for seed in SEEDS]
        assert found['accuracy'][column][arm] == dict(accuracy=pytest.approx(mean(values)), stderr=pytest.approx(stdev(values)/3**.5), n=3)
    if task != 'refer':
        gaps = [runs['ours', seed] - runs['baseline', seed] for seed in SEEDS]
        assert found['difference'][column] == dict(accuracy=pytest.approx(mean(gaps)), stderr=pytest.approx(stdev(gaps)/3**.5), n=3)


def test_what_the_demo_measured_is_taken_from_it(measured):
    _, _, _, found = measured
    assert [found['accuracy']['refer'][arm]['accuracy'] for arm in ('scratch', 'baseline', 'ours')] == [.5, .6, .7]
    assert found['difference']['refer']['accuracy'] == .1 and (found['chance']['refer'], found['refer_ceiling'], found['samples']['refer']) == (.07, .91, 2000)


def test_chance_of_vqa_is_the_most_frequent_answer(measured):
    _, out, _, found = measured
    said = [question.answer for question in read_vqa(out/'W'/'vqa', 'train')]
    best = max(sorted(set(said)), key=said.count)
    scores = [min(1, [0, .3, .6, .9, 1][min(4, question.answers.count(best))]) for question in read_vqa(out/'W'/'vqa', 'val')]
    assert found['chance']['vqa'] == pytest.approx(mean(scores)) and found['chance']['joint'] == .25**2


def test_the_courses_are_the_measurements_of_each_seed(measured):
    _, _, _, found = measured
    assert found['courses'].keys() == {'blind', 'scratch', 'baseline', 'ours'}
    for courses in found['courses'].values(): assert courses == [[(step, pytest.approx(step/100 + seed)) for step in (1, 3, 5)] for seed in SEEDS]


def test_the_table_says_all_of_it(measured):
    _, _, _, found = measured
    head, chance, *arms, difference = tasks_rows(found)
    assert head[1:] == list(COLUMNS.values()) and [row[0] for row in arms] == list(ARMS.values()) and all(len(row) == 6 for row in (chance, *arms, difference))
    ours = found['accuracy']['vqa']['ours']
    assert arms[-1][2] == f'{ours["accuracy"]*100:.1f} ± {ours["stderr"]*100:.1f}' and arms[1][2:] == ['–']*4 and difference[1] == '+10.0 ± 2.0'
    assert re.search(r'2,000 expressions, [\d,]+ questions and [\d,]+ items', tasks_table(found)) and len(tasks_figure(found).axes) == len(COLUMNS)


def test_what_is_measured_is_not_done_again(measured):
    _, _, jobs, _ = measured
    before = (jobs[0].folder/'measured.json').read_bytes()
    assert task_job(jobs[0]) is jobs[0] and (jobs[0].folder/'measured.json').read_bytes() == before and not (jobs[0].folder/'config.json').exists()
    assert isinstance(jobs[0], Job)


def test_a_folder_without_a_demo_and_one_with_other_tasks(tmp_path):
    with pytest.raises(FileNotFoundError, match='no demo.json; run vlground_demo --out'): run_tasks(tmp_path, tmp_path/'out', SIZE, quiet=True)
    save_json(dict(fractions={'0.5': {}}), tmp_path/'demo.json')
    save_json(dict(plan=dict(seed=0, size=dict(seeds=2))), tmp_path/'plan.json')
    with pytest.raises(ValueError, match='not fine-tuned on all expressions'): run_tasks(tmp_path, tmp_path/'out', SIZE, quiet=True)
    save_json(dict(fractions={'1': {}}), tmp_path/'demo.json')
    save_json(dict(another=1), tmp_path/'out'/'plan.json')
    with pytest.raises(ValueError, match='holds other tasks'): run_tasks(tmp_path, tmp_path/'out', replace(SIZE, vqa=31), quiet=True)
