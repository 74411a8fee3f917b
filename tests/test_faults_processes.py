"Faults of a pre-training in two processes: a request to stop, a rank that dies, a rank that has nothing to ask or no number to give. The losses are those of one process."
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from faults import Job, Ranks, alive, children, command, end_of, figures, saved
from killing import contents
from safetensors.torch import load_file
from test_faults_tasks import data # noqa: F401

from vlground import vqa
from vlground.batches import CaptionData, TrainingBatches, loss_counts
from vlground.checkpoints import RunFolder, load_checkpoint
from vlground.core import load_json, save_json
from vlground.logs import read_log
from vlground.optimizing import make_optimizer
from vlground.phrases import load_tokenizer
from vlground.pretrain import PRESETS, new_model
from vlground.pseudolabels import read_labels
from vlground.store import Store
from vlground.training import TrainConfig, joined_processes, train

pytestmark = pytest.mark.skipif(not torch.distributed.is_available() or not os.path.isdir('/proc/self'), reason='needs torch.distributed, and /proc to find the ranks')
STEPS, SAVE_EVERY = 60, 4


def options(regions, labels, out, **changes) -> list:
    file = Path(os.environ['VLGROUND_HOME'])/'settings.json'
    save_json(dict(regions=8, batch_size=8, save_every=SAVE_EVERY), file)
    given = [word for name, value in changes.items() for word in ([f'--{name}'] if value is True else [f'--{name}', value])]
    return ['vlground_pretrain', '--regions', regions, '--labels', labels, '--out', out, '--config', file, '--steps', STEPS, *given]


@pytest.fixture
def ranks(tmp_path):
    "Starts ranks, and ends those that a test left."
    started = []
    def start(do, *args, count=2):
        started.append(Ranks(count, do, *args, told=tmp_path/f'told-{len(started)}'))
        return started[-1]
    yield start
    for each in started: each.kill()


@pytest.fixture(scope='module')
def runs(small_regions, small_labels, tmp_path_factory):
    "The run of one process and that of two, which nothing disturbed."
    folder = tmp_path_factory.mktemp('whole')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('VLGROUND_HOME', str(folder))
        alone = Job(command, *options(small_regions, small_labels, folder/'one'), told=folder/'told')
        try: assert alone.wait() == 0, alone.said
        finally: alone.kill()
        together = Ranks(2, command, *options(small_regions, small_labels, folder/'two'), told=folder/'told-two')
        try: assert together.wait() == [0, 0], together.said
        finally: together.kill()
    return folder


def same_curves(a: Path, b: Path, rtol: float = 1e-4) -> None:
    "Every part of every line of the log."
    one, two = ([line for line in figures(each) if 'parts' in line] for each in (a, b))
    assert [line['step'] for line in one] == [line['step'] for line in two] and one
    for mine, other in zip(one, two): assert mine['parts'] == pytest.approx(other['parts'], rel=rtol, abs=1e-6), f'step {mine["step"]}'


@pytest.mark.fault(16)
def test_two_processes_compute_what_one_does(runs):
    same_curves(runs/'one', runs/'two')
    assert load_json(runs/'two'/'config.json')['processes'] == 2


def _and_tell_what_is_written(told, *words):
    "The command; then the files of its run that this rank moved into place, or opened to write."
    found, out = set(), words[-1]
    def seen(event, args):
        name = args[1] if event == 'os.rename' else args[0] if event == 'open' and args[2] & (os.O_WRONLY | os.O_RDWR) else None
        if isinstance(name, (str, os.PathLike)) and Path(name).is_relative_to(out): found.add(str(Path(name).relative_to(out)))
    sys.addaudithook(seen)
    vqa.Dropout = lambda share: torch.nn.Identity() # of its head: each process draws numbers of its own
    command(*words)
    (told/os.environ.get('RANK', 'alone')).write_text('\n'.join(found))


NUMBER = r'-?\d+\.\d+(?:e-\d+)?|\de-\d+' # one that is not whole


def same_text(a: Path, b: Path, within: float) -> None:
    "Two files that differ in broken numbers at most, and in these by little."
    one, two = a.read_text(), b.read_text()
    assert re.sub(NUMBER, '#', one) == re.sub(NUMBER, '#', two)
    assert list(map(float, re.findall(NUMBER, one))) == pytest.approx(list(map(float, re.findall(NUMBER, two))), abs=within), a.name


@pytest.mark.fault(16)
@pytest.mark.parametrize('task, turned, left', [ # what one answer changes in an accuracy, and what is left beside it
    ('refer', .1, ['predictions-val.jsonl', 'predictions-testA.jsonl', 'predictions-testB.jsonl']),
    ('vqa', .5, ['predictions-val.jsonl', 'predictions-test.jsonl', 'submission-val.json', 'submission-test.json', 'answers.json']),
    ('vcr', .25, ['predictions-val.jsonl', 'leaderboard-test.csv'])], ids=['refer', 'vqa', 'vcr'])
def test_fine_tuning_in_two_processes_learns_what_it_does_in_one(runs, small_world, small_regions, data, tmp_path, task, turned, left): # noqa: F811
    given, told = dict(refer=['--data', small_world/'refer', '--regions', small_regions], vqa=['--data', data/'vqa'/'vqa', '--regions', data/'vqa'/'R', '--batch_size', 4, '--least', 2],
                       vcr=['--data', data/'vcr', '--regions', data/'vcr'/'R', '--batch_size', 4])[task], tmp_path/'written'
    told.mkdir()
    def words(out): return told, 'vlground_finetune', task, *given, '--start', runs/'one', '--steps', 30, '--out', out
    alone = Job(_and_tell_what_is_written, *words(tmp_path/'one'), told=tmp_path/'told')
    together = Ranks(2, _and_tell_what_is_written, *words(tmp_path/'two'), told=tmp_path/'told-two')
    try:
        assert alone.wait() == 0, alone.said
        assert together.wait() == [0, 0], together.said
    finally: alone.kill(), together.kill()
    same_curves(tmp_path/'one', tmp_path/'two')
    assert load_json(tmp_path/'two'/'config.json')['processes'] == 2
    same_text(tmp_path/'one'/'result.json', tmp_path/'two'/'result.json', turned) # a thousandth of a score may turn an answer round
    for name in left: same_text(tmp_path/'one'/name, tmp_path/'two'/name, .001)
    # one of them answers, writes and tells the result
    assert {'result.json', *left} <= set((told/'0').read_text().split('\n')) and not (told/'1').read_text()
    assert len(together.jobs[0].lines) == len(alone.lines) >= 3 and not together.jobs[1].lines


def _with_a_spare_layer(folder):
    with joined_processes('cpu'):
        model = torch.nn.ModuleDict(dict(used=torch.nn.Linear(2, 1), spare=torch.nn.Linear(2, 1)))
        model.forward = lambda x: model['used'](x)
        train(model, lambda step, part=0, parts=1: torch.ones(1, 2), lambda model, x: {'loss': model(x).sum()}, TrainConfig(steps=3, batch_size=2), folder, progress='none')


@pytest.mark.fault(16)
def test_weights_that_no_loss_reaches_are_told_of(ranks, tmp_path):
    both = ranks(_with_a_spare_layer, tmp_path/'run')
    assert both.wait() != [0, 0]
    assert 'the loss does not reach every weight that is trained' in both.said and 'freeze_unreached' in both.said


def _far_on(folder, step, told):
    threads = lambda: len(os.listdir('/proc/self/task'))
    with joined_processes('cpu'):
        torch.manual_seed(0)
        model, begun = torch.nn.Linear(2, 1), threads()
        if not (folder/'checkpoints').exists() and os.environ['RANK'] == '0':
            RunFolder(folder).save(model, make_optimizer(model, 0.), {'step': step})
            (folder/'ready').touch()
        while not (folder/'ready').exists(): time.sleep(.01)
        train(model, lambda step, part=0, parts=1: torch.ones(1, 2), lambda model, x: {'loss': model(x).sum()}, TrainConfig(steps=step + 1, batch_size=3), folder, progress='none')
        assert threads() >= begun
    (told/os.environ['RANK']).write_text(f'{threads() < begun}')


@pytest.mark.fault(16)
def test_ranks_agree_on_any_step_and_leave_no_thread(ranks, tmp_path):
    "A step that 32 bits cannot hold as a fraction, in three ranks; a thread of the group that outlives Python would end a rank by SIGABRT."
    folder, told = tmp_path/'run', tmp_path/'told'
    folder.mkdir(), told.mkdir()
    assert ranks(_far_on, folder, 6_000_001, told, count=3).wait() == [0, 0, 0]
    assert [path.read_text() for path in told.iterdir()] == ['True']*3


# torchrun

@pytest.fixture
def torchrun(small_regions, small_labels, tmp_path):
    "Starts the command under torchrun in a session of its own, and ends what is left of it."
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get('PATH', '')])
    if not shutil.which('torchrun', path=path) or not shutil.which('vlground_pretrain', path=path): pytest.skip('the commands are not installed beside this Python')
    started = []
    def start():
        words = ['torchrun', '--standalone', '--nproc-per-node', '2', '--no-python', *map(str, options(small_regions, small_labels, tmp_path/'run'))]
        told = open(tmp_path/f'torchrun-{len(started)}', 'w')
        env = os.environ | {'PATH': path, 'OMP_NUM_THREADS': '1'}
        started.append(subprocess.Popen(words, executable=shutil.which('torchrun', path=path), env=env, stdout=told, stderr=told, start_new_session=True))
        started[-1].told = Path(told.name)
        return started[-1]
    yield start
    for process in started:
        for pid in [*children(process.pid), process.pid]:
            try: os.kill(pid, signal.SIGKILL)
            except ProcessLookupError: pass
        process.wait()


def until(process, seen, seconds: float = 240) -> list[int]:
    "Wait for something; the ranks."
    end = time.monotonic() + seconds
    while not seen():
        assert process.poll() is None, f'ended with {process.returncode} too early:\n{process.told.read_text()[-3000:]}'
        assert time.monotonic() < end, f'nothing seen for {seconds} s:\n{process.told.read_text()[-3000:]}'
        time.sleep(.01)
    return children(process.pid)


def gone(pids: list[int]) -> bool:
    end = time.monotonic() + 20
    while any(map(alive, pids)) and time.monotonic() < end: time.sleep(.02)
    return not any(map(alive, pids))


@pytest.mark.slow
@pytest.mark.fault(6, 16)
def test_torchrun_asked_to_stop_twice_then_a_rank_killed_ends_as_if_nothing_had_been(torchrun, runs, tmp_path, record_property):
    folder, before = tmp_path/'run', 0
    for name in ('SIGTERM', 'SIGINT'):
        process = torchrun()
        ranks = until(process, lambda: saved(folder) >= before + 4)
        assert len(ranks) == 2
        if name == 'SIGTERM': process.send_signal(signal.SIGTERM)
        else: os.killpg(process.pid, signal.SIGINT) # as a terminal sends it: to torchrun and to every rank
        assert process.wait(120) != 0 and gone(ranks)
        before, said = saved(folder), process.told.read_text()
        assert re.findall(r'stopped by (\w+) after step (\d+) of 60, all of it saved; run again to go on', said)[0][1] == str(before) and before < STEPS, said[-3000:]
        assert read_log(folder)[-1]['step'] == load_checkpoint(folder/'checkpoints')[1]['step'] == before
    process = torchrun()
    ranks = until(process, lambda: saved(folder) >= before + 4)
    os.kill(ranks[1], signal.SIGKILL)
    assert process.wait(120) != 0 and gone(ranks) and not (folder/'summary.json').exists()
    process = torchrun()
    assert process.wait(240) == 0, process.told.read_text()[-3000:]
    record_property('sha256: two processes that nothing disturbed', end_of(runs/'two'))
    record_property('sha256: two processes under torchrun, stopped twice, one of them killed', end_of(folder))
    assert end_of(folder) == end_of(runs/'two') and load_json(folder/'config.json') == load_json(runs/'two'/'config.json')


@pytest.mark.fault(16)
def test_a_rank_that_is_killed_ends_the_other_with_one_sentence(ranks, runs, small_regions, small_labels, tmp_path):
    folder = tmp_path/'run'
    both = ranks(command, *options(small_regions, small_labels, folder))
    both.jobs[0].until(lambda: saved(folder) >= 4)
    both.jobs[1].kill()
    assert both.jobs[0].wait(60) == 1
    assert re.search(rf'vlground_pretrain: {folder}: in step \d+ another of the 2 processes was gone\. Start all of them again with the same command: they go on', both.jobs[0].said), both.said
    assert 'Traceback' not in both.jobs[0].said
    both = ranks(command, *options(small_regions, small_labels, folder))
    assert both.wait() == [0, 0] and end_of(folder) == end_of(runs/'two') and figures(folder) == figures(runs/'two'), both.said


@pytest.mark.fault(5)
def test_another_number_of_processes_is_refused(ranks, runs, small_regions, small_labels, tmp_path):
    shutil.copytree(runs/'one', tmp_path/'run')
    before = contents(tmp_path/'run')
    both = ranks(command, *options(small_regions, small_labels, tmp_path/'run'))
    assert both.wait() == [1, 1] and all('processes: 1 before, 2 now' in job.said and '--accept_changes' in job.said and 'Traceback' not in job.said for job in both.jobs), both.said
    assert contents(tmp_path/'run') == before
    both = ranks(command, *options(small_regions, small_labels, tmp_path/'run', accept_changes=True))
    assert both.wait() == [0, 0] and load_json(tmp_path/'run'/'config.json')['processes'] == 2, both.said


# one of two processes has nothing to ask, or no number to give

LACKS = ('word', 'region', 'pairs', 'phrases', 'everything', 'everything everywhere', 'nothing')


@pytest.fixture(scope='module')
def store(small_regions): return Store(small_regions)


def batches_of(store, labels, config):
    "Batches of eight captions, of which the second half lacks in each step something else."
    tokenizer = load_tokenizer()
    batches = TrainingBatches(CaptionData(store, read_labels(labels), tokenizer, 24, 8, level=config.grounding), 8, 0, config)
    def make(step, part=0, parts=1):
        batch, what = batches(step, part, parts).to('cpu'), LACKS[step]
        here = torch.arange(part*8//parts, (part + 1)*8//parts) >= (0 if what == 'everything everywhere' else 4)
        whole = what.startswith('everything')
        if whole or what == 'word': batch = replace(batch, word_labels=batch.word_labels.masked_fill(here[:, None], -1))
        if whole or what == 'region': batch = replace(batch, region_labels=batch.region_labels & ~here[:, None])
        if whole or what in ('pairs', 'phrases'):
            kept = ~here[batch.pair_samples]
            batch = replace(batch, **{name: getattr(batch, name)[kept] for name in ('pair_samples', 'pair_rows', 'pair_regions', 'pair_labels')})
        if whole or what == 'phrases': batch = replace(batch, spans=batch.spans[~here[batch.spans[:, 0]]]) # the last ones, so that no row changes its number
        return replace(batch, counts=loss_counts(batch, config.grounding))
    return batches, make, dict(vocabulary=tokenizer.get_vocab_size(), feature_width=store.feature_width, region_classes=len(store.classes))


def go(store, labels, config, folder, sick=(), **changes):
    "A training, in this process or as one of several; in some steps the features of the last pictures are no numbers."
    batches, make, sizes = batches_of(store, labels, config)
    def made(step, part=0, parts=1):
        batch = make(step, part, parts)
        return replace(batch, features=batch.features*torch.nan) if step in sick and part == parts - 1 else batch
    with joined_processes('cpu'):
        model, _ = new_model(config, sizes)
        settings = dict(steps=len(LACKS), batch_size=8, learning_rate=1e-4, save_every=10, log_every=1) | changes
        train(model, made, lambda model, batch: model(batch), TrainConfig(**settings), folder, progress='none', describe=batches.describe)


@pytest.mark.fault(10)
@pytest.mark.parametrize('backbone, level, alignment', [('vilbert', 'phrase', 1.), ('vlbert', 'token', 0.)])
def test_a_rank_with_nothing_to_ask_takes_part(ranks, store, small_labels, tmp_path, backbone, level, alignment):
    config = replace(PRESETS['mini'], backbone=backbone, grounding=level, alignment_weight=alignment, regions=8)
    both = ranks(go, store, small_labels, config, tmp_path/'two')
    assert both.wait(120) == [0, 0], both.said
    go(store, small_labels, config, tmp_path/'one')
    same_curves(tmp_path/'one', tmp_path/'two')
    lines = [line['parts'] for line in read_log(tmp_path/'two') if 'parts' in line]
    at = LACKS.index('everything everywhere')
    assert len(lines) == len(LACKS) and lines[at]['word'] == lines[at]['region'] == lines[at]['grounding'] == 0
    assert all(value > 0 for i, parts in enumerate(lines) if i != at for name, value in parts.items() if name != 'alignment')
    one, two = (load_file(tmp_path/name/'final.safetensors') for name in ('one', 'two'))
    for name in one: torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=2e-4, msg=name)


@pytest.mark.fault(11)
def test_a_loss_that_is_no_number_on_one_rank_is_skipped_by_both(ranks, store, small_labels, tmp_path):
    config = replace(PRESETS['mini'], regions=8)
    both = ranks(go, store, small_labels, config, tmp_path/'two', (1, 3))
    assert both.wait(120) == [0, 0], both.said
    assert load_json(tmp_path/'two'/'summary.json')['skipped'] == 2
    go(store, small_labels, config, tmp_path/'one', (1, 3))
    same_curves(tmp_path/'one', tmp_path/'two')
    both = ranks(go, store, small_labels, config, tmp_path/'stopped', (2, 3, 4))
    assert both.wait(120) == [0, 0], both.said
    both = ranks(lambda: go(store, small_labels, config, tmp_path/'ended', (2, 3, 4), max_skips=3))
    assert both.wait(120) == [1, 1] and all('3 steps in a row were skipped, the last (5)' in job.said for job in both.jobs), both.said
    lines = [line for line in read_log(tmp_path/'ended') if 'skipped' in line]
    assert [line['step'] for line in lines] == [3, 4, 5] and all(len(line['samples']) == 8 and 'shard-00000 record' in line['samples'][0] for line in lines)
