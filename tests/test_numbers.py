"Every number that a page tells of our results stands in a table that the page makes from results/; tests/test_notebooks.py sees to it that the tables are what their cells give."
import re
from pathlib import Path

import pytest
from notebooks import ROOT, cells, outputs, source

NUMBER = re.compile(r'(?<![\w.])[+−-]?\d+\.\d+(?![\w.]*\d)')
STORIES = {'index': ('What comes out',), '22_tables': ('Which rate suits whom',), '22_variations': ('What came out',), '22_verdicts': ('What came out', 'The claims', 'What did not come out, and why')} # page -> headings of the sections that tell of results


def numbers(text: str) -> set[str]: return {number.lstrip('+−-') for number in NUMBER.findall(text)}


def story(path: Path, heading: str) -> list[str]:
    "The text of a section, without code."
    texts, inside = [], False
    for cell in cells(path, 'markdown'):
        for part in re.split(r'(?m)^(?=## )', source(cell)):
            if part.startswith('## '): inside = part.startswith(f'## {heading}')
            if inside: texts.append(part)
    return texts


@pytest.mark.parametrize('name', STORIES)
def test_numbers_told_stand_in_the_tables(name):
    path = ROOT/'nbs'/f'{name}.ipynb'
    shown = numbers('\n'.join(''.join(output['data']['text/markdown']) for _, output in outputs(path) if 'text/markdown' in output.get('data', {})))
    told = {heading: story(path, heading) for heading in STORIES[name]}
    assert all(told.values()) and shown, f'{name}: no section {" or ".join(told)}, or no tables'
    lacking = numbers('\n'.join(sum(told.values(), []))) - shown
    assert not lacking, f'{name} tells of {sorted(lacking)}, which no table on the page has'
