"Faults of a fine-tuning, injected into the command itself: killed again and again, on each task, it ends with the weights, answers and figures of the undisturbed run."
import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from faults import Job, command, end_of, figures, saved
from killing import contents
from published import refcoco_plus, vcr_1, vqa_2

from vlground import finetuning
from vlground.core import sha256
from vlground.regions import write_boxes
from vlground.store import extract_regions
from vlground.vcr import object_boxes
from vlground.vcrdata import read_vcr

pytestmark = pytest.mark.filterwarnings('ignore:.*use of fork')
STEPS, SAVE_EVERY = dict(refer=120, vqa=120, vcr=80), 5
LEFT = {'refer': ('predictions-val.jsonl', 'predictions-testA.jsonl', 'predictions-testB.jsonl'), 'vqa': ('answers.json', 'submission-val.json', 'submission-test.json'), 'vcr': ('leaderboard-test.csv',)}


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    "Each task's files in the published layout, with the regions of their pictures."
    folder = tmp_path_factory.mktemp('data')
    for task, write in dict(refer=refcoco_plus, vqa=vqa_2, vcr=vcr_1).items(): write(folder/task)
    extract_regions(folder/'refer'/'train2014', folder/'refer'/'R', keep=6, quiet=True)
    extract_regions(folder/'vqa'/'images', folder/'vqa'/'R', keep=6, quiet=True)
    boxes = object_boxes(folder/'vcr', [item for split in ('train', 'val', 'test') for item in read_vcr(folder/'vcr', split)])
    extract_regions(folder/'vcr'/'vcr1images', folder/'vcr'/'R', boxes=write_boxes(boxes, folder/'boxes.jsonl'), quiet=True)
    return folder


@pytest.fixture
def begin(data, runs, tmp_path):
    "Starts the command, and ends those that a test left."
    started = []
    def start(task, kind, out, dying=False, **changes):
        where = dict(refer='refer', vqa='vqa', vcr='.')[task]
        words = ['vlground_finetune', task, '--data', data/task/where, '--regions', data/task/'R', '--start', runs/kind, '--out', out, '--steps', STEPS[task], '--batch_size', 4, '--save_every', SAVE_EVERY, *(['--least', 2] if task == 'vqa' else [])]
        words += [word for name, value in changes.items() for word in (f'--{name}', value)]
        def do():
            finetuning.TrainConfig = partial(finetuning.TrainConfig, log_every=2) # in the process of the command alone
            if dying: finetuning.train = partial(and_die, finetuning.train)
            command(*words)
        started.append(Job(do, told=tmp_path/f'told-{len(started)}'))
        return started[-1]
    yield start
    for job in started: job.kill()


def and_die(do, *args, **keywords):
    do(*args, **keywords)
    os.kill(os.getpid(), signal.SIGKILL)


def outcome(folder: Path) -> dict[str, bytes]:
    "All that a run leaves but its logs, its checkpoints and the clock of its summary."
    return {name: content for name, content in contents(folder).items() if not name.startswith(('checkpoints/', 'tensorboard/')) and name not in ('log.jsonl', 'summary.json')}


@pytest.mark.fault(1, 4)
@pytest.mark.parametrize('task, kind', [('refer', 'vilbert'), ('vqa', 'vlbert'), ('vcr', 'vilbert'), ('vcr', 'vlbert')])
def test_a_fine_tuning_that_is_killed_again_and_again(begin, tmp_path, record_property, task, kind):
    "SIGKILL three times in the training, and once when that has ended and no answer is written."
    whole, folder, moments, found = tmp_path/'whole', tmp_path/'run', random.Random(f'{task} {kind}'), []
    job = begin(task, kind, whole)
    assert job.wait() == 0, job.said
    for step in (SAVE_EVERY, 3*SAVE_EVERY, 6*SAVE_EVERY):
        job = begin(task, kind, folder).until(lambda: saved(folder) >= step)
        time.sleep(moments.uniform(0, .06))
        job.kill()
        assert job.process.exitcode == -signal.SIGKILL and not (folder/'summary.json').exists(), 'it was killed too late to show anything'
        found.append(saved(folder))
    assert found == sorted(found) and SAVE_EVERY <= found[0] and found[-1] < STEPS[task]
    assert begin(task, kind, folder, dying=True).wait() == -signal.SIGKILL and (folder/'summary.json').exists() and not (folder/'result.json').exists()
    job = begin(task, kind, folder)
    assert job.wait() == 0, job.said
    record_property(f'sha256: {kind} fine-tuned on {task}, undisturbed', end_of(whole))
    record_property(f'sha256: {kind} fine-tuned on {task}, killed four times', end_of(folder))
    assert sha256(folder/'final.safetensors') == sha256(whole/'final.safetensors') and end_of(folder) == end_of(whole) and figures(folder) == figures(whole)
    left = outcome(whole)
    assert left.keys() >= {'config.json', 'final.safetensors', 'result.json', *LEFT[task]} and outcome(folder) == left
    assert not list(folder.rglob('.*part*')), 'something is left to be cleaned by hand'


@pytest.mark.fault(5)
@pytest.mark.parametrize('changes, told', [(dict(steps=121), 'finetune.steps'), (dict(seed=1), 'finetune.seed'), (dict(learning_rate=.5), 'learning_rate'), (dict(start='vlbert'), 'start'), (dict(regions='other'), 'regions')])
def test_another_fine_tuning_in_the_same_folder_is_refused(begin, data, runs, tmp_path, changes, told):
    folder = tmp_path/'run'
    begin('vqa', 'vilbert', folder).until(lambda: saved(folder) >= SAVE_EVERY).kill()
    before = contents(folder)
    if 'regions' in changes: changes = dict(regions=extract_regions(data/'vqa'/'images', tmp_path/'other', keep=5, quiet=True))
    if 'start' in changes: changes = dict(start=runs/'vlbert')
    job = begin('vqa', 'vilbert', folder, **changes)
    assert job.wait() == 1 and told in job.lines[-1] and '--accept_changes' in job.lines[-1] and 'Traceback' not in job.said, job.said
    assert contents(folder) == before
