"Lessons 00 to 23 are built as the course's lessons are: their length, their figures, their exercises and their ending."
import re

import pytest
from notebooks import NOTEBOOKS, cells, directives, ids, outputs, source

FULL = [path for path in NOTEBOOKS if re.match(r'(0[0-9]|1[0-9]|2[0-3])_', path.stem) and path.stem != '06_worldfiles']
SHORT = [path for path in NOTEBOOKS if re.match(r'[01]\d_', path.stem) and path not in FULL]
full_lessons = pytest.mark.parametrize('path', FULL, ids=ids(FULL))
short_lessons = pytest.mark.parametrize('path', SHORT, ids=ids(SHORT))


def asserts(path) -> int: return sum(len(re.findall(r'(?m)^\s*(?:assert |test_\w+\()', source(cell))) for cell in cells(path, 'code'))
def prose(path) -> str: return '\n'.join(source(cell) for cell in cells(path, 'markdown'))
def figures(path) -> list[int]: return [number for number, output in outputs(path) if any(kind.startswith('image/') for kind in output.get('data', {}))]


def test_there_are_lessons():
    assert {path.stem[:2] for path in FULL} == {'00', '01', '02', '03', '04', '05', '06', '07', '08', '09', '10', '11', '12', '13', '14', '15', '16', '17', '18', '19', '20', '21', '22', '23'} and SHORT


@full_lessons
def test_size(path):
    assert 40 <= len(cells(path)) <= 80, f'{len(cells(path))} cells'
    assert 1200 <= len(prose(path).split()) <= 2500, f'{len(prose(path).split())} words'
    assert asserts(path) >= 15, f'{asserts(path)} asserts'
    assert 3 <= len(figures(path)) <= 8, f'{len(figures(path))} figures'


@full_lessons
def test_code_cells_are_short(path):
    lines = {number: len([line for line in source(cell).split('\n') if line.strip()]) for number, cell in enumerate(cells(path)) if cell['cell_type'] == 'code'}
    assert not {number: n for number, n in lines.items() if n > 40}, 'code cells of more than 40 lines'
    assert sorted(lines.values())[len(lines)//2] <= 12, 'the code cell in the middle should be short'


@full_lessons
def test_opening_says_what_is_built_and_how_long_it_takes(path):
    opening = '\n'.join(source(cell) for cell in cells(path)[:4] if cell['cell_type'] == 'markdown').lower()
    for word in ('build', 'need', 'two cores'): assert word in opening, f'the opening does not say {word!r}'


@full_lessons
def test_ending(path):
    end = '\n'.join(source(cell) for cell in cells(path, 'markdown')[-4:])
    assert re.search(r'(?mi)^#+ .*what you built', end), 'no closing section "What you built"'
    assert re.search(r'(?i)set-up lacks', end) and re.search(r'(?i)where next', end)


@full_lessons
def test_every_figure_is_read(path):
    every = cells(path)
    for number in figures(path):
        after = every[number + 1:number + 3]
        assert any(cell['cell_type'] == 'markdown' and len(source(cell).split()) >= 15 for cell in after), f'cell {number}: a figure without a paragraph that reads it'


@full_lessons
def test_exercises(path):
    every = cells(path)
    if path.stem == '01_drawing': return # its exercises are those of 01_world
    solutions = [cell for cell in every if directives(cell).get('code-summary', '').strip('"') == 'Solution']
    hints = re.findall(r'<details>\s*<summary>', prose(path))
    minutes = re.findall(r'(?i)\b(?:easy|medium|hard)\b[^\n]*?\bminutes?\b', prose(path))
    assert 2 <= len(solutions) <= 4, f'{len(solutions)} folded solutions'
    assert len(hints) >= len(solutions) and len(minutes) >= len(solutions), 'each exercise has a difficulty, minutes and a folded hint'
    for cell in solutions:
        assert re.search(r'(?m)^assert check_\w+\(', source(cell)), 'a solution asserts its check'
        assert cell['metadata'].get('jupyter', {}).get('source_hidden'), 'a solution is folded in JupyterLab'
    assert len({name for cell in every if cell['cell_type'] == 'code' for name in re.findall(r'\bcheck_\w+(?=\()', source(cell))}) >= len(solutions)


@full_lessons
def test_nothing_is_hidden_from_the_tests(path):
    assert not [number for number, cell in enumerate(cells(path)) if directives(cell).get('eval') == 'false']


@full_lessons
def test_headings_go_down_one_level_at_a_time(path):
    levels = [len(marks) for marks in re.findall(r'(?m)^(#+) ', prose(path))]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:]))


@short_lessons
def test_short_lessons_have_a_picture_and_asserts(path):
    assert figures(path), 'no picture'
    assert asserts(path) >= 2 and len(prose(path).split()) >= 100
