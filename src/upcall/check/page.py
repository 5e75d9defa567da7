"""A story as one HTML page: nothing is loaded from anywhere, and without scripts it reads the same.

Each actor has a column under a head that stays; each step is a card in its actor's column, with its line of the source and
what waits in store buffers; the source around a step is shown while the pointer is on it, or after a click.
"""

from __future__ import annotations

import json
import linecache
import re
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .story import Row, Story

AROUND = 4
"""Lines of source shown before and after a step's own."""


def page(story: Story) -> str:
    """The whole page."""
    title = f"{story.scenario} ({story.model})"
    heads = "".join(f'<th scope="col" class="a{i % 6}">{escape(name)}</th>' for i, name in enumerate(story.actors))
    rows = "\n".join(_row(story, number, row) for number, row in story.shown(True))
    return _PAGE.format(
        title=escape(title),
        scenario=escape(story.scenario),
        model=escape(story.model),
        about=_prose(story.about),
        said=escape(story.said),
        promise=f'<p class="promise">The promise: {escape(story.promise)}</p>' if story.promise else "",
        heads=heads,
        rows=rows,
        ends="".join(_end(story, i) for i in range(len(story.actors))),
        columns=len(story.actors) + 1,
        trace=f"<pre>{escape(story.broken.strip())}</pre>" if "\n" in story.broken.strip() else "",
        hidden=sum(not row.seen for row in story.rows),
        sources=_sources(story),
        style=_STYLE,
        script=_SCRIPT,
    )


def _row(story: Story, number: int, row: Row) -> str:
    """One step: its card in its actor's column, and in each column what waits in that actor's store buffer."""
    buffers = {actor: _chips(waiting) for actor, waiting in row.buffers}
    cells = [f"<td>{buffers.get(i, '')}</td>" for i in range(len(story.actors))]
    parts = [f'<div class="what">{escape(row.what)}</div>']
    if row.unseen:
        parts.append(f'<div class="unseen">{escape(row.unseen)}</div>')
    if row.file and row.kind != "note":
        place = f'<span class="where">{escape(row.where)} {escape(row.function)}</span>'
        parts.append(f'<div class="line"><code>{escape(row.source)}</code>{place}</div>')
    parts.append(buffers.get(row.actor, ""))
    at = f' data-at="{escape(row.file)}:{row.line}"' if row.file else ""
    cells[row.actor] = f'<td class="a{row.actor % 6} {row.kind}"{at}>{"".join(parts)}</td>'
    kind = "" if row.seen else ' class="private"'
    return f'<tr id="s{number}"{kind}><th scope="row"><a href="#s{number}">{number}</a></th>{"".join(cells)}</tr>'


def _chips(waiting: tuple[str, ...]) -> str:
    """What waits in a store buffer."""
    chips = "".join(f"<li>{escape(each)}</li>" for each in waiting)
    return f'<ul class="buffer" title="in its store buffer, not in memory"><li>in its buffer</li>{chips}</ul>'


def _prose(text: str) -> str:
    """Text with `code` in it."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _end(story: Story, actor: int) -> str:
    """What has become of an actor, and what its buffer holds."""
    waiting = dict(story.rows[-1].buffers if story.rows else ()).get(actor, ())
    left = f"<br>still in its buffer: {escape(', '.join(waiting))}" if waiting else ""
    end = story.ends[actor] if actor < len(story.ends) else ""
    return f"<td>{escape(end)}{left}</td>"


def _sources(story: Story) -> str:
    """The lines around each step, for the script: by place, the first line's number and the lines."""
    around = {}
    for row in story.rows:
        if row.file:
            first = max(row.line - AROUND, 1)
            lines = [linecache.getline(row.file, line).rstrip() for line in range(first, row.line + AROUND + 1)]
            around[f"{row.file}:{row.line}"] = [row.where, first, row.line, lines]
    return json.dumps(around).replace("</", "<\\/")


_STYLE = """
:root { color-scheme: light dark; --bg: #fbfbfa; --fg: #22262b; --dim: #6b737d; --line: #e2e4e7; --card: #fff;
  --red: #b3261e; --redbg: #fdecea; --wait: #8a5a00; --waitbg: #fff3d6;
  --c0: #2b6cb0; --c1: #b7591b; --c2: #2f7d4f; --c3: #8a3ffc; --c4: #8f6f00; --c5: #007d8a; }
@media (prefers-color-scheme: dark) { :root { --bg: #16181c; --fg: #e4e6e9; --dim: #98a1ac; --line: #31353c; --card: #1f2228;
  --red: #ff8a80; --redbg: #3a1e1d; --wait: #ffcf70; --waitbg: #3a2f16;
  --c0: #7ab5f5; --c1: #f0a06a; --c2: #79cf9b; --c3: #c3a0ff; --c4: #dcc05a; --c5: #63cfdb; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--fg); font: 14px/1.45 system-ui, sans-serif; }
header, main, footer { max-width: 1500px; margin: 0 auto; padding: 0 1.5rem; }
header { padding-top: 1.5rem; }
h1 { font-size: 1.35rem; margin: 0 0 .2rem; }
h1 small { font-weight: 400; color: var(--dim); }
p { margin: .3rem 0; max-width: 60rem; }
.broken { background: var(--redbg); border-left: 4px solid var(--red); border-radius: 4px; padding: .7rem 1rem;
  margin: 1rem 0; }
.broken strong { color: var(--red); }
.promise { color: var(--dim); }
.tools { display: flex; gap: 1.5rem; color: var(--dim); margin: .6rem 0; flex-wrap: wrap; }
table { width: 100%; border-collapse: separate; border-spacing: .5rem .3rem; table-layout: fixed; }
thead th { position: sticky; top: 0; z-index: 2; background: var(--bg); text-align: left; padding: .6rem .7rem;
  border-bottom: 3px solid var(--line); }
th:first-child { width: 3.2rem; }
tbody th { font-weight: 400; text-align: right; vertical-align: top; padding-top: .4rem; }
tbody th a { color: var(--dim); text-decoration: none; }
td { vertical-align: top; overflow-wrap: anywhere; }
tbody td[class] { background: var(--card); border: 1px solid var(--line); border-left: 4px solid; border-radius: 5px;
  padding: .35rem .7rem; }
.what { font-weight: 600; }
.flush .what { font-weight: 400; color: var(--wait); }
.dies .what, .stops .what { color: var(--red); }
.unseen { color: var(--wait); }
code, pre { font: 12.5px/1.5 ui-monospace, monospace; }
.line { display: flex; flex-wrap: wrap; justify-content: space-between; column-gap: 1rem; align-items: baseline; }
.line code { opacity: .85; white-space: pre-wrap; }
.where { color: var(--dim); font-size: 12px; }
.note .what { font-weight: 400; font-style: italic; color: var(--dim); }
.buffer { list-style: none; display: flex; flex-wrap: wrap; gap: .3rem; margin: .3rem 0 0; padding: 0; font-size: 12px; }
.buffer li { color: var(--wait); }
td:not([class]) .buffer { opacity: .75; padding-left: .9rem; }
.buffer li + li { background: var(--waitbg); border-radius: 9px; padding: 0 .5rem; }
thead .a0 { border-color: var(--c0); } thead .a1 { border-color: var(--c1); } thead .a2 { border-color: var(--c2); }
thead .a3 { border-color: var(--c3); } thead .a4 { border-color: var(--c4); } thead .a5 { border-color: var(--c5); }
tbody td.a0 { border-left-color: var(--c0); } tbody td.a1 { border-left-color: var(--c1); }
tbody td.a2 { border-left-color: var(--c2); } tbody td.a3 { border-left-color: var(--c3); }
tbody td.a4 { border-left-color: var(--c4); } tbody td.a5 { border-left-color: var(--c5); }
tr.private { opacity: .65; } body:not(.all) tr.private { display: none; }
tr:target td[class], td.held { outline: 2px solid var(--c0); }
tfoot td { color: var(--dim); padding: .5rem .7rem; }
tfoot .broken { color: var(--fg); }
#source { position: fixed; right: 1rem; bottom: 1rem; max-width: min(48rem, 60vw); background: var(--card); margin: 0;
  border: 1px solid var(--line); border-radius: 6px; box-shadow: 0 4px 18px #0005; padding: .6rem .9rem; overflow: auto;
  pointer-events: none; z-index: 3; }
#source[hidden] { display: none; }
#source.left { right: auto; left: 1rem; }
#source mark { background: var(--waitbg); color: inherit; display: block; }
footer { color: var(--dim); padding-bottom: 3rem; font-size: 12.5px; }
@media print { #source, .tools { display: none; } }
"""

_SCRIPT = """
const sources = JSON.parse(document.getElementById('sources').textContent), box = document.getElementById('source');
let held = null;
function show(cell) {
  const found = cell && sources[cell.dataset.at];
  box.hidden = !found;
  if (!found) return;
  const [where, first, own, lines] = found;
  box.textContent = where;
  box.classList.toggle('left', cell.getBoundingClientRect().left > innerWidth / 2);
  lines.forEach((line, i) => {
    const part = document.createElement(first + i === own ? 'mark' : 'div');
    part.textContent = String(first + i).padStart(5) + '  ' + line;
    box.append(part);
  });
}
document.querySelectorAll('td[data-at]').forEach(cell => {
  cell.addEventListener('mouseenter', () => show(cell));
  cell.addEventListener('mouseleave', () => show(held));
  cell.addEventListener('click', () => {
    if (held) held.classList.remove('held');
    held = held === cell ? null : cell;
    if (held) held.classList.add('held');
    show(held);
  });
});
document.getElementById('all').addEventListener('change', e => document.body.classList.toggle('all', e.target.checked));
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{scenario} <small>under {model}</small></h1>
<p>{about}</p>
<div class="broken"><strong>Broken: {said}</strong>{promise}</div>
<div class="tools"><label><input type="checkbox" id="all"> also the {hidden} steps that nobody else could see</label></div>
</header>
<main>
<table>
<thead><tr><th scope="col"></th>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
<tfoot>
<tr><td colspan="{columns}"><div class="broken"><strong>Here it breaks: {said}</strong>{promise}{trace}</div></td></tr>
<tr><td>end</td>{ends}</tr>
</tfoot>
</table>
</main>
<footer>Found by upcall check. Rows are steps in the order in which they happen; a step's source shows while the pointer is
on it, and stays after a click.</footer>
<pre id="source" hidden></pre>
<script type="application/json" id="sources">{sources}</script>
<script>{script}</script>
</body>
</html>
"""
