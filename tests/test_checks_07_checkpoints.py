"The checks behind the exercises of lesson 07, checkpoints."
import os

from checking import assert_check

from vlground import checks_training as checks
from vlground.core import load_json, sha256


def interval(size, speed, between, step, factor=2, hours=3600, least=1):
    return max(least, round((factor*size/speed*between*hours)**.5/step))


def test_check_steps_between_saves():
    assert_check(checks.check_steps_between_saves, interval, [
        (lambda *a: interval(*a, hours=1), 'hours into seconds'),
        (lambda *a: interval(*a, factor=1), 'factor 2'),
        (lambda size, speed, between, step: round(2*size/speed*between*3600/step), 'root missing'),
        (lambda *a: interval(*a, factor=8), '120 steps'),
        (lambda size, speed, between, step: interval(size, speed, between, 1), 'not in seconds'),
        (lambda size, speed, between, step: interval(2e9, 1e9, between, step), 'size divided by speed'),
        (lambda size, speed, between, step: interval(size, speed, 1, step), '25 hours'),
        (lambda size, speed, between, step: (2*size/speed*between*3600)**.5/step, 'round'),
        (lambda *a: interval(*a, least=0), 'never 0'),
    ])


def newest(folder, key=int, listed=True, every=True, digest=True, stop=False, first=False):
    def whole(path):
        if not (path/'parts.json').exists(): return not listed
        try: parts = load_json(path/'parts.json')
        except ValueError:
            if stop: raise
            return False
        def right(name, wanted):
            if not (path/name).exists(): return not every
            return sha256(path/name) == wanted if digest else True
        found = [right(*part) for part in parts.items()]
        return found[-1] if first else all(found)
    good = sorted((path.name.removeprefix('step-') for path in folder.glob('step-*') if whole(path)), key=key)
    return int(good[-1]) if good else 0


def test_check_newest_whole():
    assert_check(checks.check_newest_whole, newest, [
        (lambda folder: f'step-{newest(folder)}', 'as a number'),
        (lambda folder: min(int(path.name[5:]) for path in folder.iterdir()), 'newest counts'),
        (lambda folder: newest(folder, key=str), 'Compare numbers'),
        (lambda folder: newest(folder, listed=False), 'no parts.json'),
        (lambda folder: newest(folder, every=False), 'missing'),
        (lambda folder: newest(folder, digest=False), 'cut short'),
        (lambda folder: newest(folder, first=True), '*all* parts'),
        (lambda folder: newest(folder, stop=True), 'half written'),
        (lambda folder: newest(folder) or 100, 'the answer is 0'),
    ])


def append(path, line, cut=True, sync=True, flush=True, end=b'\n', make=True):
    if not make and not path.exists(): raise FileNotFoundError(path)
    with open(path, 'a+b') as file:
        file.seek(0)
        content = file.read()
        whole = content.rfind(b'\n') + 1
        if cut: file.truncate(whole)
        file.write(line.encode() + end)
        if flush: file.flush()
        if sync: os.fsync(file.fileno())
    return len(content) - whole


def as_text(path, line, errors='strict'):
    content = path.read_bytes().decode(errors=errors) if path.exists() else ''
    *whole, half = content.split('\n')
    with open(path, 'wb') as file:
        file.write(''.join(part + '\n' for part in whole).encode() + line.encode() + b'\n')
        file.flush()
        os.fsync(file.fileno())
    return len(half.encode())


def near_the_end(path, line):
    content = path.read_bytes()[-8192:] if path.exists() else b''
    half = len(content) - content.rfind(b'\n') - 1 if b'\n' in content else len(content)
    return append(path, line) if half < 8192 else (append(path, line, cut=False), 0)[1]


def test_check_append_line():
    assert_check(checks.check_append_line, append, [
        (lambda path, line: (path.write_text(line + '\n'), 0)[1], 'all that was there stays'),
        (lambda path, line: append(path, line, end=b''), 'with a line break'),
        (lambda path, line: append(path, line) or 1, 'the answer is 0'),
        (lambda path, line: append(path, line, cut=False), 'glued'),
        (lambda path, line: append(path, line)*0, 'return 4'),
        (lambda path, line: append(path, line, make=False), 'make it'),
        (as_text, 'work on bytes'),
        (lambda path, line: as_text(path, line, errors='replace'), 'work on bytes'),
        (lambda path, line: append(path, line) if line.isascii() else (path.open('ab').write(line.encode('latin-1')), 0)[1], 'write UTF-8'),
        (near_the_end, 'as far as needed'),
        (lambda path, line: append(path, line, sync=False), 'os.fsync'),
        (lambda path, line: append(path, line, flush=False), 'os.fsync'),
    ])


def test_check_append_line_knows_other_line_breaks():
    def at_any_break(path, line):
        content = path.read_bytes() if path.exists() else b''
        try: last = content.decode().splitlines(keepends=True)[-1:]
        except UnicodeDecodeError: return append(path, line)
        half = len(last[0].encode()) if last and not last[0].endswith('\n') else 0
        path.write_bytes(content[:len(content) - half])
        append(path, line)
        return half
    assert 'splitlines' in checks.check_append_line(at_any_break).message
