"Many runs: each is done once whoever starts it, kills and failures lose nothing, and the time is known beforehand."
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing import get_context

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlground.checkpoints import load_checkpoint
from vlground.core import load_json
from vlground.logs import read_log
from vlground.runs import Run, do_run, in_order, is_done, schedule, work_off


def nap(name, seconds, *needs, kind='nap', **speed): return Run(name, 'subprocess:run', dict(args=['sleep', str(seconds)], check=True), needs, kind, seconds, speed)
def made(out, name): return load_json(out/'done'/f'{name}.json')


@st.composite
def plans(draw): # runs that need earlier ones, in any order
    runs = []
    for i in range(draw(st.integers(1, 12))): runs.append(nap(f'run {i}', draw(st.integers(1, 9)), *(runs[need] for need in sorted(draw(st.sets(st.integers(0, i - 1), max_size=3) if i else st.just(set()))))))
    return draw(st.permutations(runs))


@given(plans())
def test_each_comes_after_what_it_needs(runs):
    plan = in_order(runs)
    assert sorted(plan) == sorted(run.name for run in runs)
    places = {name: place for place, name in enumerate(plan)}
    assert all(places[need.name] < places[run.name] for run in runs for need in run.needs)
    assert list(in_order(plan.values())) == list(plan)


@given(plans(), st.sets(st.integers(0, 11)), st.sets(st.integers(0, 11), min_size=1))
def test_what_is_to_be_done_is_what_the_wanted_lack(runs, done, wanted):
    done, wanted = {f'run {i}' for i in done}, [run for run in runs if int(run.name[4:]) in wanted]
    left = in_order(wanted, lambda run: run.name in done)
    assert set(left) == {run.name for run in runs if run.name not in done and (run in wanted or any(run in other.needs for other in left.values()))}
    places = {name: place for place, name in enumerate(left)}
    assert all(need.name in done or places[need.name] < places[name] for name, run in left.items() for need in run.needs)


@given(plans(), st.integers(0, 11))
def test_a_digest_tells_of_everything_before(runs, changed):
    def remade(run): return replace(run, needs=tuple(map(remade, run.needs)), options=dict(run.options, other=1) if run.name == f'run {changed}' else run.options, speed=dict(timeout=9))
    def reaches(run): return run.name == f'run {changed}' or any(map(reaches, run.needs))
    for run in runs: assert (remade(run).digest != run.digest) == reaches(run)


@given(plans(), st.integers(1, 5))
def test_a_schedule_is_possible_and_wastes_nothing(runs, workers):
    found = schedule(runs, dict(nap=2.), workers)
    ends = {name: each.begins + each.lasts for name, each in found.items()}
    for run in runs:
        assert found[run.name].lasts == 2*run.work and all(ends[need.name] <= found[run.name].begins for need in run.needs)
    for process in range(workers): # one thing at a time
        mine = sorted((each.begins, each.begins + each.lasts) for each in found.values() if each.process == process)
        assert all(a[1] <= b[0] for a, b in zip(mine, mine[1:]))
    def chain(run): return 2*run.work + max(map(chain, run.needs), default=0)
    longest, whole = max(chain(run) for run in runs), 2*sum(run.work for run in runs)
    assert max(longest, whole/workers) - 1e-9 <= max(ends.values()) <= whole/workers + longest # Graham's bound
    if workers == 1: assert max(ends.values()) == whole


def test_what_is_done_takes_no_time():
    last = nap('c', 5, nap('b', 4, nap('a', 3)))
    assert list(schedule([last], dict(nap=1.), done=lambda run: run.name != 'c')) == ['c'] and len(schedule([last], dict(nap=1.))) == 3
    with pytest.raises(ValueError, match='the seconds of nap are not known'): schedule([last], dict(other=1.))


@pytest.mark.parametrize('runs, said', [
    ([nap('a', 1), nap('a', 2)], 'two different runs are called a'),
    ([nap('b', 1, nap('a', 1)), nap('c', 1, nap('a', 2))], 'two different runs are called a'),
    ([nap('b', 1, nap('a', 1)), nap('b', 1)], 'two different runs are called b'),
    ([nap('a/b', 1)], "'a/b' cannot be the name of a file"),
    ([Run('a', 'builtins:dict', dict(b=float('nan')))], 'a: its options are no plain JSON'),
    ([Run('a', 'builtins:dict', dict(b={1}))], 'a: its options are no plain JSON')])
def test_plans_that_cannot_be(runs, said):
    with pytest.raises(ValueError, match=said): in_order(runs)


def test_done_once(tmp_path):
    run = Run('told', 'vlground.core:save_json', dict(obj=1, path='{out}/told.json'))
    assert [do_run(tmp_path, run), do_run(tmp_path, run)] == ['done', 'was done'] and load_json(tmp_path/'told.json') == 1
    assert made(tmp_path, 'told')['options']['path'] == '{out}/told.json' # as it was written: the folder may move
    (tmp_path/'told.json').unlink()
    moved = tmp_path.rename(tmp_path.parent/f'{tmp_path.name}-moved')
    assert is_done(moved, run)


@pytest.mark.parametrize('workers', [0, 2])
def test_speed_changes_nothing_and_options_are_refused(tmp_path, workers):
    do_run(tmp_path, nap('a', .01))
    assert is_done(tmp_path, nap('a', .01, timeout=9))
    with pytest.raises(ValueError, match=r'a was made with other options \(args\); choose another folder, or delete'): is_done(tmp_path, nap('a', .02))
    with pytest.raises(ValueError, match='other options'): work_off(tmp_path, [nap('a', .02), nap('b', 1)], workers)
    with pytest.raises(ValueError, match=r'other options \(call\)'): is_done(tmp_path, replace(nap('a', .01), call='subprocess:check_call'))


@pytest.mark.parametrize('call', ['no colon', 'nowhere:function', 'vlground.core:nothing', ':x'])
def test_what_cannot_be_called_is_told_before_anything_begins(tmp_path, call):
    with pytest.raises(ValueError, match='wrong: .* is no module:function that can be called'): work_off(tmp_path, [Run('wrong', call, {}, (nap('a', .01),))])
    assert not (tmp_path/'done').exists()


@pytest.mark.parametrize('options, said', [(dict(path='x', pathh='x'), "unexpected keyword argument 'pathh'"), (dict(), "missing a required argument: 'path'")])
def test_what_cannot_be_called_with_its_options_is_told_before_anything_begins(tmp_path, options, said):
    wrong = Run('wrong', 'vlground.core:load_json', options, (nap('a', .01),))
    with pytest.raises(ValueError, match=f'wrong: vlground.core:load_json cannot be called with these options .*{said}'): work_off(tmp_path, [wrong])
    assert not (tmp_path/'done').exists()


def test_what_is_printed_is_in_the_log(tmp_path):
    do_run(tmp_path, Run('talks', 'builtins:print', dict(end='said and done')))
    assert (tmp_path/'logs'/'talks.txt').read_text().splitlines()[1:] == ['said and done']


def test_the_folder_is_put_into_lists_too(tmp_path):
    do_run(tmp_path, Run('told', 'vlground.core:save_json', dict(obj=['{out}/a', dict(b='{out}')], path='{out}/told.json')))
    assert load_json(tmp_path/'told.json') == [f'{tmp_path}/a', dict(b=str(tmp_path))]


@pytest.mark.parametrize('workers', [0, 2])
def test_a_failure_stops_what_needs_it_alone(tmp_path, workers):
    bad = Run('bad', 'vlground.core:load_json', dict(path='{out}/nothing.json'))
    hindered = nap('hindered', .01, bad)
    runs = [nap('further', .01, hindered), nap('free', .01)]
    with pytest.raises(ChildProcessError, match=r'1 of 4 runs failed, the first is bad \(.*nothing.json.*logs/bad.txt'): work_off(tmp_path, runs, workers)
    assert 'Traceback' in (tmp_path/'logs'/'bad.txt').read_text() and do_run(tmp_path, bad) == 'failed' # nobody tries it again in the same call
    assert sorted(file.stem for file in (tmp_path/'done').glob('*.json')) == ['free']
    (tmp_path/'nothing.json').write_text('1')
    work_off(tmp_path, runs, workers)
    assert all(is_done(tmp_path, run) for run in [bad, hindered, *runs])


def arrive_and_work(out, runs, i):
    (out/f'here-{i}').touch()
    work_off(out, runs)


def test_two_that_begin_at_the_same_time_share(tmp_path):
    meet = 'import os, sys, time; from pathlib import Path; here = Path(sys.argv[1]); [time.sleep(.05) for _ in iter(lambda: len(list(here.glob("here-*"))) < 2, False)]'
    runs = [Run('run 0', 'subprocess:run', dict(args=[sys.executable, '-c', meet, '{out}'], check=True)), *(nap(f'run {i}', .3) for i in range(1, 9))]
    runs[1:] = [replace(run, needs=(runs[0],)) for run in runs[1:]]
    processes = [get_context('spawn').Process(target=arrive_and_work, args=(tmp_path, runs, i)) for i in range(2)]
    for each in processes: each.start()
    for each in processes: each.join()
    assert not any(each.exitcode for each in processes)
    assert {made(tmp_path, run.name)['process'] for run in runs} == {each.pid for each in processes} and made(tmp_path, 'run 1')['machine'] == platform.node()
    spans = sorted((made(tmp_path, run.name)['began'], made(tmp_path, run.name)['seconds']) for run in runs)
    assert sum(seconds for _, seconds in spans) > 1.2*(spans[-1][0] + spans[-1][1] - spans[0][0]) # side by side


SCRIPT = '''
import sys
from pathlib import Path
from vlground.runs import Run, work_off
if __name__ == '__main__':
    runs = [Run(f'run {i}', 'subprocess:run', dict(args=['sleep', '.5'], check=True)) for i in range(6)]
    work_off(Path(sys.argv[1]), runs, 2)
'''


@pytest.mark.fault
def test_killed_and_started_again(tmp_path):
    (tmp_path/'script.py').write_text(SCRIPT)
    def start(): return subprocess.Popen([sys.executable, str(tmp_path/'script.py'), str(tmp_path/'out')], stderr=subprocess.DEVNULL, start_new_session=True)
    first = start()
    while len(list((tmp_path/'out'/'done').glob('run*.json'))) < 2:
        assert first.poll() is None
        time.sleep(.02)
    first.kill()
    first.wait()
    time.sleep(1.2) # what its processes were at would end by now
    before = {file.name: file.read_text() for file in (tmp_path/'out'/'done').glob('*.json')}
    time.sleep(.8)
    assert {file.name for file in (tmp_path/'out'/'done').glob('*.json')} == set(before) and 2 <= len(before) < 6 # nobody goes on
    assert start().wait(60) == 0
    after = {file.name: file.read_text() for file in (tmp_path/'out'/'done').glob('*.json')}
    assert len(after) == 6 and all(after[name] == text for name, text in before.items())


@pytest.mark.fault
def test_what_was_begun_otherwise_is_refused_before_anything_begins(tmp_path):
    first, long = nap('first', .01), nap('long', 1.5)
    victim = get_context('spawn').Process(target=work_off, args=(tmp_path, [first, long]))
    victim.start()
    while not (tmp_path/'done'/'long.begun').exists(): time.sleep(.01)
    victim.kill()
    victim.join()
    other, last = nap('long', 1.), nap('last', .01)
    with pytest.raises(ValueError, match=r'long was begun with other options \(args\); choose another folder, or delete .*long.begun and the folder of the run'): work_off(tmp_path, [last, other])
    assert not (tmp_path/'done'/'last.json').exists()
    with pytest.raises(ValueError, match='long was begun with other options'): do_run(tmp_path, other)
    work_off(tmp_path, [last, long]) # the same goes on
    assert made(tmp_path, 'long')['attempts'] == 2 and not list((tmp_path/'done').glob('*.begun'))


def test_failures_that_another_command_takes_back_are_told(tmp_path):
    ticks = []
    def tick():
        ticks.append(0)
        if len(ticks) == 2: (tmp_path/'done'/'bad.failed').unlink() # after it was given up
    with pytest.raises(ChildProcessError, match='1 of 1 runs are not done: another command, which began meanwhile, has taken failures back'): work_off(tmp_path, [Run('bad', 'subprocess:run', dict(args=['false'], check=True))], tick=tick)


TRAINING = '''
import sys
from pathlib import Path
from vlground.runs import Run, work_off
if __name__ == '__main__':
    options = dict(regions=sys.argv[2], labels=sys.argv[3], steps=int(sys.argv[4]), batch_size=4)
    work_off(Path(sys.argv[1]), [Run(name, 'vlground.cli:vlground_pretrain', dict(options, out='{out}/' + name, seed=seed)) for seed, name in enumerate(('a', 'b'))], 2)
'''


@pytest.mark.fault
@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGTERM])
def test_trainings_that_are_stopped_save_first(small_regions, small_labels, tmp_path, how):
    (tmp_path/'script.py').write_text(TRAINING)
    command = [sys.executable, str(tmp_path/'script.py'), str(tmp_path/'out'), str(small_regions), str(small_labels)]
    with (tmp_path/'said.txt').open('w') as said: first = subprocess.Popen([*command, '5000'], stderr=said, start_new_session=True)
    logs = [tmp_path/'out'/name/'log.jsonl' for name in ('a', 'b')]
    while not all(log.exists() and log.read_text().count('"step"') > 2 for log in logs):
        assert first.poll() is None
        time.sleep(.05)
    (os.killpg if how == signal.SIGINT else os.kill)(first.pid, how) # Ctrl-C reaches all processes of a terminal
    assert first.wait(60) == -signal.SIGINT and 'leaked' not in (tmp_path/'said.txt').read_text()
    for name in ('a', 'b'): # between two checkpoints, and nothing lost
        steps = [load_checkpoint(tmp_path/'out'/name/'checkpoints')[1]['step'], read_log(tmp_path/'out'/name)[-1]['step']]
        assert steps[0] % 200 and steps[0] >= steps[1] and 'stopped' in (tmp_path/'out'/'logs'/f'{name}.txt').read_text()
    assert not list((tmp_path/'out'/'done').glob('*.json')) and not list((tmp_path/'out'/'done').glob('*.failed'))


def test_a_lock_of_a_dead_process_is_free(tmp_path):
    code = 'import sys, time; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire(); print("held", flush=True); time.sleep(60)'
    (tmp_path/'done').mkdir()
    holder = subprocess.Popen([sys.executable, '-c', code, str(tmp_path/'done'/'a.lock')], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == 'held\n' and do_run(tmp_path, nap('a', .01)) == 'busy'
    holder.kill()
    assert holder.wait() == -signal.SIGKILL and do_run(tmp_path, nap('a', .01)) == 'done'


def test_a_process_that_dies_with_its_run(tmp_path):
    (tmp_path/'dies.py').write_text('import os\ndef now(): os.kill(os.getpid(), 9)\n')
    code = f'import sys; sys.path.insert(0, {str(tmp_path)!r})\nfrom vlground.runs import Run, work_off\nif __name__ == "__main__": work_off({str(tmp_path/"out")!r}, [Run("b", "dies:now", dict(), (Run("a", "statistics:mean", dict(data=[1])),))], 2)'
    (tmp_path/'script.py').write_text(code)
    ended = subprocess.run([sys.executable, str(tmp_path/'script.py')], capture_output=True, text=True, env=os.environ | dict(PYTHONPATH=str(tmp_path)))
    assert '1 of 2 runs are not done: processes ended before their time (exit codes [-9, -9, -9, -9, -9]; -9 may be a lack of memory)' in ended.stderr and (tmp_path/'out'/'done'/'a.json').exists()


SPOILT = '''
import os, sys
from vlground.runs import Run, work_off
def dies_once(path):
    if not os.path.exists(path):
        open(path, 'w').close()
        os.kill(os.getpid(), 9)
def tell(path, fail):
    with open(path, 'w') as file: file.write(str(os.getpid()))
    if fail: raise RuntimeError('spoilt')
if __name__ == '__main__': work_off(sys.argv[1], eval(sys.argv[2]), 1)
'''


def run_script(tmp_path, runs):
    (tmp_path/'script.py').write_text(SPOILT)
    return subprocess.run([sys.executable, str(tmp_path/'script.py'), str(tmp_path/'out'), runs], capture_output=True, text=True, env=os.environ | dict(PYTHONPATH=str(tmp_path)))


@pytest.mark.fault
def test_a_process_that_dies_is_replaced(tmp_path):
    ended = run_script(tmp_path, 'Run("a", "script:dies_once", dict(path="{out}/there")), Run("b", "statistics:mean", dict(data=[1]))')
    assert ended.returncode == 0 and made(tmp_path/'out', 'a')['attempts'] == 2 and (tmp_path/'out'/'done'/'b.json').exists()


@pytest.mark.fault
def test_nothing_comes_after_a_failure_in_the_same_process(tmp_path):
    ended = run_script(tmp_path, '[Run(name, "script:tell", dict(path="{out}/" + name, fail=name < "e")) for name in "abcdef"]')
    assert '4 of 6 runs failed, the first is a (RuntimeError: spoilt)' in ended.stderr
    first = [(tmp_path/'out'/name).read_text() for name in 'abcde']
    assert len(set(first)) == 5 and (tmp_path/'out'/'f').read_text() == first[-1]


def test_attempts_are_counted(tmp_path):
    bad = Run('bad', 'vlground.core:load_json', dict(path='{out}/nothing.json'))
    for _ in range(2):
        with pytest.raises(ChildProcessError): work_off(tmp_path, [bad])
    (tmp_path/'nothing.json').write_text('1')
    work_off(tmp_path, [bad, nap('b', .01)])
    assert made(tmp_path, 'bad')['attempts'] == 3 and made(tmp_path, 'b')['attempts'] == 1


@given(st.dictionaries(st.text(st.characters(codec='utf-8', exclude_characters='\0'), min_size=1, max_size=5), st.recursive(st.one_of(st.integers(), st.text(max_size=5), st.none(), st.floats(allow_nan=False, allow_infinity=False)), lambda some: st.one_of(st.lists(some, max_size=3), st.tuples(some)), max_leaves=5), max_size=3))
@settings(max_examples=30)
def test_options_are_compared_as_they_are_read_back(tmp_path_factory, options):
    out, run = tmp_path_factory.mktemp('any'), Run('any', 'builtins:dict', options)
    assert do_run(out, run) == 'done' and is_done(out, run)


def test_what_nobody_needs_any_more_is_not_done(tmp_path):
    regions = nap('regions', .01)
    pretrain = nap('pretrain', .01, regions)
    runs = [nap('refer', .01, pretrain), nap('vqa', .01, pretrain)]
    work_off(tmp_path, runs)
    for name in ('regions', 'pretrain'): (tmp_path/'done'/f'{name}.json').unlink()
    work_off(tmp_path, runs) # both are there
    assert not (tmp_path/'done'/'pretrain.json').exists()
    (tmp_path/'done'/'vqa.json').unlink()
    assert list(schedule(runs, dict(nap=1.), done=lambda run: is_done(tmp_path, run))) == ['regions', 'pretrain', 'vqa']
    work_off(tmp_path, runs, 1)
    assert all(is_done(tmp_path, run) for run in [regions, pretrain, *runs]) and made(tmp_path, 'refer')['began'] < made(tmp_path, 'regions')['began']


def test_what_was_made_from_something_else_is_refused(tmp_path):
    def chain(seconds): return nap('refer', .01, nap('pretrain', .01, nap('regions', seconds)))
    work_off(tmp_path, [chain(.01)])
    for name, said in (('regions', r'regions was made with other options \(args\)'), ('pretrain', 'pretrain was made from another regions'), ('refer', 'refer was made from another pretrain')):
        with pytest.raises(ValueError, match=f'{said}; choose another folder, or delete .*/done/{name}.json and the folder of the run'): work_off(tmp_path, [chain(.02)])
        (tmp_path/'done'/f'{name}.json').unlink() # as it says, one after the other
    work_off(tmp_path, [chain(.02)])
    assert is_done(tmp_path, chain(.02))
