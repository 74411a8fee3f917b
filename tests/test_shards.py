"Shards: a plan is kept to, work is shared out without overlap, errors are counted, and what is left on disk is what counts."
import json
import multiprocessing

import pytest
from hypothesis import given, strategies as st

from vlground.core import load_json, save_json
from vlground.shards import FORMAT, ShardReader, ShardWriter, find_damage, read_manifest, run_shards, shard_file, shard_rows, share_of, too_many_errors

FORK = multiprocessing.get_context('fork')


def lines(ids, failed=()): return ''.join(json.dumps({'id': id} | ({'error': f'why {id}'} if id in failed else {})) + '\n' for id in ids)


def write(folder, ids, shard_size=3, failed=(), numbers=None, about=None):
    writer = ShardWriter(folder, 'words', ids, shard_size, about or {})
    for number, part in writer.missing():
        if numbers is None or number in numbers: writer.add(number, {'.jsonl': lambda path: path.write_text(lines(part, failed))})
    return writer


@given(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=20, unique=True), st.integers(1, 8), st.integers(1, 5), st.randoms())
def test_work_is_shared_out_without_overlap(tmp_path, ids, shard_size, jobs, chance):
    folder = tmp_path/str(len(list(tmp_path.iterdir())))
    writer = ShardWriter(folder, 'words', ids, shard_size, {})
    missing = writer.missing()
    assert [id for _, part in missing for id in part] == ids and all(len(part) <= shard_size for _, part in missing)
    for number, part in missing: assert writer.only(number).ids_of(number) == writer.ids_of(number) == part == writer.only(number).ids
    some = [entry for entry in missing if chance.random() < .6] # each job may see other things missing
    shares = [share_of(some if i % 2 else missing, (i, jobs)) for i in range(1, jobs + 1)]
    numbers = [number for share in shares for number, _ in share]
    assert len(set(numbers)) == len(numbers) and {number for number, _ in some} <= set(numbers) and share_of(missing, None) == missing
    # a writer that goes over a job's share alone leaves the others'
    write(folder, ids, shard_size, numbers={number for number, _ in shares[0]})
    assert {number for number, _ in writer.missing()} == {number for number, _ in missing} - {number for number, _ in shares[0]}


@pytest.mark.parametrize('shard', [(0, 2), (3, 2), (1, 0)])
def test_jobs_count_from_one(shard):
    with pytest.raises(ValueError, match='job i of n'): share_of([(0, [])], shard)


@given(st.integers(0, 30), st.integers(1, 30), st.floats(0, 1))
def test_errors_against_a_share(failed, total, share):
    failed = min(failed, total)
    told = too_many_errors({f'{i}.jpg': f'why {i}' for i in range(failed)}, total, share)
    assert bool(told) == (failed > share*total)
    if told: assert f'{failed} of {total}' in told and '0.jpg: why 0' in told and '3.jpg' not in told


@pytest.mark.parametrize('share', [-.1, 1.5, 5, float('nan')])
def test_a_share_is_a_share(share):
    with pytest.raises(ValueError, match=r'share in \[0, 1\]'): too_many_errors({}, 3, share)


def test_readers_know_ids_and_errors(tmp_path):
    write(tmp_path/'w', list('abcdefg'), failed='bg')
    reader = ShardReader(tmp_path/'w', 'words')
    assert len(reader) == 7 and reader.ids == list('abcdefg') and reader.index['e'] == 4 and reader.errors == {'b': 'why b', 'g': 'why g'}
    assert shard_rows(tmp_path/'w', reader.manifest, 2) == [{'id': 'g', 'error': 'why g'}]
    with pytest.raises(ValueError, match='a store of words, expected labels'): ShardReader(tmp_path/'w', 'labels')
    (tmp_path/'w'/'shard-00001.jsonl').write_text('{"id": "d"}\n{"id": "e"}\n{"id: "f"} \n')
    with pytest.raises(ValueError, match='shard-00001.jsonl: not lines of JSON'): ShardReader(tmp_path/'w', 'words').ids


def test_an_unfinished_folder_is_told(tmp_path):
    write(tmp_path/'w', list('abcdefg'), numbers={1})
    with pytest.raises(ValueError, match='2 of 3 shards are still to be written'): ShardReader(tmp_path/'w', 'words')
    manifest = read_manifest(tmp_path/'w')
    with pytest.raises(ValueError, match='shard 0 is still to be written'): shard_file(tmp_path/'w', manifest, 0, '.jsonl')
    assert len(find_damage(tmp_path/'w')) == 2


def test_a_file_that_shards_do_not_have(tmp_path):
    write(tmp_path/'w', list('abc'))
    with pytest.raises(ValueError, match=r'w: shard 0 has no file shard-00000.tar; the manifest names shard-00000.jsonl$'): shard_file(tmp_path/'w', read_manifest(tmp_path/'w'), 0, '.tar')


def test_a_plan_names_what_differs(tmp_path):
    write(tmp_path/'w', list('abc'), about={'made_by': {'name': 'x', 'version': 1}, 'width': 3})
    for about, told in (({'made_by': {'name': 'x', 'version': 2}, 'width': 3}, 'made_by.version'), ({'made_by': {'name': 'x'}, 'width': 3}, 'made_by.version'),
                        ({'made_by': {'name': 'x', 'version': 1}}, 'width'), ({'made_by': 'x', 'width': 3}, 'made_by')):
        with pytest.raises(ValueError, match=rf'begun with another plan \({told} differ\)'): ShardWriter(tmp_path/'w', 'words', list('abc'), 3, about)


@pytest.mark.fault(21)
def test_a_newer_format_is_refused_by_everybody(tmp_path):
    write(tmp_path/'w', list('abc'))
    save_json(load_json(tmp_path/'w'/'manifest.json') | {'format': FORMAT + 4}, tmp_path/'w'/'manifest.json')
    for use in (read_manifest, find_damage, lambda folder: ShardReader(folder, 'words'), lambda folder: write(folder, list('abc'))):
        with pytest.raises(ValueError, match=f'format version {FORMAT + 4} is newer than version {FORMAT}'): use(tmp_path/'w')


@pytest.mark.parametrize('name', ['kind', 'records', 'shard_size', 'shard_count', 'shards'])
def test_a_manifest_that_lacks_something(tmp_path, name):
    write(tmp_path/'w', list('abc'))
    manifest = load_json(tmp_path/'w'/'manifest.json')
    del manifest[name]
    save_json(manifest, tmp_path/'w'/'manifest.json')
    with pytest.raises(ValueError, match=rf'manifest.json: not the manifest of a store \(no {name}\)'): read_manifest(tmp_path/'w')


# running jobs

def some_jobs(folder, ids, failing, tried):
    writer = ShardWriter(folder, 'words', ids, 2, {})
    def job(number, part):
        tried.append(number)
        writer.add(number, {'.jsonl': lambda path: path.write_text(lines(part, failing))})
        return len(part), {id: f'why {id}' for id in part if id in failing}
    return job, writer


@pytest.mark.fault(8)
def test_a_run_stops_as_soon_as_the_share_cannot_be_kept(tmp_path):
    tried = []
    job, writer = some_jobs(tmp_path/'w', list('abcdefghij'), 'bdj', tried)
    with pytest.raises(ValueError, match='2 of 10 could not be used.*b: why b; d: why d'): run_shards(job, writer.missing(), writer, .1, quiet=True)
    assert tried == [0, 1]
    with pytest.raises(ValueError, match='2 of 10'): run_shards(job, writer.missing(), writer, .1, quiet=True)
    assert tried == [0, 1] # what failed before counts before anything is begun
    with pytest.raises(ValueError, match='3 of 10'): run_shards(job, writer.missing(), writer, .2, quiet=True)
    assert tried == [0, 1, 2, 3, 4] and writer.missing() == []
    with pytest.raises(ValueError, match='3 of 10'): run_shards(job, writer.missing(), writer, .2, quiet=True)
    run_shards(job, writer.missing(), writer, .3, quiet=True)
    assert ShardReader(tmp_path/'w', 'words').errors.keys() == set('bdj')


def test_a_job_that_raises_stops_the_run(tmp_path):
    def job(number, part): raise RuntimeError(f'shard {number} burst')
    writer = ShardWriter(tmp_path/'w', 'words', list('abc'), 2, {})
    with pytest.raises(RuntimeError, match='shard 0 burst'): run_shards(job, writer.missing(), writer, quiet=True)


# two writers of the same shards

def same_shards(folder, done):
    write(folder, [f'word {i}' for i in range(60)], shard_size=2)
    done.put(True)


@pytest.mark.fault(17)
def test_two_writers_of_the_same_shards(tmp_path):
    "Nobody shares out anything: both write every shard that they see missing."
    done = FORK.Queue()
    jobs = [FORK.Process(target=same_shards, args=(tmp_path/'both', done)) for _ in range(3)]
    for job in jobs: job.start()
    for job in jobs: job.join()
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    write(tmp_path/'alone', [f'word {i}' for i in range(60)], shard_size=2)
    names = {path.name for path in (tmp_path/'alone').iterdir()}
    assert {path.name for path in (tmp_path/'both').iterdir()} == names and find_damage(tmp_path/'both') == []
    assert all((tmp_path/'both'/name).read_bytes() == (tmp_path/'alone'/name).read_bytes() for name in names)


@pytest.mark.fault(3)
def test_a_full_disk_names_the_file_and_says_how_to_go_on(tmp_path):
    def full(path):
        path.write_text('ha')
        raise OSError(28, 'No space left on device')
    writer = write(tmp_path/'w', list('abcd'), 2, numbers={0})
    with pytest.raises(OSError, match='No space left on device; finished shards are kept, run again to go on.*shard-00001.jsonl') as caught: writer.add(1, {'.jsonl': full})
    assert caught.value.errno == 28 and writer.missing() == [(1, ['c', 'd'])]
    assert {path.name for path in (tmp_path/'w').iterdir()} == {'.lock', 'manifest.json', 'shard-00000.jsonl'}


@pytest.mark.fault(17)
def test_leftovers_of_killed_writers_are_swept_with_the_last_shard(tmp_path):
    writer = write(tmp_path/'w', list('abcd'), 2, numbers={0})
    left = tmp_path/'w'/'.shard-00001.deadbeef.part.jsonl'
    left.write_text('half')
    writer.add(1, {'.jsonl': lambda path: path.write_text(lines('cd'))})
    assert not left.exists() and ShardReader(tmp_path/'w', 'words').ids == list('abcd')
