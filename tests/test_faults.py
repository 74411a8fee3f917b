"Faults of a pre-training, injected into the command itself: what is left after a kill, a full disk, a request to stop, a broken file; tests/faults.py lists them all."
import ast
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import torch
from faults import FAULTS, Job, alive, children, command, end_of, figures, saved
from killing import contents

from vlground.batches import BatchConfig, CaptionData, TrainingBatches, loss_counts
from vlground.checkpoints import load_checkpoint, weights_sha256
from vlground.core import load_json, save_json
from vlground.grounding import FORMS
from vlground.logs import read_log
from vlground.phrases import load_tokenizer
from vlground.pretrain import PRESETS, PretrainConfig, new_model, pretrain
from vlground.pseudolabels import read_labels
from vlground.store import Store
from vlground.training import TrainConfig, train

pytestmark = [pytest.mark.filterwarnings('ignore:This DataLoader will create'), pytest.mark.filterwarnings('ignore:.*use of fork')]
TESTS = Path(__file__).resolve().parent
MINI = replace(PRESETS['mini'], regions=8, batch_size=8) # of 40 captions: five steps an epoch
STEPS, SAVE_EVERY = 40, 4


# the list

@cache
def marked() -> dict[int, list[str]]:
    "The tests of each fault, as the marks in the sources say."
    found = {}
    for path in sorted(TESTS.glob('test_*.py')):
        for node in ast.parse(path.read_text(encoding='utf-8')).body:
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith('test_'): continue
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == 'pytest.mark.fault':
                    for number in mark.args: found.setdefault(ast.literal_eval(number), []).append(f'{path.name}::{node.name}')
    return found


@pytest.mark.parametrize('number', FAULTS)
def test_every_fault_has_a_test(number):
    assert marked().get(number), f'no test injects fault {number}: {FAULTS[number]}'


def test_no_mark_has_another_number(): assert set(marked()) == set(FAULTS)


# a pre-training as a command: small, and saved often

@pytest.fixture
def jobs():
    "Starts jobs, and ends those that a test left."
    started = []
    def start(do, *args, **keywords):
        started.append(Job(do, *args, **keywords))
        return started[-1]
    yield start
    for job in started: job.kill()


def options(regions, labels, out, steps=STEPS, save_every=SAVE_EVERY, **changes) -> list:
    "The words of a command line; settings that have no option come from a file."
    file = Path(os.environ['VLGROUND_HOME'])/f'settings-{save_every}.json'
    save_json(dict(regions=8, batch_size=8, save_every=save_every), file)
    given = [word for name, value in changes.items() for word in ([f'--{name}'] if value is True else [f'--{name}', value])]
    return ['vlground_pretrain', '--regions', regions, '--labels', labels, '--out', out, '--config', file, '--steps', steps, *given]


@pytest.fixture
def begin(jobs, small_regions, small_labels, tmp_path):
    "Starts the command; what it says is in a file of its own each time."
    def start(out=tmp_path/'run', regions=small_regions, labels=small_labels, before=None, **changes):
        words = options(regions, labels, out, **changes)
        def do():
            if before: before()
            command(*words)
        return jobs(do, told=tmp_path/f'told-{len(list(tmp_path.glob("told-*")))}')
    return start


@pytest.fixture(scope='module')
def whole(small_regions, small_labels, tmp_path_factory):
    "The run that nothing disturbed."
    folder = tmp_path_factory.mktemp('whole')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('VLGROUND_HOME', str(folder))
        job = Job(command, *options(small_regions, small_labels, folder/'run'), told=folder/'told')
        assert job.wait() == 0, job.said
    return folder/'run'


@pytest.mark.fault(1, 4)
@pytest.mark.parametrize('workers', [0, 2])
def test_killed_five_times_it_ends_with_the_weights_of_the_undisturbed_run(begin, whole, tmp_path, record_property, workers):
    "SIGKILL to the command and its loader workers, anywhere from the start of a step to the middle of a save."
    moments, folder, found = random.Random(workers), tmp_path/'run', []
    for step in (0, 4, 12, 20, 28):
        job = begin(workers=workers).until(lambda: saved(folder) >= step)
        time.sleep(moments.uniform(0, .2))
        job.kill()
        assert job.process.exitcode == -signal.SIGKILL and not (folder/'summary.json').exists(), 'it was killed too late to show anything'
        found.append(saved(folder))
    assert found == sorted(found) and found[0] < 12 and found[-1] >= 28
    job = begin(workers=workers)
    assert job.wait() == 0, job.said
    record_property('sha256: a pre-training that nothing disturbed', end_of(whole))
    record_property(f'sha256: killed five times, {workers} loader workers', end_of(folder))
    assert end_of(folder) == end_of(whole) and figures(folder) == figures(whole)
    assert not list(folder.rglob('.*')), 'something is left to be cleaned by hand'


# 1: ckpt-chaos. The number of points is capped, since each costs two processes; test_checkpoints.py tries every file event of a save, one after the other

TOY = '''
import sys
import torch
from torch import nn
from vlground.core import torch_rng
from vlground.training import TrainConfig, train

begun = []

def make_batch(step):
    if not begun: print('resumed from step', step)
    begun.append(step)
    return torch.rand(4, 3, generator=torch_rng('toy', step))

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(.1), nn.Linear(4, 1))
config = TrainConfig(steps=8, batch_size=4, learning_rate=1e-2, save_every=2, keep=int(sys.argv[2]), threads=1)
train(model, make_batch, lambda model, batch: {'loss': (model(batch)[:, 0] - batch.sum(1)).square().mean()}, config, sys.argv[1], progress='none')
if not begun: print('resumed from step', config.steps) # all steps had been taken
'''
REAL = '''
import sys
from dataclasses import replace
from functools import cache
from vlground.batches import TrainingBatches
from vlground.pretrain import PRESETS, pretrain

begun, make = [], TrainingBatches.__call__

def told(self, step, *parts):
    if not begun: print('resumed from step', step)
    begun.append(step)
    return make(self, step, *parts)

TrainingBatches.__call__ = told
pretrain(sys.argv[2], sys.argv[3], sys.argv[1], replace(PRESETS['mini'], regions=8, batch_size=4, steps=4, save_every=2), progress='none')
if not begun: print('resumed from step 4')
'''


@pytest.mark.slow
@pytest.mark.fault(1)
@pytest.mark.parametrize('script, points', [('all kept', 6), ('rotated', 2), ('pre-training', 2)], ids=['all-kept', 'rotated', 'pre-training'])
def test_ckpt_chaos_finds_no_moment_that_hurts(tmp_path, small_regions, small_labels, script, points):
    pytest.importorskip('ckpt_chaos')
    (tmp_path/'train.py').write_text(REAL if script == 'pre-training' else TOY)
    words = [small_regions, small_labels] if script == 'pre-training' else [99 if script == 'all kept' else 1]
    tool = [sys.executable, '-m', 'ckpt_chaos', 'run', '--checkpoint-glob', '{out}/checkpoints/step-*.json', '--step-regex', r'resumed from step (\d+)', '--max-points', points,
            '--result-file', '{out}/final.safetensors', '--fail-on', 'HARD_FAIL,SILENT_DIVERGENCE,LOST_WORK,CONTROL_FAIL', '--work', tmp_path/'chaos', '--timeout', 120]
    env = os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': os.pathsep.join([str(TESTS.parent), os.environ.get('PYTHONPATH', '')])}
    process = subprocess.Popen([*map(str, tool), '--', sys.executable, str(tmp_path/'train.py'), '{out}', *map(str, words)], cwd=tmp_path, env=env, text=True, start_new_session=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try: said, _ = process.communicate(timeout=400)
    finally:
        if process.poll() is None: os.killpg(process.pid, signal.SIGKILL)
    results = [load_json(path) for path in sorted((tmp_path/'chaos').glob('pt_*/result.json'))]
    assert process.returncode == 0 and len(results) == points + 1, said
    assert not [word for word in ('HARD_FAIL', 'SILENT_DIVERGENCE', 'LOST_WORK', 'CONTROL_FAIL', 'WARNING') if re.search(rf'\b{word}\b', said)], said
    assert sum(each['crashed'] for each in results) == points and {each['point'][1] for each in results if 'point' in each} == {'before', 'torn'}


# 2

@pytest.mark.fault(2)
def test_a_flipped_bit_and_a_cut_checkpoint_cost_only_their_steps(begin, whole, tmp_path):
    folder = tmp_path/'run'
    begin().until(lambda: saved(folder) >= 8).kill()
    *others, newest = (path.with_suffix('.safetensors') for path in sorted((folder/'checkpoints').glob('step-*.json')))
    content = bytearray(newest.read_bytes())
    content[len(content)//2] ^= 4
    newest.write_bytes(content)
    shutil.copytree(folder, tmp_path/'kept')
    job = begin()
    assert job.wait() == 0 and f'{newest} is damaged: its bytes changed since it was written (sha256 differs); going back to an older one' in job.said
    assert end_of(folder) == end_of(whole) and figures(folder) == figures(whole)
    shutil.rmtree(folder)
    (tmp_path/'kept').rename(folder)
    for older in others: older.write_bytes(older.read_bytes()[:1000])
    before = contents(folder)
    job = begin()
    assert job.wait() == 1 and 'no checkpoint is left to go on from' in job.lines[-1] and older.name in job.lines[-1] and newest.name in job.lines[-1] and 'Traceback' not in job.said
    assert contents(folder) == before


# 3

def mounted(folder: Path, size: str) -> bool:
    "Make a folder a small file system of its own, if this process may."
    folder.mkdir()
    return bool(shutil.which('mount')) and subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', folder], capture_output=True).returncode == 0


@pytest.mark.fault(3)
def test_a_file_system_that_fills_up(begin, whole, tmp_path):
    "A checkpoint takes 4.7 MB: one fits, the next one does not."
    disk = tmp_path/'disk'
    if not mounted(disk, '8m'): pytest.skip('only root can mount a small file system; the next test limits the size of files instead')
    try:
        job = begin(disk/'run')
        assert job.wait() == 1
        at = saved(disk/'run')
        said, = [line for line in job.lines if line.startswith('vlground_pretrain: ')]
        size = sum(tensor.nbytes for tensor in load_checkpoint(disk/'run'/'checkpoints')[0].values())
        assert at == 4 and f'step-{at + SAVE_EVERY:06}' in said and f'the checkpoint of {size:,} bytes could not be written' in said and 'the last checkpoint is intact' in said
        assert not list(disk.rglob('.*.part*')), 'half a file takes up the room'
        subprocess.run(['mount', '-o', 'remount,size=100m', disk], check=True)
        job = begin(disk/'run')
        assert job.wait() == 0 and end_of(disk/'run') == end_of(whole) and figures(disk/'run') == figures(whole), job.said
    finally: subprocess.run(['umount', '-l', disk], check=True)


@pytest.mark.fault(3)
def test_files_that_may_not_grow(begin, whole, tmp_path):
    "The first weights fit, a checkpoint with the state of the optimizer does not."
    job = begin(before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000)))
    assert job.wait() == 1 and re.search(r'run/checkpoints/step-000004\.json: the checkpoint of 4,\d\d\d,\d\d\d bytes could not be written .* the last checkpoint is intact', job.lines[-1])
    assert saved(tmp_path/'run') == 0 and load_checkpoint(tmp_path/'run'/'checkpoints')[1]['step'] == 0
    assert begin().wait() == 0 and end_of(tmp_path/'run') == end_of(whole)


# 4

class Gone(Exception): pass


@pytest.mark.fault(4)
@pytest.mark.parametrize('save_every', [5, 7], ids=['at the edge of an epoch', 'in mid-epoch'])
def test_resumed_to_the_bit_whatever_the_number_of_workers(small_regions, small_labels, tmp_path, save_every, monkeypatch):
    "An epoch is five steps: the run breaks off in step 12, and goes on from 10 or from 7. The weights are looked at in every step."
    config, asked = replace(MINI, steps=16, save_every=save_every), []
    def look(model, data):
        asked.append(0)
        if len(asked) == 12: raise Gone
        return {'weights': float(sum(weight.double().abs().sum() for weight in model.state_dict().values()))}
    monkeypatch.setattr('vlground.pretrain.measure_model', look)
    def go(name, workers, first):
        asked[:] = [0]*first
        return weights_sha256(pretrain(small_regions, small_labels, tmp_path/name, config, read_labels(small_labels)[:1], every=1, progress='none', workers=workers))
    expected = go('whole', 0, 100)
    for workers in (0, 2, 4):
        with pytest.raises(Gone): go(f'{workers}', workers, 0)
        assert saved(tmp_path/f'{workers}') == {5: 10, 7: 7}[save_every]
        assert go(f'{workers}', workers, 100) == expected and figures(tmp_path/f'{workers}') == figures(tmp_path/'whole')
        assert (tmp_path/f'{workers}'/'final.safetensors').read_bytes() == (tmp_path/'whole'/'final.safetensors').read_bytes()


# 5 (the number of processes: tests/test_faults_processes.py)

@pytest.mark.fault(5)
def test_other_settings_and_data_are_refused_by_the_command(begin, small_world, tmp_path):
    from vlground.datasets import read_captions
    from vlground.scaleout import label_captions
    folder = tmp_path/'run'
    begin().until(lambda: saved(folder) >= 4).kill()
    before = contents(folder)
    fewer = label_captions(read_captions(small_world/'captions.tsv')[:39], tmp_path/'labels', quiet=True)
    for changes, told in ((dict(seed=5, level='token'), ['pretrain.grounding: phrase before, token now', 'pretrain.seed: 0 before, 5 now', 'train.seed: 0 before, 5 now']),
                          (dict(labels=fewer), ['data.captions: 40 before, 39 now', 'data.labels: '])):
        job = begin(**changes)
        assert job.wait() == 1 and len(job.lines) == 1 and all(each in job.lines[0] for each in told) and '--accept_changes' in job.lines[0]
        assert contents(folder) == before
    job = begin(seed=5, accept_changes=True)
    assert job.wait() == 0 and load_json(folder/'summary.json')['steps'] == STEPS and load_json(folder/'config.json')['pretrain']['seed'] == 5, job.said


# 6 (torchrun: tests/test_faults_processes.py; JupyterLab: tests/test_stop_button.py)

@pytest.mark.fault(6)
@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('number, code', [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=['SIGTERM', 'Ctrl-C'])
def test_asked_to_stop_the_command_finishes_its_step_and_saves(begin, whole, tmp_path, number, code, workers):
    "The signal goes to the whole group, loader workers included, as a terminal sends it."
    folder = tmp_path/'run'
    job = begin(workers=workers).until(lambda: saved(folder) >= 8)
    job.ask(number, group=True)
    assert job.wait() == code and 'Traceback' not in job.said, job.said
    step = saved(folder)
    assert f'{folder}: stopped by {number.name} after step {step} of {STEPS}, all of it saved; run again to go on' in job.said and 8 <= step < STEPS
    assert [line['step'] for line in read_log(folder)][-1] == step and load_checkpoint(folder/'checkpoints')[1]['step'] == step
    job = begin(workers=workers)
    assert job.wait() == 0 and end_of(folder) == end_of(whole), job.said
    assert load_json(folder/'summary.json')['parts'] == load_json(whole/'summary.json')['parts'] or step > STEPS - SAVE_EVERY


@pytest.mark.fault(6)
def test_a_second_signal_stops_at_once(begin, tmp_path):
    "A step of 100,000 captions takes minutes, in parts so small that Python hears each signal by itself: two of a kind that come within one long operation are one to it."
    folder = tmp_path/'run'
    job = begin(batch_size=100_000, accumulate=1000, steps=2).until(lambda: saved(folder) == 0)
    time.sleep(.5)
    job.ask(signal.SIGINT, group=True)
    time.sleep(.3)
    assert job.process.is_alive(), 'it waits for the end of the step'
    job.ask(signal.SIGINT, group=True)
    assert job.wait(30) == 130 and job.lines[-1] == 'vlground_pretrain: stopped at once: the steps since the last checkpoint are lost; run again to go on from there'
    assert saved(folder) == 0


# 10 (two processes: tests/test_faults_processes.py)

@pytest.fixture(scope='module')
def tokenizer(): return load_tokenizer()


@pytest.fixture(scope='module')
def store(small_regions): return Store(small_regions)


def sizes(store, tokenizer) -> dict: return dict(vocabulary=tokenizer.get_vocab_size(), feature_width=store.feature_width, region_classes=len(store.classes))


def lacking(kind: str, store, labels, tokenizer, config: PretrainConfig):
    "A batch that lacks something, and the loss that has nothing to ask."
    level = 'token' if config.grounding == 'token' else 'phrase'
    labelled, threshold = read_labels(labels), .5
    if kind == 'no positive': threshold = .9999 # no region is a teacher's box to the last pixel
    if kind == 'no negative':
        threshold = 0.
        labelled = [replace(each, labels=tuple(replace(label, box=everything(store, each.image_id)) for label in each.labels)) for each in labelled]
    if kind == 'no phrase': labelled = [replace(each, labels=()) for each in labelled]
    data = CaptionData(store, labelled, tokenizer, config.words, 8, threshold, level, config.cap)
    batch = TrainingBatches(data, 6, 0, config)(0).to('cpu')
    if kind == 'no masked word': batch = replace(batch, word_labels=torch.full_like(batch.word_labels, -1))
    if kind == 'no masked region': batch = replace(batch, region_labels=torch.zeros_like(batch.region_labels))
    return replace(batch, counts=loss_counts(batch, level, config.objective, config.masked)), {'no masked word': 'word', 'no masked region': 'region'}.get(kind, 'grounding')


def everything(store, image_id) -> tuple[float, ...]:
    "A box around all regions of a picture."
    boxes = store.get(image_id).boxes
    return (*boxes[:, :2].min(0).values.tolist(), *boxes[:, 2:].max(0).values.tolist())


VARIANTS = [replace(each, size='mini', tokenizer='world', bert='', precision='float32') for each in PRESETS.values()]
VARIANTS += [replace(MINI, backbone=backbone, grounding=level, form=form, alignment_weight=weight) for backbone, level, form, weight in
             product(('vilbert', 'vlbert'), ('phrase', 'token'), FORMS, (0., 1.))]
VARIANTS += [replace(MINI, backbone=backbone, grounding='none', alignment_weight=weight, objective=objective) for backbone, weight, objective in
             product(('vilbert', 'vlbert'), (0., 1.), ('always', 'aligned'))]


@pytest.mark.fault(10)
@pytest.mark.parametrize('kind', ['no positive', 'no negative', 'no phrase', 'no masked word', 'no masked region'])
def test_what_cannot_be_asked_costs_nothing_and_reaches_every_weight(store, small_labels, tokenizer, kind):
    for config in VARIANTS:
        batch, name = lacking(kind, store, small_labels, tokenizer, config)
        assert not len(batch.pair_rows) or name != 'grounding', kind
        model, _ = new_model(config, sizes(store, tokenizer))
        parts = model(batch)
        assert parts[name].item() == 0 and all(value.isfinite() for value in parts.values()), config
        assert all(parts[other] > 0 for other in ('word', 'region', 'alignment') if other != name and (other != 'alignment' or config.alignment_weight)), config
        parts['loss'].backward()
        lost = [name for name, weight in model.named_parameters() if weight.requires_grad and (weight.grad is None or not weight.grad.isfinite().all())]
        assert not lost, (config, lost)


# 11

class Sick(torch.autograd.Function):
    "The identity, whose gradient is what it is told to be."
    @staticmethod
    def forward(ctx, x, value):
        ctx.value = value
        return x.clone()

    @staticmethod
    def backward(ctx, gradient): return gradient*ctx.value, None


@pytest.mark.fault(11)
@pytest.mark.parametrize('place', ['loss', 'gradient'])
@pytest.mark.parametrize('value', [torch.nan, torch.inf], ids=['NaN', 'infinity'])
def test_what_is_not_finite_is_skipped_then_stops_the_run_and_names_the_samples(store, small_labels, tokenizer, tmp_path, place, value):
    data = CaptionData(store, read_labels(small_labels), tokenizer, 24, 8)
    batches, config = TrainingBatches(data, 4, 0, BatchConfig(regions=8)), TrainConfig(steps=12, batch_size=4, save_every=2, max_skips=3, learning_rate=1e-3)
    def loss_fn(model, made): # sick at steps 3 and 5, and from 8 on
        step, batch = made
        parts = model(batch)
        if step not in (3, 5) and (step < 8 or healed): return parts
        return parts | {'loss': parts['loss']*value if place == 'loss' else Sick.apply(parts['loss'], value)}
    def go():
        model, _ = new_model(MINI, sizes(store, tokenizer))
        return train(model, lambda step: (step, batches(step).to('cpu')), loss_fn, config, tmp_path/'run', progress='none', describe=batches.describe)
    healed = False
    with pytest.raises(FloatingPointError, match=r'run: 3 steps in a row were skipped, the last \(11\) because .* log\.jsonl names them and their samples'): go()
    lines = [line for line in read_log(tmp_path/'run') if 'skipped' in line]
    assert [line['step'] for line in lines] == [4, 6, 9, 10, 11] and all(('the loss is' if place == 'loss' else "gradient's norm is") in line['skipped'] for line in lines)
    assert [line['samples'] for line in lines] == [batches.describe(line['step'] - 1) for line in lines]
    assert all(re.match(r'captions-\d+ \(shard-00000 record \d+\)', sample) or sample for line in lines for sample in line['samples']) and 'shard-00000 record' in lines[0]['samples'][0]
    assert all(tensor.isfinite().all() for tensor in load_checkpoint(tmp_path/'run'/'checkpoints')[0].values())
    healed = True
    assert go()['skipped'] == 4 # of those in a row, two were in the checkpoint


# 14

@pytest.mark.fault(14)
@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='the loader workers are found in /proc')
def test_a_loader_worker_that_dies_is_named_with_shard_and_record(begin, whole, tmp_path):
    folder = tmp_path/'run'
    job = begin(workers=2).until(lambda: saved(folder) >= 4)
    workers = children(job.process.pid)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    assert job.wait() == 1 and 'Traceback' not in job.said, job.said
    assert re.fullmatch(r'vlground_pretrain: a loader worker died \(process [\d, ]+\) while it made the batch of step \d+, samples \[.*\(shard-00000 record \d+\).*\]\. '
                        r'If memory ran out, lower workers, now 2; with workers=0 the batch is made in this process, which shows what is wrong with it', job.lines[-1]), job.said
    end = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < end: time.sleep(.02)
    assert not any(map(alive, workers)), 'the other one is left over'
    job = begin(workers=2)
    assert job.wait() == 0 and end_of(folder) == end_of(whole), job.said


# 15

def little_memory() -> None:
    "No more than 600 MB from now on."
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    most = pages*resource.getpagesize() + 600_000_000
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


@pytest.mark.fault(15)
@pytest.mark.skipif(not os.path.isfile('/proc/self/statm'), reason='how much memory is in use is read in /proc')
def test_memory_that_runs_out_on_the_cpu_says_which_settings_to_lower(begin, tmp_path):
    job = begin(before=little_memory, batch_size=4000, steps=2)
    assert job.wait() == 1 and 'Traceback' not in job.said, job.said[-3000:]
    assert re.fullmatch(r'vlground_pretrain: .*run: out of memory on cpu in step 1, with 4000 samples at once\. Raise accumulate \(now 1\): the same step in smaller parts; or lower batch_size,'
                        r' or the longest caption and the most regions; precision bfloat16 takes less, too\. To go on .* pass accept_changes=True', job.lines[-1]), job.said[-3000:]
    assert saved(tmp_path/'run') == 0


@pytest.mark.gpu
@pytest.mark.fault(15)
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no NVIDIA GPU')
def test_memory_that_runs_out_on_the_gpu_says_which_settings_to_lower(small_regions, small_labels, tmp_path):
    config = replace(MINI, batch_size=2000, steps=2)
    torch.cuda.set_per_process_memory_fraction(300_000_000/torch.cuda.get_device_properties(0).total_memory)
    try:
        with pytest.raises(MemoryError, match=r'run: out of memory on cuda(:0)? in step 1, with 2000 samples at once\. Raise accumulate \(now 1\)'):
            pretrain(small_regions, small_labels, tmp_path/'run', config, progress='none', device='cuda')
    finally:
        torch.cuda.set_per_process_memory_fraction(1.)
        torch.cuda.empty_cache()
    assert saved(tmp_path/'run') == 0


# 19

@contextmanager
def read_only(folder: Path):
    "Nothing can be written below a folder: its modes say so or, since root does not care for modes, a mount does."
    if os.geteuid():
        folders = [folder, *(each for each in folder.rglob('*') if each.is_dir())]
        for each in folders: each.chmod(0o555)
        try: yield
        finally:
            for each in folders: each.chmod(0o755)
    else:
        if not shutil.which('mount') or subprocess.run(['mount', '--bind', folder, folder], capture_output=True).returncode: pytest.skip('root without the right to mount')
        try:
            subprocess.run(['mount', '-o', 'remount,ro,bind', folder], check=True)
            yield
        finally: subprocess.run(['umount', '-l', folder], check=True)


@pytest.mark.fault(19)
@pytest.mark.parametrize('made', [False, True], ids=['new', 'begun'])
def test_a_place_that_cannot_be_written_is_told_before_the_first_step(begin, tmp_path, made):
    place = tmp_path/'read only'
    place.mkdir()
    if made: begin(place/'run').until(lambda: saved(place/'run') >= 4).kill()
    before = contents(place)
    with read_only(place):
        job = begin(place/'run')
        assert job.wait() == 1 and len(job.lines) == 1 and job.lines[0].startswith('vlground_pretrain: ') and str(place/'run') in job.lines[0], job.said
    assert 'step/s' not in job.said and contents(place) == before, 'work was done'


@pytest.mark.fault(19)
@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='no /proc here')
def test_a_file_system_that_takes_no_folders_is_told_before_the_first_step(begin):
    job = begin('/proc/vlground/run')
    assert job.wait() == 1 and len(job.lines) == 1 and '/proc/vlground' in job.lines[0] and 'step/s' not in job.said, job.said


@pytest.mark.fault(19)
def test_relative_paths_with_spaces_and_unicode(begin, whole, small_regions, small_labels, tmp_path):
    here = tmp_path/'mit Größe ☂'
    shutil.copytree(small_regions, here/'die Regionen')
    shutil.copytree(small_labels, here/'标签')
    job = begin('läufe/ein Lauf ☂', 'die Regionen', '标签', before=lambda: os.chdir(here), workers=1)
    assert job.wait() == 0 and end_of(here/'läufe'/'ein Lauf ☂') == end_of(whole), job.said
    assert [path.name for path in here.iterdir() if path.name not in ('die Regionen', '标签')] == ['läufe']


# 21

@pytest.mark.fault(21)
def test_a_checkpoint_of_a_newer_format_is_refused(begin, tmp_path, monkeypatch):
    folder = tmp_path/'run'
    monkeypatch.setattr('vlground.checkpoints.CHECKPOINT_FORMAT', 3) # a vlground of the future wrote it
    begin().until(lambda: saved(folder) >= 4).kill()
    monkeypatch.undo()
    monkeypatch.setenv('VLGROUND_HOME', str(tmp_path))
    before = contents(folder)
    job = begin()
    assert job.wait() == 1 and re.search(r'step-\d{6}\.safetensors: format version 3 is newer than version 1, the newest that this vlground reads; update vlground', job.lines[-1]), job.said
    assert 'Traceback' not in job.said and contents(folder) == before


@pytest.mark.fault(21)
@pytest.mark.parametrize('which', ['regions', 'labels'])
def test_a_manifest_of_a_newer_format_is_refused(begin, small_regions, small_labels, tmp_path, which):
    copy = shutil.copytree(dict(regions=small_regions, labels=small_labels)[which], tmp_path/'copy')
    manifest = load_json(copy/'manifest.json')
    save_json(manifest | {'format': 9}, copy/'manifest.json')
    job = begin(**{which: copy})
    assert job.wait() == 1 and len(job.lines) == 1 and re.search(r"manifest\.json: format version 9 is newer than version \d+", job.lines[0]), job.said
    assert not (tmp_path/'run').exists()
