"What came out: tables that belong together, and the items behind a number."
import json
from pathlib import Path

import pytest

from vlground.claims import TABLES
from vlground.core import load_json, save_json
from vlground.tables import SCALES, read_cells
from vlground.verdicts import differing_items, draw_items, read_tables


def made(folder: Path, name: str, **change) -> None:
    "A table as the command leaves it."
    cells = [dict(row=row._asdict(), column=task, part=1., values={'0': .5, '1': .6}) for row in TABLES[name].rows for task in ('refer', 'vqa', 'answer', 'rationale')]
    save_json(dict(settings=dict(keep=16), data={}, cells=cells, beside=dict(multi={'0': .4}) if name == 'I' else {}) | change, folder/f'table-{name}-laptop.json')


def test_tables_are_put_together(tmp_path):
    for name in ('II', 'supplement', 'I'): made(tmp_path, name)
    made(tmp_path, 'figure5', settings={}) # not one of those that claims are about
    found = read_tables(tmp_path)
    assert found.tables == ('I', 'II', 'supplement') and found.beside == {'multi': {0: .4}}
    assert found.cells == [cell for name in found.tables for cell in read_cells(load_json(tmp_path/f'table-{name}-laptop.json'))]


@pytest.mark.parametrize('change, said', [(dict(settings=dict(keep=9)), 'table-III-laptop.json was made with other settings than table-II-laptop.json; make one of them again'),
                                          (dict(data=dict(vqa='0')), 'table-III-laptop.json was made from other data than table-II-laptop.json')])
def test_tables_that_do_not_belong_together(tmp_path, change, said):
    made(tmp_path, 'II')
    made(tmp_path, 'III', **change)
    with pytest.raises(ValueError, match=said): read_tables(tmp_path)


def test_no_table_was_made(tmp_path):
    with pytest.raises(FileNotFoundError, match='none of table-I-demo.json, .*; make a table first'): read_tables(tmp_path, 'demo')


def test_items_won_and_lost(tmp_path):
    class Item:
        def __init__(self, name): self.annot_id, self.answer_label = name, 1
    items = [Item(f'val-{i}') for i in range(40)]
    def write(name, rights):
        (tmp_path/name).write_text('\n'.join(json.dumps(dict(annot_id=item.annot_id, answer=[.1, .7, .1, .1] if right else [.7, .1, .1, .1])) for item, right in zip(items, rights)))
        return tmp_path/name
    first, second = write('a', [i % 2 for i in range(40)]), write('b', [i % 3 == 0 for i in range(40)])
    won, lost = differing_items(items, first, second)
    assert {item.annot_id for item in won} == {f'val-{i}' for i in range(40) if not i % 2 and i % 3 == 0} and {item.annot_id for item in lost} == {f'val-{i}' for i in range(40) if i % 2 and i % 3}
    again, other = differing_items(items, first, second), differing_items(items, first, second, seed=1)
    assert [item.annot_id for item in won] == [item.annot_id for item in again[0]] != [item.annot_id for item in other[0]]
    assert [item.annot_id for item in won] != sorted(item.annot_id for item in won)


def test_figure_5_takes_two_seeds(tmp_path):
    with pytest.raises(ValueError, match='two seeds'): draw_items(tmp_path, SCALES['search'])
