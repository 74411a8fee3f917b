// The front end of vlground.widgets: the same file serves JupyterLab (through anywidget) and static pages.
// It computes no IoU: Python sends each box's IoU with each region (float32), and moving a threshold only compares again.

const above = (value, threshold) => value > Math.fround(threshold) // strictly, and in float32, as PyTorch compares
const two = value => value.toFixed(2)
const most = 200 // rows of the matrix that are shown; the counts are of all

// What follows from the data at a state: which boxes are kept, the matrix, who is aligned, and how many.
function align(data, state) {
  const kept = data.scores.map(score => above(score, state.score))
  const best = data.phrases.map(() => data.regions.map(() => 0))
  data.iou.forEach((row, box) => {
    if (kept[box]) row.forEach((iou, region) => { best[data.which[box]][region] = Math.max(best[data.which[box]][region], iou) })
  })
  const rows = state.rows === 'words' ? data.words : data.phrases.map((text, phrase) => ({text, phrases: [phrase]}))
  const iou = rows.map(row => data.regions.map((_, region) => Math.max(0, ...row.phrases.map(phrase => best[phrase][region]))))
  const matrix = iou.map(row => row.map(value => above(value, state.iou)))
  const phraseHas = best.map(row => row.some(value => above(value, state.iou)))
  const regionHas = data.regions.map((_, region) => best.some(row => above(row[region], state.iou)))
  const count = truths => truths.filter(Boolean).length
  return {kept, rows, iou, matrix, best, phraseHas, regionHas, counts: {
    boxes: [count(kept), kept.length],
    phrases: [count(phraseHas), phraseHas.length],
    regions: [count(regionHas), regionHas.length],
    pairs: [count(matrix.flat()), rows.length*data.regions.length],
  }}
}

// An element with attributes and children; text is always text, never markup.
function make(tag, attributes = {}, ...children) {
  const svg = ['svg', 'g', 'rect', 'image', 'line'].includes(tag)
  const node = svg ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(name, value)
  node.append(...children)
  return node
}

function makeCaption(data, choose) {
  const button = (text, phrase) => {
    const node = make('button', {type: 'button', class: 'phrase', dir: 'auto'}, text)
    node.addEventListener('click', () => choose(phrase))
    return {node, phrase}
  }
  const inside = data.segments.map(([text, phrase]) => phrase === null ? {node: text} : button(text, phrase))
  const beside = data.beside.map(phrase => button(data.phrases[phrase], phrase)) // phrases that overlap another one
  const node = make('p', {class: 'caption', dir: 'auto'}, ...inside.map(part => part.node))
  const also = beside.length ? [make('p', {class: 'caption also'}, 'also: ', ...beside.map(part => part.node))] : []
  const buttons = [...inside, ...beside].filter(part => part.node instanceof Element)
  return {nodes: [node, ...also], update(state, now) {
    for (const {node, phrase} of buttons) {
      node.setAttribute('aria-pressed', String(state.phrase === phrase))
      node.classList.toggle('aligned', now.phraseHas[phrase])
    }
  }}
}

// A box to be drawn on a picture, and its label.
function makeMark(kind, [x1, y1, x2, y2], text) {
  const place = {x: x1, y: y1, width: x2 - x1, height: y2 - y1}
  const group = make('g', {class: `box ${kind}`}, make('rect', {class: 'halo', ...place}), make('rect', {class: 'line', ...place}))
  return {kind, group, corner: [x1, y1, x2, y2], label: make('span', {class: `label ${kind}`, dir: 'auto', 'aria-hidden': 'true'}, text)}
}

// What stands in the frame of a picture: the picture, boxes on it, and their labels.
function pictureParts(address, [width, height], marks) {
  const image = make('image', {href: address, width, height, preserveAspectRatio: 'none', 'aria-hidden': 'true'})
  const svg = make('svg', {viewBox: `0 0 ${width} ${height}`}, image, ...marks.map(each => each.group))
  return [svg, ...marks.map(each => each.label)]
}

// Each label goes to that corner of its box where it covers least of the labels before it; the most important come first.
function placeLabels(frame, width, marks) {
  const scale = frame.clientWidth/width, taken = []
  for (const {label, corner} of marks.filter(each => !each.label.hidden)) {
    const [x1, y1, x2, y2] = corner.map(value => value*scale), [w, h] = [label.offsetWidth, label.offsetHeight]
    const spots = [y1 - h, y1, y2 - h, y2].flatMap(y => [x1, x2 - w].map(x =>
      [Math.max(0, Math.min(x, frame.clientWidth - w)), Math.max(0, Math.min(y, frame.clientHeight - h))]))
    const covered = ([x, y]) => taken.reduce((sum, [left, top, right, bottom]) =>
      sum + Math.max(0, Math.min(right, x + w) - Math.max(left, x))*Math.max(0, Math.min(bottom, y + h) - Math.max(top, y)), 0)
    const [x, y] = spots.reduce((least, spot) => covered(spot) < covered(least) ? spot : least)
    label.style.transform = `translate(${x}px, ${y}px)`
    taken.push([x, y, x + w, y + h])
  }
}

// The picture with every box in it, and a label at those that matter.
function makePicture(data) {
  const grounded = data.boxes.map((box, i) => makeMark('grounded', box, `${data.phrases[data.which[i]]} ${two(data.scores[i])}`))
  const regions = data.regions.map((box, i) => makeMark('region', box, `r${i + 1}`))
  const gold = data.gold.map(box => makeMark('gold', box, 'gold'))
  const node = make('div', {class: 'picture', role: 'img'}, ...pictureParts(data.picture, data.size, [...gold, ...grounded, ...regions]))
  const label = () => placeLabels(node, data.size[0], [...grounded, ...regions, ...gold])

  const paint = (each, {hidden = false, aligned = false, dim = false, dropped = false, named = true}) => {
    for (const part of [each.group, each.label]) {
      part.classList.toggle('aligned', aligned)
      part.classList.toggle('dim', dim)
      part.classList.toggle('dropped', dropped)
    }
    each.group.toggleAttribute('hidden', hidden)
    each.label.toggleAttribute('hidden', hidden || dim || !named)
  }
  new ResizeObserver(label).observe(node)

  return {node, update(state, now, pointed) {
    const shown = pointed?.phrases ?? (state.phrase === null ? null : [state.phrase]) // null: all phrases
    const few = data.regions.length <= 12
    grounded.forEach((each, i) => {
      const mine = shown === null || shown.includes(data.which[i])
      paint(each, {hidden: !now.kept[i] && !(shown && mine), dropped: !now.kept[i], dim: !mine,
                   aligned: now.kept[i] && data.iou[i].some(value => above(value, state.iou))})
    })
    regions.forEach((each, i) => {
      const aligned = shown === null ? now.regionHas[i] : shown.some(phrase => above(now.best[phrase][i], state.iou))
      const mine = pointed ? pointed.region === i : shown === null || aligned
      paint(each, {aligned, dim: !mine, named: few || aligned || pointed?.region === i})
    })
    gold.forEach((each, i) => paint(each, {named: shown !== null, dim: shown !== null && data.goldWhich !== null && !shown.includes(data.goldWhich[i])}))
    const {boxes, regions: [matched, all]} = now.counts
    node.setAttribute('aria-label', `The picture with ${boxes[0]} boxes of phrases${all ? ` and ${all} regions, ${matched} of them aligned` : ''}`)
    label()
  }}
}

// A slider, with a tick at each value that its threshold decides about.
function makeSlider(name, text, values, change) {
  const input = make('input', {type: 'range', id: name, min: 0, max: 0.99, step: 0.01})
  const output = make('output', {for: name})
  const ticks = values.map(value => {
    const tick = make('i')
    tick.style.left = `${Math.min(100, 100*value/0.99)}%`
    return tick
  })
  input.addEventListener('input', () => change(Number(input.value)))
  const node = make('div', {class: 'slider'},
    make('label', {for: name}, text), output, make('div', {class: 'ticks', 'aria-hidden': 'true'}, ...ticks), input)
  return {node, update(threshold) {
    input.value = threshold
    input.style.setProperty('--at', `${100*input.value/0.99}%`)
    output.textContent = threshold === Number(two(threshold)) ? two(threshold) : String(threshold)
    ticks.forEach((tick, i) => tick.classList.toggle('above', above(values[i], threshold)))
  }}
}

function makeCounts(data) {
  const ofRegions = {pairs: 'pairs aligned', phrases: 'phrases with a region', regions: 'regions with a phrase'}
  const names = {...(data.regions.length ? ofRegions : {}), boxes: 'boxes kept'}
  const values = Object.fromEntries(Object.keys(names).map(name => [name, make('dd', {'data-count': name})]))
  const tiles = Object.entries(names).map(([name, text]) => make('div', {}, values[name], make('dt', {}, text)))
  const node = make('dl', {class: 'counts', 'aria-live': 'polite'}, ...tiles)
  return {node, update(now) {
    for (const name of Object.keys(names)) {
      const [some, all] = now.counts[name]
      values[name].replaceChildren(make('b', {}, String(some)), ` of ${all}`)
    }
  }}
}

// Some values of which one is chosen.
function makeRadios(legend, name, values, change) {
  const radios = values.map(value => {
    const input = make('input', {type: 'radio', name, value})
    input.addEventListener('change', () => change(value))
    return {value, input, node: make('label', {}, input, value)}
  })
  const node = make('fieldset', {}, make('legend', {}, legend), ...radios.map(radio => radio.node))
  return {node, update(chosen) { for (const {value, input} of radios) input.checked = value === chosen }}
}

// The alignment matrix: a table whose cells can be pointed at, or walked through with the arrow keys.
function makeMatrix(data, {choose, point, chooseRows}) {
  const table = make('table', {role: 'grid', 'aria-label': 'Alignment matrix'})
  const radios = makeRadios('Rows:', 'rows', ['phrases', 'words'], chooseRows), more = make('p', {class: 'more'})
  const node = make('div', {class: 'matrix'}, radios.node, make('div', {class: 'scroll'}, table), more)
  let cells = [], built = ''

  const build = now => {
    const heads = data.regions.map((_, i) => make('th', {scope: 'col'}, `r${i + 1}`))
    const rows = now.rows.slice(0, most)
    more.textContent = rows.length < now.rows.length ? `These are the first ${most} of ${now.rows.length} ${built}.` : ''
    cells = rows.map(() => data.regions.map(() => make('td', {role: 'gridcell', tabindex: -1})))
    if (cells[0]?.length) cells[0][0].tabIndex = 0
    table.replaceChildren(
      make('thead', {}, make('tr', {}, make('th', {scope: 'col'}, 'IoU'), ...heads)),
      make('tbody', {}, ...rows.map((row, i) => make('tr', {}, make('th', {scope: 'row', dir: 'auto', title: row.text}, row.text), ...cells[i]))))
    cells.forEach((line, i) => line.forEach((cell, region) => {
      const pointed = {row: i, region, phrases: rows[i].phrases}
      cell.addEventListener('pointerenter', () => point(pointed))
      cell.addEventListener('pointerleave', () => point(null))
      cell.addEventListener('focus', () => {
        for (const other of cells.flat()) other.tabIndex = other === cell ? 0 : -1
        point(pointed)
      })
      cell.addEventListener('blur', () => point(null))
      const pick = () => { if (pointed.phrases.length) choose(pointed.phrases[0]) }
      cell.addEventListener('click', pick)
      cell.addEventListener('keydown', event => {
        const steps = {ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1], Home: [0, -region], End: [0, line.length - 1 - region]}
        const [down, right] = steps[event.key] ?? [0, 0]
        const next = cells[i + down]?.[region + right]
        if (event.key === 'Enter' || event.key === ' ') pick()
        else if (!(down || right) || !next) return
        else next.focus()
        event.preventDefault()
      })
    }))
  }
  return {node, update(state, now) {
    if (built !== state.rows) {
      built = state.rows
      build(now)
    }
    radios.update(state.rows)
    cells.forEach((line, i) => line.forEach((cell, region) => {
      const iou = now.iou[i][region], aligned = now.matrix[i][region]
      cell.textContent = iou ? two(iou) : '·'
      cell.classList.toggle('aligned', aligned)
      cell.classList.toggle('other', state.phrase !== null && !now.rows[i].phrases.includes(state.phrase))
      cell.style.setProperty('--iou', iou)
      cell.setAttribute('aria-label', `${now.rows[i].text}, r${region + 1}: IoU ${two(iou)}, ${aligned ? 'aligned' : 'not aligned'}`)
    }))
  }}
}

// One sentence on what is pointed at, or else on the chosen phrase.
function sentence(data, state, now, pointed) {
  if (pointed) {
    const row = now.rows[pointed.row], iou = now.iou[pointed.row][pointed.region], region = `r${pointed.region + 1}`
    if (!row.phrases.length) return `“${row.text}” is in no phrase, so its row is empty.`
    return `“${row.text}” and ${region}: IoU ${iou.toFixed(3)} is ${now.matrix[pointed.row][pointed.region] ? '' : 'not '}greater than ${state.iou}.`
  }
  const alone = !data.regions.length
  if (state.phrase === null) return alone ? 'Choose a phrase of the caption. Without regions there is nothing to align it with.' : 'Choose a phrase of the caption, or point at a cell.'
  const mine = data.which.filter((phrase, box) => phrase === state.phrase && now.kept[box]).length, name = `“${data.phrases[state.phrase]}”`
  if (alone || !mine) return `${name} has ${mine || 'no'} box${mine > 1 ? 'es' : ''} with a score greater than ${state.score}.`
  const regions = data.regions.map((_, region) => `r${region + 1}`).filter((_, region) => above(now.best[state.phrase][region], state.iou))
  return `${name}: ${regions.length ? 'aligned with ' + regions.join(', ') : 'no region has an IoU greater than ' + state.iou}.`
}

// A line of a legend.
function sample(kind, text) {
  return make('li', {}, make('svg', {width: 26, height: 12, 'aria-hidden': 'true'},
    make('g', {class: `box ${kind}`}, make('line', {class: 'line', x1: 1, x2: 25, y1: 6, y2: 6}))), text)
}

function makeLegend(data) {
  const samples = data.regions.length
    ? [sample('grounded aligned', 'phrase, aligned'), sample('grounded', 'phrase, not aligned'),
       sample('region aligned', 'region, aligned'), sample('region', 'region, not aligned')]
    : [sample('grounded', 'phrase')]
  return make('ul', {class: 'legend'}, ...samples, ...(data.gold.length ? [sample('gold', 'gold')] : []))
}

// Put a view on the page, in a document of its own.
function place(host, root, css) {
  // a page's own shortcuts, such as JupyterLab's, must not also act on keys that are meant for the view
  root.addEventListener('keydown', event => { if (event.key !== 'Tab' && event.key !== 'Escape') event.stopPropagation() })
  const shadow = host.shadowRoot ?? host.attachShadow({mode: 'open'})
  shadow.replaceChildren(make('style', {}, css), root)
}

// A GroundingView. It gives back how to show another state, as each view does. Only the last step touches the page.
function mountGrounding(host, data, start, css) {
  let state = start, pointed = null
  const view = {changed: null, set(next) { state = next; pointed = null; update() }}
  const change = part => { state = {...state, ...part}; update(); view.changed?.(state) }
  const choose = phrase => change({phrase: state.phrase === phrase ? null : phrase})
  const overlaps = data.iou.flat().filter(Boolean)

  const caption = makeCaption(data, choose), picture = makePicture(data), counts = makeCounts(data)
  const iou = makeSlider('iou', 'IoU greater than', overlaps, value => change({iou: value}))
  const score = makeSlider('score', 'Score greater than', data.scores, value => change({score: value}))
  const matrix = makeMatrix(data, {choose, point: next => { pointed = next; update() }, chooseRows: rows => { pointed = null; change({rows}) }})
  const readout = make('p', {class: 'readout', role: 'status'})

  const update = () => {
    const now = align(data, state)
    caption.update(state, now)
    picture.update(state, now, pointed)
    iou.update(state.iou)
    score.update(state.score)
    counts.update(now)
    matrix.update(state, now)
    readout.textContent = sentence(data, state, now, pointed)
  }
  update()
  const alone = !data.regions.length, shape = alone ? ' alone' : data.regions.length > 8 ? ' wide' : ''
  const root = make('section', {class: `vlg${shape}`, 'aria-label': 'Phrases and regions of a picture'},
    make('div', {class: 'head'}, ...caption.nodes),
    make('div', {class: 'left'}, picture.node, makeLegend(data)),
    make('div', {class: 'sliders'}, ...(alone ? [] : [iou.node]), score.node), counts.node,
    make('div', {class: 'below'}, ...(alone ? [] : [matrix.node]), readout))
  place(host, root, css)
  return view
}

// Of an item's answers or rationales: what each model chooses (null: it says nothing of them), and whether that is right (null: nobody knows).
function judge(item, part) {
  const label = item.labels[part]
  return item.probabilities[part].map(four => {
    const chosen = four && four.indexOf(Math.max(...four))
    return {four, chosen, right: four === null || label === null ? null : chosen === label}
  })
}

// The items that a state may show.
function passing(data, {part, differ}) {
  const differs = item => {
    const right = judge(item, part).map(each => each.right)
    return right.includes(true) && right.includes(false)
  }
  return data.items.flatMap((item, i) => !differ || differs(item) ? [i] : [])
}

// The picture of an item, with a box for each object. Tab reaches one of the boxes, and the keys up and down the others.
function makeObjects(data, point, choose) {
  const frame = make('div', {class: 'picture', role: 'group'})
  let marks = [], width = 1
  const label = () => placeLabels(frame, width, marks)
  new ResizeObserver(label).observe(frame)
  return {node: frame, build(item, mentioned) {
    width = item.size[0]
    const few = item.tags.length <= 8, area = ([x1, y1, x2, y2]) => (x2 - x1)*(y2 - y1)
    marks = item.boxes.map((box, object) => ({...makeMark('object', box, item.tags[object]), object, named: few || mentioned.has(object)}))
    for (const {group, object} of marks) {
      for (const [name, value] of [['role', 'button'], ['aria-label', item.tags[object]], ['tabindex', object ? -1 : 0]]) group.setAttribute(name, value)
      group.addEventListener('pointerenter', () => point(object))
      group.addEventListener('pointerleave', () => point(null))
      group.addEventListener('click', () => choose(object))
      group.addEventListener('focus', () => {
        for (const other of marks) other.group.setAttribute('tabindex', other.object === object ? 0 : -1)
        point(object)
      })
      group.addEventListener('blur', () => point(null))
      group.addEventListener('keydown', event => {
        if (event.altKey || event.ctrlKey || event.metaKey) return
        const to = {ArrowUp: object - 1, ArrowDown: object + 1, Home: 0, End: marks.length - 1}[event.key]
        if (event.key === 'Enter' || event.key === ' ') choose(object)
        else if (to !== undefined) marks[to]?.group.focus() // at an end the page stays where it is, too
        else return
        event.preventDefault()
      })
    }
    const smallOnTop = [...marks].sort((a, b) => area(b.corner) - area(a.corner)) // or they could not be pointed at
    frame.replaceChildren(...pictureParts(data.pictures[item.picture], item.size, smallOnTop))
    frame.setAttribute('aria-label', `The picture with ${item.tags.length} boxes: ${item.tags.join(', ')}`)
  }, light(lit, pinned) {
    for (const {group, label, object, named} of marks) {
      group.setAttribute('aria-pressed', String(object === pinned))
      for (const part of [group, label]) {
        part.classList.toggle('lit', object === lit)
        part.classList.toggle('dim', lit !== null && object !== lit)
      }
      label.toggleAttribute('hidden', object !== lit && (lit !== null || !named))
    }
    label()
  }, has: node => marks.some(mark => mark.group === node)}
}

// Question, options and what the models give each of them.
function makeOptions(data, point, choose) {
  const question = make('p', {class: 'question', dir: 'auto'}), given = make('p', {class: 'given', dir: 'auto'}), long = data.models.some(name => name.length > 12)
  const list = make('ol', {class: `options ${long ? 'long' : ''}`})
  let tags = []
  const tag = (text, object) => {
    const node = make('button', {type: 'button', class: 'tag'}, text)
    node.addEventListener('pointerenter', () => point(object))
    node.addEventListener('pointerleave', () => point(null))
    node.addEventListener('focus', () => point(object))
    node.addEventListener('blur', () => point(null))
    node.addEventListener('click', () => choose(object))
    tags.push({node, object})
    return node
  }
  const text = pieces => pieces.reduce((nodes, [text, object]) => {
    const stop = object === null && nodes.length ? /^\S{1,3}(?=\s|$)/.exec(text)?.[0] ?? '' : '' // a full stop stays on the line of its tag
    if (stop) nodes.push(make('span', {class: 'unbroken'}, nodes.pop(), stop))
    nodes.push(object === null ? text.slice(stop.length) : tag(text, object))
    return nodes
  }, [])
  const bar = (model, {four, chosen, right}, option) => {
    if (!four) return make('div', {class: 'bar none'}, make('span', {class: 'model', dir: 'auto'}, model), 'no numbers')
    const mine = chosen === option, verdict = !mine || right === null ? '' : right ? 'right' : 'wrong'
    const said = `${model}: ${two(four[option])}${mine ? ', chosen' : ''}${verdict && `, ${verdict}`}`
    const node = make('div', {class: `bar ${mine ? 'chosen' : ''} ${verdict}`, role: 'img', 'aria-label': said, title: said},
      make('span', {class: 'model', dir: 'auto'}, model), make('b', {}, two(four[option])), {right: '✓', wrong: '✗'}[verdict] ?? '')
    node.style.setProperty('--share', `${100*four[option]}%`)
    return node
  }
  return {nodes: [question, given, list], build(item, part) {
    tags = []
    const label = item.labels[part], answer = item.labels.answers, judged = judge(item, part)
    question.replaceChildren(...text(item.question))
    given.hidden = part === 'answers'
    given.replaceChildren(...(given.hidden ? [] : answer === null ? ['The right answer is not known.'] : ['Given: ', ...text(item.answers[answer])]))
    list.setAttribute('aria-label', part === 'answers' ? 'Answers' : 'Rationales')
    list.replaceChildren(...item[part].map((pieces, option) => make('li', {class: option === label ? 'gold' : null},
      make('div', {class: 'text', dir: 'auto'}, ...text(pieces), ...(option === label ? [make('span', {class: 'gold'}, ' ✓ right')] : [])),
      make('div', {class: 'bars'}, ...data.models.map((model, m) => bar(model, judged[m], option))))))
  }, light(lit, pinned) {
    for (const {node, object} of tags) {
      node.classList.toggle('lit', object === lit)
      node.setAttribute('aria-pressed', String(object === pinned))
    }
  }, mentioned: () => new Set(tags.map(tag => tag.object)), has: node => tags.some(tag => tag.node === node)}
}

// One sentence on who chooses what.
function verdicts(data, item, part) {
  const said = judge(item, part).map(({chosen, right}, m) => chosen === null ? `${data.models[m]} says nothing`
    : `${data.models[m]} chooses ${'abcd'[chosen]}${right === null ? '' : right ? ', which is right' : ', which is wrong'}`)
  return `${said.join('; ')}.`
}

// The buttons and switches above an item.
function makeControls(data, step, change) {
  const button = (text, by) => {
    const node = make('button', {type: 'button', class: 'step'}, text)
    node.addEventListener('click', () => step(by))
    return node
  }
  const previous = button('‹ previous', -1), next = button('next ›', 1), position = make('output', {class: 'position'})
  const parts = makeRadios('Choose:', 'part', ['answers', 'rationales'], part => change({part}))
  const input = make('input', {type: 'checkbox', name: 'differ'}), many = make('span')
  input.addEventListener('change', () => change({differ: input.checked}))
  const filter = make('label', {class: 'filter'}, input, make('span', {}, 'only where the models differ ', many))
  const node = make('div', {class: 'head controls'}, make('div', {class: 'steps', role: 'group', 'aria-label': 'Items'}, previous, position, next),
    parts.node, ...(data.models.length > 1 ? [filter] : []))
  return {node, next, update(state) {
    const shown = passing(data, state), at = shown.indexOf(state.item), differing = passing(data, {...state, differ: true}).length
    position.textContent = `${at + 1} of ${shown.length}`
    previous.setAttribute('aria-disabled', String(at === 0)) // not `disabled`, which would lose the focus
    next.setAttribute('aria-disabled', String(at === shown.length - 1))
    parts.update(state.part)
    input.checked = state.differ
    input.disabled = !differing
    many.textContent = `(${differing} of ${data.items.length})`
  }}
}

// What the signs mean, where the right one is known and where it is not.
function makeSigns() {
  const node = make('ul', {class: 'legend'})
  return {node, build(known) {
    const signs = known ? [['bar chosen right', '✓', 'chosen, right'], ['bar chosen wrong', '✗', 'chosen, wrong'], ['bar', '', 'not chosen'], ['gold', '', 'the right one']]
      : [['bar chosen', '', 'chosen'], ['bar', '', 'not chosen']]
    node.replaceChildren(...signs.map(([kind, sign, text]) => make('li', {}, make('span', {class: kind, 'aria-hidden': 'true'}, sign), text)),
      ...(known ? [] : [make('li', {}, 'the right one is not known')]))
  }}
}

// A ChoiceView.
function mountChoices(host, data, start, css) {
  let state = start, pointed = null, built = ''
  const view = {changed: null, set(next) { if (next.item !== state.item || next.part !== state.part) pointed = null; state = next; update() }}
  const change = part => {
    const next = {...state, ...part}, shown = passing(data, next)
    if (!shown.length) next.differ = false // the other part may have nothing to show
    else if (!shown.includes(next.item)) next.item = shown.find(item => item > next.item) ?? shown[0]
    if (next.item !== state.item) next.tag = null
    state = next
    update()
    view.changed?.(state)
  }
  const step = by => {
    const shown = passing(data, state), item = shown[shown.indexOf(state.item) + by]
    if (item !== undefined) change({item})
  }
  const point = object => { pointed = object; light() }
  const choose = object => change({tag: state.tag === object ? null : object})

  const controls = makeControls(data, step, change), picture = makeObjects(data, point, choose), options = makeOptions(data, point, choose)
  const readout = make('p', {class: 'readout', role: 'status'}), legend = makeSigns()
  const light = () => {
    picture.light(pointed ?? state.tag, state.tag)
    options.light(pointed ?? state.tag, state.tag)
  }
  const update = () => {
    const item = data.items[state.item], wanted = `${state.item} ${state.part}`
    controls.update(state)
    if (built !== wanted) {
      const now = host.shadowRoot?.activeElement, focused = options.has(now) || picture.has(now)
      built = wanted
      pointed = null
      options.build(item, state.part)
      picture.build(item, options.mentioned())
      legend.build(item.labels[state.part] !== null)
      readout.textContent = verdicts(data, item, state.part)
      if (focused) controls.next.focus() // the tag, or the box, that had it is gone
    }
    light()
  }
  update()
  const root = make('section', {class: 'vlg choices', 'aria-label': 'Questions about pictures with four choices each'},
    controls.node, make('div', {class: 'left'}, picture.node, legend.node), make('div', {class: 'side'}, ...options.nodes, readout))
  root.addEventListener('keydown', event => {
    const by = {ArrowLeft: -1, ArrowRight: 1}[event.key]
    if (!by || event.target.type === 'radio' || event.altKey || event.ctrlKey || event.metaKey) return // arrows move on among radio buttons
    step(by)
    event.preventDefault()
  })
  place(host, root, css)
  return view
}

// Build a view into `host`.
function mount(host, data, ...rest) { return {grounding: mountGrounding, choices: mountChoices}[data.view](host, data, ...rest) }

// A view and the model of a running kernel tell each other of every change.
function connect(view, model) {
  view.set(model.get('value'))
  view.changed = state => { model.set('value', state); model.save_changes() }
  const follow = () => view.set(model.get('value'))
  model.on('change:value', follow)
  return () => { model.off('change:value', follow); view.changed = null }
}

// Views on the page and models of kernels find each other by name, whichever comes first.
function link(name) {
  const all = globalThis.vlgroundLinks ??= new Map()
  if (!all.has(name)) all.set(name, {model: null, views: new Set(), ends: []})
  return all.get(name)
}

function mountLinked(host, data, state, css, name) {
  const view = mount(host, data, state, css)
  if (!name) return
  const {model, views, ends} = link(name)
  views.add(view)
  if (model) ends.push(connect(view, model))
}

export default {
  initialize({model}) {
    const mine = link(model.get('name'))
    mine.model = model
    mine.ends = [...mine.views].map(view => connect(view, model))
    return () => { mine.ends.forEach(end => end()); mine.model = null }
  },
  render({model, el}) {
    const host = make('div')
    el.append(host)
    return connect(mount(host, model.get('data'), model.get('value'), model.get('_css')), model)
  },
}
